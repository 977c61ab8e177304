"""The expected output length of a request, as its front door asks for it."""

from __future__ import annotations

import logging

from policies.api import LengthPredictor, PolicyError, RequestView
from reference_impl.core.failure import RAISED, policy_failure

_LOG = logging.getLogger(__name__)


def predicted_tokens(predictor: LengthPredictor | None, view: RequestView) -> int | None:
    """What the predictor says. One that fails costs its request the prediction, not its answer."""
    if predictor is None:
        return None
    try:
        tokens = predictor.predict(view)
    except RAISED as error:
        _LOG.error("%s", policy_failure(predictor, f"predicting the output of request {view.request_id}", error))
        return None
    if tokens is not None and (type(tokens) is not int or tokens < 1):
        _LOG.error("%s", PolicyError(f"predictor {predictor.name!r} answered {tokens!r}; allowed: 1 or more, or None"))
        return None
    return tokens
