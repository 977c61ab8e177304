"""A predictor that learns, in virtual time: it knows how long an answer was once the report delay has passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest

from policies.api import PolicyError, PolicyEvent, PolicyKind, RequestView
from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.simulator import simulate
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]


@dataclass
class Last:
    """Predicts the last output length that it was told; notes what it knew at each request."""

    kind: ClassVar[PolicyKind] = "prediction"
    name: ClassVar[str] = "last"
    oracle: ClassVar[bool] = False
    rng: Any = None
    said: list[int | None] = field(default_factory=list)
    told: list[PolicyEvent] = field(default_factory=list)

    def predict(self, request: RequestView) -> int | None:
        self.said.append(self.told[-1].tokens if self.told else None)
        return self.said[-1] or None

    def observe(self, event: PolicyEvent) -> None:
        self.told.append(event)


@pytest.mark.parametrize("roles", [("colocated",), ("prefill", "decode"), ("semi_pd",)])
@pytest.mark.parametrize(("delay_s", "known"), [(0.0, [None, 3, 4]), (0.5, [None, None, 3])])
def test_it_knows_an_answer_once_the_report_delay_has_passed(
    deploy: Deploy, requests: Callable[..., Trace], roles: Any, delay_s: float, known: list[int | None]
) -> None:
    predictor = Last()
    spec = replace(deploy(*roles), report_delay_s=delay_s, predictor=predictor)
    simulate(spec, requests((0.0, 10, 3), (0.4, 10, 4), (0.8, 10, 5)), EventLog(None))
    assert predictor.said == known
    assert {event.kind for event in predictor.told} == {"finished"}


def test_a_rejected_request_is_no_answer(deploy: Deploy, requests: Callable[..., Trace]) -> None:
    predictor = Last()
    spec = replace(deploy("colocated"), predictor=predictor)
    simulate(spec, requests((0.0, 10, 50_000), (1.0, 9, 9)), EventLog(None))
    assert [(event.kind, event.request_id, event.tokens) for event in predictor.told] == [("rejected", 0, 0)]


def test_one_that_fails_to_learn_ends_the_run_with_its_name(deploy: Deploy, requests: Callable[..., Trace]) -> None:
    class Forgetful(Last):
        def observe(self, event: PolicyEvent) -> None:
            raise KeyError(event.request_id)

    spec = replace(deploy("colocated"), predictor=Forgetful())
    with pytest.raises(PolicyError, match=r"policy 'last' raised KeyError.* while observing PolicyEvent"):
        simulate(spec, requests((0.0, 10, 3), (1.0, 10, 3)), EventLog(None))
