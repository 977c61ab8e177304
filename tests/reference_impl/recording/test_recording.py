"""A recorded policy decides as it would alone, and a fresh one decides the same from what was written down."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from policies.api import ClusterView, Dispatch, Observer, PolicyEvent, PolicyKind, RequestView
from policies.contracts.fakes import FakeCluster, fake_instance, fake_request
from policies.registry import PolicySpec
from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.recording import Recorder, replay
from reference_impl.recording.replay import RecordingError
from reference_impl.simulator import simulate
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
FLEETS = {
    "colocated": ("colocated",) * 3,
    "disaggregated": ("prefill", "decode", "decode"),
    "semi_pd": ("semi_pd", "semi_pd"),
}


@dataclass
class Counting:
    """Sends a request to the instance that it has heard the fewest first tokens of; keeps an estimate's word."""

    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "counting"
    rng: random.Random = field(default_factory=random.Random, init=False)
    heard: dict[int, int] = field(default_factory=dict, init=False)

    def observe(self, event: PolicyEvent) -> None:
        if event.kind == "first_token" and event.instance_id is not None:
            self.heard[event.instance_id] = self.heard.get(event.instance_id, 0) + 1

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        def cost(instance_id: int) -> tuple[float, int]:
            heard = self.heard.get(instance_id, 0)
            return heard * cluster.estimate.prefill_s(request.prompt_tokens, heard), instance_id

        chosen = min((view.instance_id for view in cluster.instances), key=cost)
        return Dispatch(chosen, reason=f"{cluster.estimate.decode_s(2, 50):.6f}")


