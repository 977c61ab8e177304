"""A profile measures every shape in every round on every worker, forgets nothing, and finds the cost model."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.profiling.measure import Pool, measure
from experiments.profiling.notes import Notes
from experiments.profiling.overheads import Overheads
from experiments.profiling.result import overheads_in, profile_json, with_live_runs, write_profile
from experiments.profiling.shapes import Limits, Shape, shapes
from reference_impl.latency.api import Work
from reference_impl.latency.measured import Measured
from reference_impl.latency.profile import profile

LIMITS = Limits(max_batch_tokens=256, max_sequences=16, max_context_tokens=700, pool_tokens=4000)
POOL = Pool(kv_blocks=250, block_tokens=16)
DEVICE = {"model": "tiny", "dtype": "float32", "device": "cpu", "cpu_share": 0.2, "workers": 2}


def test_shapes_stay_within_the_limits_and_cover_all_kinds() -> None:
    found = shapes(LIMITS)
    assert len(found) == len(set(found))
    for chunks, contexts in found:
        assert len(contexts) + sum(new for new, _ in chunks) <= LIMITS.max_batch_tokens
        assert len(contexts) + len(chunks) <= LIMITS.max_sequences
        assert max([*contexts, *(new + before for new, before in chunks)]) <= LIMITS.max_context_tokens
        assert sum([*contexts, *(new + before for new, before in chunks)]) <= LIMITS.pool_tokens
    kinds = {(bool(shape.chunks), bool(shape.contexts)) for shape in found}
    assert kinds == {(True, False), (False, True), (True, True)}
    assert any(len(shape.chunks) > 1 for shape in found)
    assert any(len(set(shape.contexts)) > 1 for shape in found)
    assert 20 < len(shapes(LIMITS, quick=True)) < len(found) / 2.5


def test_every_shape_runs_in_every_round_on_every_worker_in_orders_of_their_own(stub: Any) -> None:
    wanted = shapes(LIMITS, quick=True)
    timings = list(measure([stub(), stub()], POOL, wanted, rounds=3))
    keys = list(dict.fromkeys((timing.round, timing.worker, timing.shape) for timing in timings))
    assert sorted(keys) == list(itertools.product(range(3), range(2), range(len(wanted))))
    orders = {
        (round_, worker): tuple(key[2] for key in keys if key[:2] == (round_, worker))
        for round_, worker in itertools.product(range(3), range(2))
    }
    assert len(set(orders.values())) == 6


def test_what_a_worker_is_given_is_about_the_shape_and_noted_exactly(stub: Any, truth: Measured) -> None:
    shape = Shape(((20, 40), (5, 0)), (100, 33))
    worker = stub()
    timings = list(measure([worker], POOL, [shape], rounds=9))
    contents = [timing.content([shape]) for timing in timings]
    for timing, content, batch in zip(timings, contents, worker.batches[5:], strict=True):
        assert timing.seconds == pytest.approx(truth.iteration_s(content.work), rel=1e-9)
        assert tuple((len(chunk.tokens), chunk.start) for chunk in batch.chunks) == content.chunks
        assert tuple(decode.position + 1 for decode in batch.decodes) == content.contexts
        rows = [(chunk.blocks, len(chunk.tokens) + chunk.start) for chunk in batch.chunks]
        rows += [(decode.blocks, decode.position + 1) for decode in batch.decodes]
        assert all(len(blocks) == -(-tokens // 16) for blocks, tokens in rows)
        blocks = [block for table, _ in rows for block in table]
        assert len(set(blocks)) == len(blocks), "sequences share no block as long as there are enough"
        assert set(blocks) <= set(range(250))
    assert len({content.contexts for content in contents}) > 4
    assert all(92 < max(content.contexts) <= 100 for content in contents)


def test_prompts_are_rarely_of_the_same_size_twice(stub: Any) -> None:
    worker = stub()
    timings = list(measure([worker], POOL, [Shape(((240, 0),), ())], rounds=10))
    sizes = [len(batch.chunks[0].tokens) for batch in worker.batches[5:]]
    assert len(set(sizes)) > 7
    assert all(225 < size <= 240 for size in sizes)
    assert len(timings) == 10


def test_of_a_run_of_decodes_the_first_does_not_count(stub: Any) -> None:
    worker = stub()
    timings = list(measure([worker], POOL, [Shape((), (100,))], rounds=2))
    assert [(timing.round, timing.step) for timing in timings] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert len(worker.batches) == 5 * 4 + 2 * 4


def test_iterations_of_the_warm_up_do_not_count(stub: Any) -> None:
    worker = stub(slower=lambda now_s: 100.0 if now_s < 0.1 else 1.0)
    wanted = shapes(LIMITS, quick=True)
    timings = list(measure([worker], POOL, wanted, rounds=1))
    assert {timing.shape for timing in timings} == set(range(len(wanted)))
    assert max(timing.seconds for timing in timings) < 1.0


def test_a_profile_goes_on_where_it_was_interrupted(stub: Any, tmp_path: Path) -> None:
    wanted, path = shapes(LIMITS, quick=True), tmp_path / "notes.jsonl"
    first = Notes(path, {"rounds": 2}, wanted)
    first.keep(itertools.islice(measure([stub()], POOL, wanted, 2), 25))
    before = len({timing[:3] for timing in first.timings})
    with path.open("a") as file:
        file.write("[0, 0, 1")  # the disk was full, or the power went
    second = Notes(path, {"rounds": 2}, wanted)
    assert second.timings == first.timings
    told: list[tuple[int, int]] = []
    second.keep(measure([stub()], POOL, wanted, 2, second.timings, lambda *done: told.append(done)))
    keys = {(timing.round, timing.shape) for timing in second.timings}
    assert sorted(keys) == list(itertools.product(range(2), range(len(wanted))))
    assert told[0] == (before + 1, 2 * len(wanted))
    assert told[-1] == (2 * len(wanted), 2 * len(wanted))
    assert Notes(path, {"rounds": 2}, wanted).timings == second.timings
    assert Notes(path, {"rounds": 3}, wanted).timings == [], "another question has no answers yet"
    second.remove()
    assert not path.exists()


@pytest.mark.parametrize("speed", ["steady", "ever slower"])
def test_the_file_holds_the_cost_model_of_the_workers(stub: Any, truth: Measured, tmp_path: Path, speed: str) -> None:
    wanted = shapes(LIMITS)
    slower = {"steady": lambda _now_s: 1.0, "ever slower": lambda now_s: 1.0 + 0.006 * now_s}[speed]
    workers = [stub(noise=0.02, slower=slower), stub(noise=0.02, slower=slower)]
    timings = list(measure(workers, POOL, wanted, rounds=4))
    overheads = Overheads(0.002, 1e-5, 0.004, None, None, 100)
    bare = profile_json(DEVICE, wanted, timings)
    assert bare["provenance"].endswith("no live run seen")
    content = with_live_runs(bare, [], overheads)
    assert (overheads_in(bare), overheads_in(content)) == (None, overheads)
    path = tmp_path / "profile.json"
    write_profile(path, content)
    assert json.loads(path.read_text())["timings"][0] == [0, 0, 0, 0, content["timings"][0].seconds]
    cost = profile(path)
    assert isinstance(cost, Measured)
    mean = sum(content["drift"]) / 4
    for work in (Work(((100, 50),), 0, 0), Work((), 7, 900), Work(((33, 0),), 5, 600)):
        expected = truth.iteration_s(work) * mean + 0.002 + 1e-5 * (work.decodes + len(work.chunks))
        assert cost.iteration_s(work) == pytest.approx(expected, rel=0.2 if speed != "steady" else 0.04)
    assert all(error["median"] < 0.04 for error in content["errors"].values())
    assert "0.2 of a core for each of 2 workers, 4 rounds; median relative error" in cost.provenance
    assert cost.provenance.endswith("brought to the level of 0 live iterations")
    if speed == "ever slower":
        assert content["drift"] == sorted(content["drift"])
        assert content["drift"][-1] > 1.05
    assert content["shapes"] == wanted
    assert len(content["timings"]) == 8 * sum(3 if not shape.chunks else 1 for shape in wanted)
    assert content["environment"]["cores"] >= 1
