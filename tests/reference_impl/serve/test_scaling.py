from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from policies.api import FleetView, PolicyKind, ScalePlan
from policies.testing import FakeEstimate
from reference_impl.core.tally import NONE, Counts
from reference_impl.serve.autoscaling import ReplicasWanted, write_targets
from reference_impl.serve.messages import Beat
from reference_impl.serve.registry import Entry
from reference_impl.serve.scaling import Interval, Scaler, Traffic


@dataclass
class Says:
    answer: Any
    interval_s: float | None = 2.0
    seen: list[FleetView] = field(default_factory=list)
    kind: ClassVar[PolicyKind] = "scaling"
    name: ClassVar[str] = "says"
    rng: random.Random = field(init=False, repr=False)

    def scale(self, fleet: FleetView) -> Any:
        self.seen.append(fleet)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


NOTHING = Interval(0.0, NONE, 0)


def scaler(answer: Any, interval_s: float | None = 2.0, most: int | None = None) -> Scaler:
    return Scaler(Says(answer, interval_s), {"prefill": 1, "decode": 2}, FakeEstimate(), most)


def front_door(arrived: int, finished: int, met: int, generation: int = 1) -> Entry:
    beat = Beat("ready", counts=Counts(arrived, finished, met, met, met, 100 * finished, 10 * finished), in_flight=3)
    return Entry("front_door", 0, generation, "", 1, None, 0.0, beat)


def test_a_plan_changes_the_roles_that_it_names() -> None:
    found = scaler(ScalePlan({"decode": 3}))
    assert found.ask((), NOTHING, 0.0)
    assert found.targets == {"prefill": 1, "decode": 3}
    assert not found.ask((), NOTHING, 2.0)


@pytest.mark.parametrize(
    "answer",
    [
        ScalePlan({"decode": 0}),
        ScalePlan({"decode": 1000}),
        ScalePlan({"decode": 1.5}),  # type: ignore[dict-item]
        ScalePlan({"colocated": 1}),
        None,
        KeyError("oops"),
    ],
)
def test_a_plan_that_cannot_be_meant_changes_nothing(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = scaler(answer)
    assert not found.ask((), NOTHING, 0.0)
    assert found.targets == {"prefill": 1, "decode": 2}
    assert "scaling policy 'says'" in caplog.text or "policy 'says' raised KeyError" in caplog.text


def test_the_policy_is_asked_at_its_pace() -> None:
    found = scaler(ScalePlan({}))
    assert found.due(0.0)
    found.ask((), NOTHING, 0.0)
    assert [found.due(now_s) for now_s in (1.0, 2.0)] == [False, True]
    once = scaler(ScalePlan({}), interval_s=None)
    once.ask((), NOTHING, 0.0)
    assert not once.due(1e9)


@pytest.mark.parametrize("interval_s", ["2 s", [1]])
def test_a_pace_that_is_no_number_is_told_once_and_asks_no_more(
    interval_s: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = scaler(ScalePlan({}), interval_s)
    assert found.due(0.0)
    found.ask((), NOTHING, 0.0)
    assert [found.due(now_s) for now_s in (1.0, 2.0)] == [False, False]
    assert caplog.text.count("policy 'says' raised TypeError") == 1
    assert "its interval_s was looked at" in caplog.text


def test_rate_and_attainment_count_from_the_look_before() -> None:
    traffic = Traffic()

    def look(front_door: Entry, now_s: float) -> tuple[float, float | None]:
        traffic.note([front_door])
        seen = traffic.since_last(now_s)
        return seen.rate_rps, seen.last.attainment

    assert look(front_door(10, 4, 3), 5.0) == (2.0, 0.75)
    assert look(front_door(16, 4, 3), 7.0) == (3.0, None)
    again = look(front_door(2, 2, 2, generation=2), 8.0)
    assert again == (2.0, 1.0), "one that was replaced begins at 0, what was counted stays"


def test_the_policy_is_shown_what_the_front_doors_count() -> None:
    traffic, policy = Traffic(), Says(ScalePlan({"decode": 9}))
    traffic.note([front_door(10, 4, 3)])
    manager = Scaler(policy, {"decode": 2}, FakeEstimate(), most=5)
    assert manager.ask((), traffic.since_last(5.0), 5.0)
    assert manager.targets == {"decode": 5}, "no more than the bound"
    manager.ask((), traffic.since_last(7.0), 7.0)
    first, second = policy.seen
    assert (first.served.requests, first.served.prompt_tokens, first.served.output_tokens) == (4, 100.0, 10.0)
    assert (first.attainment, first.served.attainment_ttft, first.outstanding_requests) == (0.75, 0.75, 3)
    assert (first.target("decode"), second.target("decode"), second.missing("decode")) == (2, 5, 5)
    assert second.served.requests == 0
    assert second.served.ttft_s is None


def test_serve_does_what_was_written_down(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    wanted = ReplicasWanted(str(path), "decode")
    now = SimpleNamespace(target_num_replicas=2)
    assert wanted(now) == (2, {})
    write_targets(path, {"decode": 5})
    assert wanted(now) == (5, {})
    path.write_text("{", encoding="utf-8")
    assert wanted(now) == (2, {})
    write_targets(path, {"prefill": 1})
    assert wanted(now) == (2, {})
    assert json.loads(path.read_text()) == {"prefill": 1}


def test_a_decision_that_cannot_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_targets(tmp_path / "nowhere" / "targets.json", {"decode": 5})
    assert "the scaling decision {'decode': 5} cannot be written" in caplog.text
