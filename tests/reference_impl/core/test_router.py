"""What a job executor knows of the instances, and when."""

from __future__ import annotations

from typing import Any

import pytest

from policies.api import Dispatch, InstanceView, PolicyError, PolicyEvent, Reject, RequestView, Role
from reference_impl.core.router import Router

REQUEST = RequestView(0, 0.0, 8)


def view(number: int, role: Role = "colocated", observed_at_s: float = 0.0, waiting: int = 0) -> InstanceView:
    return InstanceView(number, role, "ready", observed_at_s, waiting, 0, 0, 0, 10, 10, 16)


class Noting:
    """Dispatches to the first instance, and keeps what it was shown and told."""

    kind = "dispatch"
    name = "noting"

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.heard: list[PolicyEvent] = []
        self.answer: Any = None

    def dispatch(self, request: RequestView, cluster: Any) -> Any:
        self.shown.append([(known.instance_id, known.waiting_requests) for known in cluster.instances])
        return self.answer or Dispatch(cluster.instances[0].instance_id)

    def observe(self, event: PolicyEvent) -> None:
        self.heard.append(event)


@pytest.fixture
def policy() -> Any:
    return Noting()


def router(policy: Any, *views: InstanceView, delay_s: float = 0.0) -> Router:
    return Router(policy, delay_s, None, views)  # type: ignore[arg-type]


def test_each_phase_sees_its_instances_by_ascending_id(policy: Any) -> None:
    made = router(policy, view(4), view(3, "decode"), view(2, "prefill"), view(1, "semi_pd"), view(0, "decode"))
    made.route(REQUEST, "prefill", 0.0)
    made.route(REQUEST, "decode", 0.0)
    assert policy.shown == [[(1, 0), (2, 0), (4, 0)], [(0, 0), (3, 0)]]


def test_a_phase_without_instances_is_not_asked_about(policy: Any) -> None:
    made = router(policy, view(0))
    assert made.route(REQUEST, "decode", 0.0) is None
    made.set_members(())
    assert made.route(REQUEST, "prefill", 0.0) is None
    assert policy.shown == []


def test_a_report_is_known_after_its_delay(policy: Any) -> None:
    made = router(policy, view(0), delay_s=0.5)
    made.report(view(0, observed_at_s=1.0, waiting=7))
    assert made.next_report_s == 1.5
    for now_s in (1.25, 1.5):
        made.route(REQUEST, "prefill", now_s)
    assert policy.shown == [[(0, 0)], [(0, 7)]]
    assert made.next_report_s is None


def test_events_are_heard_after_their_delay_and_before_the_question(policy: Any) -> None:
    made = router(policy, view(0), delay_s=0.5)
    made.notify(PolicyEvent("finished", 1.0, 0, 0, 3))
    made.route(REQUEST, "prefill", 1.25)
    assert policy.heard == []
    made.route(REQUEST, "prefill", 1.75)
    assert [event.kind for event in policy.heard] == ["finished"]


def test_an_instance_that_comes_is_known_as_it_says_and_one_that_stays_by_its_younger_view(policy: Any) -> None:
    made = router(policy, view(0), view(1))
    made.report(view(0, observed_at_s=2.0, waiting=5))
    made.set_members([view(0, observed_at_s=1.0, waiting=1), view(2, observed_at_s=1.0, waiting=2)])
    made.route(REQUEST, "prefill", 3.0)
    made.set_members([view(0, observed_at_s=4.0), view(2)])
    made.route(REQUEST, "prefill", 5.0)
    assert policy.shown == [[(0, 5), (2, 2)], [(0, 0), (2, 2)]]


def test_reports_of_an_instance_that_has_gone_are_ignored(policy: Any) -> None:
    made = router(policy, view(0), view(1), delay_s=0.5)
    made.report(view(1, observed_at_s=1.0, waiting=9))
    made.set_members([view(0)])
    made.report(view(1, observed_at_s=1.1, waiting=9))
    made.route(REQUEST, "prefill", 2.0)
    assert policy.shown == [[(0, 0)]]
    with pytest.raises(PolicyError, match=r"one of the instances \[0\]"):
        policy.answer = Dispatch(1)
        made.route(REQUEST, "prefill", 2.0)


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        (Dispatch(True), r"one of the instances \[0\]"),
        (Dispatch(0, 1), r"one of the decode and colocated instances \[0, 2\] or none"),
        (Dispatch(0, reason=3), "a text as reason, or none"),  # type: ignore[arg-type]
        (Reject(3), "a text as reason"),  # type: ignore[arg-type]
        ("here", "a Dispatch, a Reject or None"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(policy: Any, answer: Any, allowed: str) -> None:
    policy.answer = answer
    with pytest.raises(PolicyError, match=f"'noting' decided .* for request 0; allowed: {allowed}"):
        router(policy, view(0), view(2, "decode")).route(REQUEST, "prefill", 0.0)


def test_who_joins_is_shown_and_who_leaves_is_not_while_the_others_stay_as_they_were_known(policy: Any) -> None:
    made = router(policy, view(0, waiting=1), view(2, waiting=3), delay_s=0.5)
    made.join(view(1, observed_at_s=1.0))
    made.join(view(3, "decode"))
    made.leave(2)
    made.route(REQUEST, "prefill", 1.0)
    made.route(REQUEST, "decode", 1.0)
    assert policy.shown == [[(0, 1), (1, 0)], [(3, 0)]]
    assert (made.serves("prefill"), made.serves("decode")) == (True, True)
    made.leave(3)
    assert not made.serves("decode")


def test_what_an_instance_reported_before_it_left_is_not_learnt_when_it_is_back(policy: Any) -> None:
    made = router(policy, view(0), delay_s=0.5)
    made.report(view(0, observed_at_s=1.0, waiting=7))
    made.leave(0)
    made.join(view(0, observed_at_s=1.2))
    made.route(REQUEST, "prefill", 2.0)
    assert policy.shown == [[(0, 0)]]
