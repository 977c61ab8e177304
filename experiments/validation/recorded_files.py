"""From the notes of ``record_in_vllm.py`` to the folder of a recorded run."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from experiments.manifest import environment
from experiments.profiling.result import machine, told, write_profile
from experiments.run_folder import write_json
from experiments.validation.recorded_steps import Step, course, fitted, spent, steps_of
from experiments.validation.simulated import PROFILE
from experiments.validation.speed import SPEED, slowness_over, write_speed

TICK_S = 1.0
_COLUMNS = ("t", "prompt_throughput", "running", "waiting", "kv_cache_pct", "preemptions")


class Phase(NamedTuple):
    """What was noted from one moment without requests to another."""

    requests: list[dict[str, Any]]
    steps: list[Step]
    times: tuple[str, str]
    """When it began and ended, as the calendar has it."""


def write_recording(
    folder: Path, facts: Mapping[str, Any], notes: Path, phases: tuple[Sequence[str], str]
) -> dict[str, Any]:
    """Write the files to ``folder``; returns ``meta.json``. ``phases``: those that measure, and the run.

    A measuring phase that is not there was interrupted. Raises ProfileError where what is there does not suffice.
    """
    from reference_impl.latency.measured import Coefficients, Measured

    kv_blocks = facts["kv_cache"]["num_gpu_blocks"] - 1
    paths = [path for name in (*phases[0], phases[1]) if (path := notes / f"{name}.json").is_file()]
    read = {path.stem: _phase(json.loads(path.read_text(encoding="utf-8")), kv_blocks) for path in paths}
    run, measuring = read[phases[1]], {name: phase for name, phase in read.items() if name in phases[0]}
    profile = _profile(facts, [phase.steps for phase in measuring.values()])
    write_profile(folder / PROFILE, profile)
    _write_requests(folder / "requests.jsonl", run.requests)
    _write_series(folder / "timeseries.csv", run, kv_blocks)
    if (turns := measuring.get("turns")) is not None:
        cost = Measured(Coefficients(**profile["fit"]), "fitted")
        write_speed(folder / SPEED, slowness_over(turns.steps, run.steps, cost, run.requests[0]["arrival_ts"]))
    meta = {
        **facts,
        "started_at": run.times[0],
        "finished_at": run.times[1],
        "tick_seconds": TICK_S,
        "preemptions": sum(step.preempted for step in run.steps),
        "measured_steps": {name: spent(profile["fit"], phase.steps) for name, phase in read.items()},
        "environment": {**environment(), **machine()},
    }
    write_json(folder / "meta.json", meta)
    return meta


def _phase(noted: Mapping[str, Any], kv_blocks: int) -> Phase:
    requests = sorted(noted["requests"], key=lambda row: (row["arrival_ts"], row["queued_ts"]))
    steps = steps_of(noted["steps"], kv_blocks)
    return Phase(requests, steps, (noted["started_at"], noted["finished_at"]))


def _profile(facts: Mapping[str, Any], phases: Sequence[Sequence[Step]]) -> dict[str, Any]:
    from reference_impl.latency.measured import FORMAT, VERSION
    from reference_impl.latency.measured_fit import as_text

    found = fitted(phases)
    count = sum(map(len, phases))
    dtype = facts["resolved_config"]["model_config"]["dtype"]
    engine = f"vLLM {facts['vllm_version']}, {facts['model']} in {dtype} on {facts['device']}"
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": facts["model"],
        "dtype": dtype,
        "provenance": f"{count} steps of {engine}, measured apart from the run; {as_text(found.errors)}",
        "fit": asdict(found.coefficients),
        "errors": told(found.errors),
    }


def _write_requests(path: Path, requests: Sequence[Mapping[str, Any]]) -> None:
    lines = [json.dumps({key: _micro(value) for key, value in row.items()}) for row in requests]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _micro(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _write_series(path: Path, run: Phase, kv_blocks: int) -> None:
    """Ticks count from the first arrival."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(course(run.requests, run.steps, kv_blocks, TICK_S))
