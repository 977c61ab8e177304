"""Insight into runs whose fleet changes: instances fail, come, and serve as something else than at the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.insight.again import Again
from experiments.insight.counterfactual import forcing, questions
from experiments.insight.lanes import waits
from experiments.insight.saved_run import SavedRun, open_run
from experiments.insight.seen import seen_again
from experiments.insight.tracing.export import export

Simulated = Callable[..., Path]
MODEL: dict[str, Any] = {"model": "llama-2-7b", "kv_blocks": 400}
GROWING = {
    "workload": {"trace": "bundled:shared-prefix", "max_requests": 30, "rate_rps": 100.0},
    "fleet": MODEL | {"max_sequences": 2},
    "policies": {"scaling": "target_tracking:target=2,interval_s=0.1"},
}
TURNING = {"fleet": MODEL | {"events": [{"kind": "role", "at_s": 0.001, "instance": 3, "role": "prefill"}]}}


@pytest.fixture
def grown(simulated: Simulated) -> SavedRun:
    """Three instances at the start, more at the end."""
    return open_run(simulated("colocated", **GROWING))


@pytest.fixture
def turned(simulated: Simulated) -> SavedRun:
    """Instance 3 decodes by its configuration, and prefills all but from the start."""
    return open_run(simulated("disaggregated", **TURNING))


def test_a_hand_over_that_a_failure_prevents_was_a_decision_too(simulated: Simulated, tmp_path: Path) -> None:
    failing = MODEL | {"events": [{"kind": "fail", "at_s": 0.5, "instance": 2}]}
    saved = open_run(simulated("disaggregated", fleet=failing, link={"latency_s": 0.3}))
    again = Again(saved, tmp_path)
    redirected = 0
    for request in range(6, 14):
        heard = seen_again(saved, again, request).asked
        (_, said), (_, logged) = questions(saved.log, request, None, heard), questions(saved.log, request, None)
        if said.chosen == logged.chosen:
            continue
        redirected += 1
        assert (said.chosen, logged.chosen) == (2, 3)
        again.run(forcing(said, 2))
        assert again.events.read_bytes() == saved.events.read_bytes()
    assert redirected


def test_an_instance_that_came_later_could_have_been_asked(grown: SavedRun) -> None:
    assert questions(grown.log, 29, [3])[0].candidates[:4] == (0, 1, 2, 3)


def test_what_the_pool_of_an_instance_that_came_later_held_is_known(grown: SavedRun) -> None:
    told = [wait for request in range(30) for wait in waits(grown, grown.phases.of(request), request)]
    later = [wait for wait in told if (wait["instance"] or 0) > 2 and wait["iterations"]]
    assert later
    assert all(0 <= wait["kv_use_most"] <= 1 for wait in later)


def test_an_instance_that_has_become_another_is_asked_and_named_as_that(turned: SavedRun, tmp_path: Path) -> None:
    assert [question.candidates for question in questions(turned.log, 11, None)] == [(0, 1, 3), (2, 3)]
    export(turned.folder, tmp_path / "t.json")
    assert "instance 3 decode, prefill" in (tmp_path / "t.json").read_text()


def test_what_an_instance_prefills_that_decoded_before_waits_to_be_handed_over(turned: SavedRun) -> None:
    phases = [phase for request in range(30) for phase in turned.phases.of(request)]
    sent = {phase.name for phase in phases if phase.instance == 3}
    assert {"prefill", "handover_wait", "transfer"} <= sent
    assert "decode" not in sent