@pytest.fixture
def busy() -> Trace:
    """Requests that overload three instances for a while, half of them with a prompt in common."""
    rng = np.random.default_rng(3)
    prompts = rng.integers(40, 300, 120).astype(np.int32)
    ids = [
        tuple(range(2)) if row % 2 else tuple(range(1000 + 20 * row, 1000 + 20 * row + prompts[row] // 16))
        for row in range(120)
    ]
    return Trace(
        "busy",
        np.cumsum(rng.exponential(0.02, 120)),
        prompts,
        rng.integers(1, 60, 120).astype(np.int32),
        prefix_ids=tuple(ids),
        prefix_block_tokens=16,
    )


def recorded(cluster: ClusterSpec, dispatch: str, path: Path) -> tuple[ClusterSpec, Recorder]:
    """All policies of the cluster recorded; ``dispatch`` is the text of its dispatch policy, built with seed 0."""
    recorder = Recorder(path)
    instances = tuple(replace(spec, batch=recorder.batch(spec.batch)) for spec in cluster.instances)
    watched = recorder.dispatch(cluster.dispatch, dispatch, 0)
    return replace(cluster, dispatch=watched, instances=instances), recorder


@pytest.mark.parametrize("fleet", FLEETS)
@pytest.mark.parametrize(
    ("dispatch", "batch"),
    [
        ("random", "chunked_prefill:chunk_tokens=64"),
        ("power_of_two", "unified_budget"),
        ("prefix_affinity", "prefill_first"),
        ("round_robin", "decode_first:refill_below=3"),
    ],
)
def test_recording_changes_nothing_and_a_fresh_policy_decides_the_same(
    deploy: Deploy, busy: Trace, tmp_path: Path, fleet: str, dispatch: str, batch: str
) -> None:
    def cluster() -> ClusterSpec:
        return deploy(*FLEETS[fleet], dispatch=dispatch, batch=batch, kv_blocks=60)

    plain, noted = EventLog(None), EventLog(None)
    simulate(cluster(), busy, plain)
    watched, recorder = recorded(cluster(), dispatch, tmp_path / "decisions.jsonl")
    simulate(watched, busy, noted)
    recorder.close()
    assert noted.table().equals(plain.table())
    found = replay(tmp_path / "decisions.jsonl")
    assert [each.difference for each in found] == [None] * len(found)
    lanes = sum(2 if role == "semi_pd" else 1 for role in FLEETS[fleet])
    assert [each.kind for each in found].count("batch") == lanes
    (routed,) = (each.decisions for each in found if each.kind == "dispatch")
    assert routed >= len(busy)
    assert sum(each.decisions for each in found if each.kind == "batch") > len(busy)


def test_an_observer_stays_one_and_hears_the_same_again(
    deploy: Deploy, busy: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "decisions.jsonl"
    cluster = deploy(*FLEETS["colocated"])
    monkeypatch.setattr(PolicySpec, "build", lambda _spec, _seed: Counting())
    monkeypatch.setattr(PolicySpec, "parse", classmethod(lambda cls, text, kind: cls(kind, text)))
    recorder = Recorder(path)
    policy = recorder.dispatch(Counting(), "counting", 0)
    assert isinstance(policy, Observer)
    simulate(replace(cluster, dispatch=policy), busy, EventLog(None))
    recorder.close()
    (again,) = replay(path)
    assert (again.decisions, again.difference) == (len(busy), None)
    assert sum(again.policy.heard.values()) > 100
    without_events = [line for line in path.read_text().splitlines() if '"observe"' not in line]
    path.write_text("\n".join(without_events) + "\n")
    (deaf,) = replay(path)
    assert deaf.difference is not None, "the events matter to this policy, so leaving them out must show"


def test_a_policy_without_observe_gets_none(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "decisions.jsonl")
    policy = recorder.dispatch(PolicySpec.parse("random", "dispatch").build(0), "random", 0)
    recorder.close()
    assert not isinstance(policy, Observer)


def test_views_are_written_when_they_change_and_ids_when_the_fleet_does(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "decisions.jsonl")
    policy = recorder.dispatch(PolicySpec.parse("least_loaded", "dispatch").build(0), "least_loaded", 0)
    first, second = fake_instance(0), fake_instance(1)
    for views in ((first, second), (first, second), (fake_instance(0, waiting_tokens=9), second), (second,)):
        policy.dispatch(fake_request(), FakeCluster(views))
    recorder.close()
    lines = (tmp_path / "decisions.jsonl").read_text().splitlines()
    assert sum('"see"' in line for line in lines) == 3
    assert [",[0,1],[]," in line or ",[1],[]," in line for line in lines if '"dispatch",[' in line] == [
        *(True, False, False, True)
    ]
    (found,) = replay(tmp_path / "decisions.jsonl")
    assert (found.decisions, found.difference) == (4, None)


CHEATS = {
    "clock": "cluster.instances[time.perf_counter_ns() // 1000 % 3]",
    "luck": "random.choice(cluster.instances)",
    "process": "cluster.instances[id(cluster) // 64 % 3]",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_policy_that_cheats_is_caught_with_both_decisions(
    deploy: Deploy, busy: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheat: str
) -> None:
    name = f"cheat_{cheat}"
    (tmp_path / f"{name}.py").write_text(
        "import random, time\nfrom dataclasses import dataclass, field\nfrom policies.api import Dispatch\n\n"
        "@dataclass\nclass Cheat:\n    kind = 'dispatch'\n    name = 'cheat'\n"
        "    rng: random.Random = field(default_factory=random.Random, init=False)\n\n"
        f"    def dispatch(self, request, cluster):\n        return Dispatch(({CHEATS[cheat]}).instance_id)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = f"{name}:Cheat"
    recorder = Recorder(tmp_path / "decisions.jsonl")
    policy = recorder.dispatch(PolicySpec.parse(spec, "dispatch").build(0), spec, 0)
    simulate(replace(deploy(*FLEETS["colocated"]), dispatch=policy), busy, EventLog(None))
    recorder.close()
    (found,) = replay(tmp_path / "decisions.jsonl")
    assert found.difference is not None
    assert found.decisions < len(busy)
    line, asked, recorded_, decided = found.difference
    assert recorded_ != decided
    assert asked.startswith("request ")
    said = (tmp_path / "decisions.jsonl").read_text().splitlines()[line - 1]
    assert f'["dispatch",{recorded_[1]},null,null]]' in said  # type: ignore[index]


def test_a_batch_policy_that_asks_for_something_else_is_caught(tmp_path: Path, deploy: Deploy, busy: Trace) -> None:
    path = tmp_path / "decisions.jsonl"
    watched, recorder = recorded(deploy("colocated", batch="chunked_prefill:chunk_tokens=64"), "least_loaded", path)
    simulate(watched, busy, EventLog(None))
    recorder.close()
    path.write_text(path.read_text().replace("chunk_tokens=64", "chunk_tokens=63"))
    batch = next(each for each in replay(path) if each.kind == "batch")
    assert batch.difference is not None
    assert batch.difference.decided != batch.difference.recorded


def test_a_policy_that_raises_only_in_the_replay_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    recorder = Recorder(path)
    policy = recorder.dispatch(PolicySpec.parse("round_robin", "dispatch").build(0), "round_robin", 0)
    policy.dispatch(fake_request(), FakeCluster((fake_instance(0),)))
    recorder.close()
    path.write_text(path.read_text().replace("[0],[],", "[],[],"))
    (found,) = replay(path)
    assert found.difference is not None
    assert str(found.difference.decided).startswith("ZeroDivisionError")


def some_decisions(path: Path, count: int = 3) -> None:
    recorder = Recorder(path)
    policy = recorder.dispatch(PolicySpec.parse("random", "dispatch").build(7), "random", 7)
    for number in range(count):
        policy.dispatch(fake_request(number), FakeCluster((fake_instance(0), fake_instance(1))))
    recorder.close()


def test_a_line_cut_short_at_the_end_is_left_out_and_one_in_the_middle_is_not(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    some_decisions(path)
    whole = path.read_text()
    path.write_text(whole[:-20])
    (found,) = replay(path)
    assert (found.decisions, found.difference) == (2, None)
    path.write_text(whole.replace('"dispatch",[0', '"dispatch",{0'))
    with pytest.raises(RecordingError, match=r"line \d+: not JSON; record anew"):
        replay(path)


def test_a_process_that_starts_again_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    some_decisions(path)
    path.write_text(path.read_text()[:-20])  # killed in the middle of a line
    some_decisions(path, 5)
    assert [(each.decisions, each.difference) for each in replay(path)] == [(2, None), (5, None)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('[0,"policy",{"kind":"dispatch","spec":"random","seed":0,"version":99}]', "version 99; allowed: 1"),
        ('[0,"see",[1]]', "not a line of a recording"),
        ('[0,"policy",{"kind":"dispatch","spec":"random","seed":0,"version":1}]\n[0,"guess"]', "line 2"),
        ("{}", "not a line of a recording"),
        ('[0,"policy"]', "not a line of a recording"),
        ('[0,"policy",{"kind":"dispatch","spec":7,"seed":0,"version":1}]', "spec 7, seed 0"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "decisions.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(RecordingError, match=said):
        replay(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_recording_and_not_the_run() -> None:
    recorder = Recorder(Path("/dev/full"))
    policy = recorder.dispatch(PolicySpec.parse("random", "dispatch").build(0), "random", 0)
    cluster = FakeCluster((fake_instance(0),))
    decided: list[Any] = [policy.dispatch(fake_request(number), cluster) for number in range(2000)]
    recorder.flush()
    recorder.close()
    assert decided == [Dispatch(0)] * 2000
    assert recorder.error is not None
    assert recorder.complaint == "decisions are recorded no further: No space left on device"


def test_a_file_that_cannot_be_opened_ends_the_recording_and_not_the_run(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "nowhere" / "decisions.jsonl")
    policy = recorder.dispatch(PolicySpec.parse("random", "dispatch").build(0), "random", 0)
    assert policy.dispatch(fake_request(0), FakeCluster((fake_instance(0),))) == Dispatch(0)
    recorder.flush()
    recorder.close()
    assert recorder.complaint == "decisions are recorded no further: No such file or directory"
