"""One decision forced: where it is the policy's own, nothing changes; if not, others decide as things are then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.insight import counterfactual
from experiments.insight.again import Again
from experiments.insight.counterfactual import Question, forcing, questions, try_all
from experiments.insight.saved_run import open_run
from experiments.insight.seen import seen_again
from policies.api import Dispatch

Simulated = Callable[..., Path]
POLICIES = ["random", "round_robin", "least_loaded:metric=kv", "prefix_affinity", "kv_cost", "mooncake", "preble_e2"]


@pytest.mark.parametrize("dispatch", POLICIES)
def test_the_chosen_instance_gives_the_very_same_log(simulated: Simulated, tmp_path: Path, dispatch: str) -> None:
    folder = simulated("colocated", policies={"dispatch": dispatch})
    saved = open_run(folder)
    (question,) = questions(saved.log, 11, None)
    assert question.chosen is not None
    again = Again(saved, tmp_path)
    again.run(forcing(question, question.chosen))
    assert again.events.read_bytes() == saved.events.read_bytes()
    other = next(instance for instance in question.candidates if instance != question.chosen)
    assert again.run(forcing(question, other)).rows["dispatch"].ints("instance")[11] == other
    assert again.events.read_bytes() != saved.events.read_bytes()


def test_each_job_executor_is_heard_and_can_be_forced(simulated: Simulated, tmp_path: Path) -> None:
    saved = open_run(simulated("colocated", policies={"dispatch": "random"}, host={"job_executors": 3}))
    again = Again(saved, tmp_path)
    for request in (10, 11, 12):
        (question,) = questions(saved.log, request, None)
        assert question.chosen is not None
        again.run(forcing(question, question.chosen))
        assert again.events.read_bytes() == saved.events.read_bytes()
        seen = seen_again(saved, again, request)
        assert [asked.phase for asked in seen.asked] == ["prefill"]
        assert not seen.notes


@pytest.mark.parametrize("dispatch", ["least_loaded:metric=tokens", "random"])
def test_both_decisions_of_a_hand_over_can_be_forced(simulated: Simulated, tmp_path: Path, dispatch: str) -> None:
    saved = open_run(simulated("disaggregated", policies={"dispatch": dispatch}))
    again = Again(saved, tmp_path)
    asked = questions(saved.log, 11, None)
    assert [(question.phase, question.candidates) for question in asked] == [("prefill", (0, 1)), ("decode", (2, 3))]
    for question in asked:
        assert question.chosen is not None
        again.run(forcing(question, question.chosen))
        assert again.events.read_bytes() == saved.events.read_bytes()
    table = try_all(again, saved.log, asked).outcomes
    assert [(outcome.phase, outcome.instance) for outcome in table] == [
        *(("prefill", 0), ("prefill", 1), ("decode", 2), ("decode", 3)),
    ]
    assert [outcome.instance for outcome in table if outcome.chosen] == [question.chosen for question in asked]


def test_the_chosen_row_is_the_run_as_it_was_and_changes_nothing(simulated: Simulated, tmp_path: Path) -> None:
    saved = open_run(simulated("colocated"))
    outcomes = try_all(Again(saved, tmp_path), saved.log, questions(saved.log, 4, None)).outcomes
    (chosen,) = [outcome for outcome in outcomes if outcome.chosen]
    at = saved.position(4)
    assert (chosen.ttft_s, chosen.e2e_s) == (saved.table.ttft_s[at], saved.table.e2e_s[at])
    assert (chosen.others_ttft_mean_s, chosen.others_ttft_p99_s, chosen.others_slo_met) == (0.0, 0.0, 0)
    assert any(outcome.others_ttft_mean_s for outcome in outcomes if not outcome.chosen)


def test_to_the_first_request_equal_instances_are_equal(simulated: Simulated, tmp_path: Path) -> None:
    saved = open_run(simulated("colocated", policies={"dispatch": "round_robin"}))
    outcomes = try_all(Again(saved, tmp_path), saved.log, questions(saved.log, 0, None)).outcomes
    assert [outcome.instance for outcome in outcomes] == [0, 1, 2]
    assert len({outcome.ttft_s for outcome in outcomes}) == 1


def test_an_instance_that_cannot_be_chosen_has_no_figures(simulated: Simulated, tmp_path: Path) -> None:
    saved = open_run(simulated("colocated"))
    (outcome,) = try_all(Again(saved, tmp_path), saved.log, [Question(3, "prefill", None, (99,))]).outcomes
    assert (outcome.instance, outcome.outcome, outcome.ttft_s) == (99, "impossible", None)


def test_a_refused_request_can_be_let_in(simulated: Simulated, tmp_path: Path) -> None:
    strict = {"dispatch": "mooncake:ttft_target_s=0.05"}
    saved = open_run(simulated("colocated", policies=strict))
    refused = [int(request) for request in saved.log.rows["reject"].ints("request")]
    asked = questions(saved.log, refused[0], None)
    assert asked[0].chosen is None
    outcomes = try_all(Again(saved, tmp_path), saved.log, asked).outcomes
    assert [outcome.instance for outcome in outcomes] == [0, 1, 2]
    assert {outcome.outcome for outcome in outcomes} == {"finished"}


def test_how_many_are_tried_is_bounded(simulated: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = open_run(simulated("colocated"))
    asked = questions(saved.log, 4, None)
    monkeypatch.setattr(counterfactual, "MAX_INSTANCES", 2)
    tried = try_all(Again(saved, tmp_path), saved.log, asked)
    assert len(tried.outcomes) == 2
    assert len(tried.left_out) == 1
    wanted = tried.left_out
    assert {o.instance for o in try_all(Again(saved, tmp_path), saved.log, asked, wanted).outcomes} >= set(wanted)


def test_a_decode_instance_that_was_chosen_with_the_first_is_forced_too(simulated: Simulated) -> None:
    class Both:
        kind, name = "dispatch", "both"

        def dispatch(self, request: object, cluster: object) -> Dispatch:
            return Dispatch(0, 2, "both at once")

    class Asked:
        request_id = 11
        phase = "prefill"

    from experiments.insight.forced import Force

    force = Force(11, "decode", 3)
    assert force(Both(), Asked(), Asked()) == Dispatch(0, 3, "both at once")  # type: ignore[arg-type]
    assert force(Both(), Asked(), Asked()) == Dispatch(0, 2, "both at once")  # type: ignore[arg-type]
    assert Question(11, "decode", 2, (2, 3)).chosen == 2
