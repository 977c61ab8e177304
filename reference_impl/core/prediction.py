"""The expected output length of a request, as a host asks for it, and what its predictor learns of the true ones."""

from __future__ import annotations

from typing import Literal

from policies.api import LengthPredictor, PolicyError, PolicyEvent, RequestView
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.hearing import Hearing


class Prediction:
    """A predictor in its host. One that observes is told of ends only, ``delay_s`` after they happened."""

    def __init__(self, predictor: LengthPredictor, delay_s: float) -> None:
        self._predictor = predictor
        self._hearing = Hearing(predictor, delay_s)

    @property
    def oracle(self) -> bool:
        """Whether it has to be shown the true length."""
        return self._predictor.oracle

    @property
    def observed(self) -> bool:
        """Whether it learns."""
        return self._hearing.observer is not None

    def ended(self, at_s: float, request_id: int, tokens: int | None) -> None:
        """A request finished with so many output tokens; None: it was rejected, failed or given up."""
        kind: Literal["finished", "rejected"] = "rejected" if tokens is None else "finished"
        self._hearing.notify(PolicyEvent(kind, at_s, request_id, None, tokens or 0))

    def tokens(self, request: RequestView, now_s: float) -> int | None:
        """What the predictor says. Raises PolicyError where it fails, or says what no length can be."""
        predictor = self._predictor
        if self._hearing.under_way:
            self._hearing.learn(now_s)
        try:
            tokens = predictor.predict(request)
        except RAISED as error:
            doing = f"predicting the output of request {request.request_id}"
            raise policy_failure(predictor, doing, error) from error
        if tokens is not None and (type(tokens) is not int or tokens < 1):
            raise PolicyError(
                f"predictor {predictor.name!r} answered {tokens!r} for request {request.request_id}; allowed: a whole"
                " number of tokens, 1 or more, or None"
            )
        return tokens
