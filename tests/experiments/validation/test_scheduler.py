"""unified_budget on a KV pool that fills, against vLLM's rules by hand and against its recorded scheduler."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.config_base import ConfigError
from experiments.validation.scheduler import Lockstep, Step, in_vllm, read_steps, steps_of, task_of, write_steps
from experiments.validation.simulated import instance_of, simulated
from experiments.vllm_run import Record, read_requests, read_settings
from policies.registry import PolicySpec
from reference_impl.core.spec import InstanceSpec
from reference_impl.latency import ContentionModel
from reference_impl.latency.linear import DecodeFit, Linear

RECORDED = Path(__file__).resolve().parents[3] / "results/validation/vllm_0.19_scheduler_3000_blocks.csv"


def instance(kv_blocks: int, *, prefix_caching: bool = False, max_batch_tokens: int = 2048) -> InstanceSpec:
    return InstanceSpec(
        role="colocated",
        latency=Linear(0.01, 0.0, 0.0, (DecodeFit(0.01),)),
        contention=ContentionModel(),
        kv_blocks=kv_blocks,
        kv_bytes_per_token=1.0,
        max_context_tokens=4096,
        batch=PolicySpec.parse("unified_budget", kind="batch"),
        max_sequences=8,
        max_batch_tokens=max_batch_tokens,
        prefix_caching=prefix_caching,
    )


def requests(*rows: tuple[float, int, int]) -> Record:
    queued_s, prompt_tokens, output_tokens = (np.array(column) for column in zip(*rows, strict=True))
    lengths = (prompt_tokens.astype(np.int32), output_tokens.astype(np.int32))
    return Record(queued_s, queued_s * np.nan, queued_s, queued_s, *lengths)


LOSES_A_DECODE = instance(8), requests((0.0, 48, 40), (0.0, 48, 40))
LOSES_A_PREFILL = instance(10, max_batch_tokens=64), requests((0.0, 47, 10), (0.001, 100, 2), (0.002, 16, 2))


@pytest.mark.parametrize(("prefix_caching", "recomputed"), [(False, 65), (True, 33)])
def test_a_full_pool_preempts_the_last_and_resumes_it_when_all_of_it_fits(
    prefix_caching: bool, recomputed: int
) -> None:
    """Two prompts of 3 blocks, 40 tokens each, 8 blocks. vLLM v1, ``Scheduler.schedule``, by hand; its own class
    (0.19) gives the same steps."""
    spec, record = LOSES_A_DECODE
    run = simulated(replace(spec, prefix_caching=prefix_caching), record, fast=False)
    expected = [Step(2, 0, 6, 96, ())]  # both prompts
    expected += [Step(2, 0, 8, 2, ())] * 16  # contexts 49 to 64: 4 blocks each
    expected += [Step(1, 1, 5, 1, (1,))]  # both need a fifth block: the last admitted goes, and nobody is admitted
    expected += [Step(1, 1, 5, 1, ())] * 15  # it has 65 tokens to compute again, 5 blocks; 3 are free
    expected += [Step(1, 1, 6, 1, ())] * 7  # a sixth block; where prompts are cached it is the dropped one's third
    expected += [Step(1, 0, 5, recomputed, ())]  # alone again; its first two blocks are found in the cache
    expected += [Step(1, 0, 5, 1, ())] * 15 + [Step(1, 0, 6, 1, ())] * 7
    assert steps_of(run) == expected


def test_a_preempted_prefill_goes_before_those_who_waited_already() -> None:
    """10 blocks, 64 tokens an iteration: the second prompt (7 blocks) fits when it is admitted, not one chunk later."""
    expected = [Step(1, 0, 3, 47, ())]  # 3 blocks for the first prompt
    expected += [Step(2, 1, 7, 64, ())]  # 7 blocks are free; the budget is used up by a chunk of 63 tokens, 4 blocks
    expected += [Step(1, 2, 4, 1, (1,))]  # the first takes a fourth block: 2 are free, its next chunk needs 3
    expected += [Step(1, 2, 4, 1, ())] * 7  # 6 are free; the third request needs 1, but waits behind it
    expected += [Step(1, 1, 4, 64, ()), Step(2, 0, 8, 52, ()), Step(2, 0, 9, 2, ())]
    assert steps_of(simulated(*LOSES_A_PREFILL, fast=False)) == expected


def test_the_full_pool_is_that_of_vllms_own_scheduler() -> None:
    calibration = os.environ.get("SEMIFLOW_CALIBRATION")
    if not calibration:
        pytest.skip("SEMIFLOW_CALIBRATION does not name the folder of calibration data")
    root = Path(calibration) / "vllm_runs/rtxpro6000_llama-3.1-8b"
    recorded, record = read_steps(RECORDED), read_requests(root / "requests.jsonl")
    spec = replace(instance_of(root, read_settings(root / "meta.json")), kv_blocks=3000, prefix_caching=False)
    steps = steps_of(simulated(spec, record, fast=False))
    assert sum(len(step.preempted) for step in steps) == 185
    assert steps == recorded


@pytest.mark.parametrize(("spec", "record"), [LOSES_A_DECODE, LOSES_A_PREFILL])
def test_vllm_itself_takes_the_same_steps(spec: InstanceSpec, record: Record) -> None:
    """Needs an interpreter with vLLM, named by VLLM_PYTHON; its scheduler runs without a GPU."""
    python = os.environ.get("VLLM_PYTHON")
    if not python:
        pytest.skip("VLLM_PYTHON names no interpreter that has vLLM")
    run = simulated(spec, record, fast=False)
    _, steps = in_vllm(task_of(spec, record, run), python)
    assert steps == steps_of(run)


def test_requests_arrive_before_the_iteration_that_starts_next() -> None:
    spec, record = instance(100), requests((0.0, 16, 3), (0.005, 16, 1), (9.0, 16, 1))
    task = task_of(spec, record, simulated(spec, record, fast=False))
    assert task["requests"] == [[0, 16, 3], [1, 16, 1], [3, 16, 1]]


def test_differences_are_counted() -> None:
    same = Step(1, 0, 2, 5, ())
    both = Lockstep(10, True, False, "0", 5, [same, Step(1, 1, 2, 1, (3,))], [same, Step(2, 0, 4, 1, ()), same])
    facts = both.facts()
    assert (facts["steps_that_differ"], facts["first_that_differs"]) == (2, 1)
    assert facts["preemptions"] == {"ours": 1, "vllm": 0}
    assert facts["recomputed_tokens"] == {"ours": 1, "vllm": 6}
    assert facts["largest_difference"] == {"running": 1, "waiting": 1, "used_blocks": 2}
    assert facts["mean_absolute_difference_of_kv_use_pct"] == pytest.approx(10.0)


def test_steps_survive_their_file(tmp_path: Path) -> None:
    steps = [Step(1, 0, 2, 5, ()), Step(1, 2, 2, 1, (3, 14))]
    write_steps(steps, tmp_path / "steps.csv")
    assert read_steps(tmp_path / "steps.csv") == steps


@pytest.mark.parametrize("python", ["/nowhere/python", shutil.which("false") or "false"])
def test_an_interpreter_without_vllm_is_refused(python: str) -> None:
    with pytest.raises(ConfigError, match="an interpreter that has vLLM"):
        in_vllm(json.loads("{}"), python)
