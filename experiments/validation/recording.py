"""Record a real vLLM run, and measure the same engine's steps before and after it.

The engine runs in an interpreter that has vLLM (``record_in_vllm.py``); here its notes become the folder that
``semiflow validate vllm-run`` reads: ``meta.json``, ``requests.jsonl``, ``timeseries.csv``, ``profile.json``, and
``speed.csv`` where the steps were measured in turns with the run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import WorkloadConfig
from experiments.config_base import ConfigError
from experiments.run_folder import new_folder
from experiments.validation.foreign import converse
from experiments.validation.recorded_files import write_recording

if TYPE_CHECKING:
    from workloads.trace import Trace

Report = Callable[[int, int, str], None]
RUN = "run"
MEASURING = ("before", "after", "turns")
_WARM_UP = ("warm-up", 5.0)
_AROUND = "before and after the run"
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
SMALL_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 8,
    "vocab_size": 4096,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "float32",
}
"""27 million parameters: a step of some 20 ms on one CPU core."""


@dataclass(frozen=True)
class Recording:
    """What to record."""

    workload: WorkloadConfig
    seed: int
    """Draws the workload; the steps are measured with that of the next seed."""
    model: str | None
    """A name, a folder, or a ``config.json``, whose weights are then made up; None: ``SMALL_MODEL``."""
    engine: Mapping[str, Any]
    """Further arguments of vLLM's ``EngineArgs``."""
    measure_s: float
    """Seconds of measuring before the run, and again after it."""
    in_turns: bool
    """Measure during the run instead, by a second engine that takes turns with the first: what is a machine's speed in
    one minute need not be that of the next. The times of the run are then those of its own turns alone, and the
    simulation follows the speed that the second engine had (``speed.py``)."""


def record_vllm_run(wanted: Recording, python: str, out: Path, report: Report | None = None) -> Mapping[str, Any]:
    """Record into the folder ``out``, which appears complete or not at all; returns what its ``meta.json`` holds.

    Interrupted after the run itself, it keeps the run with the steps measured before it. Raises ConfigError where
    ``out`` is taken or the interpreter cannot run this engine, TraceError for the workload.
    """
    from experiments.config_build import build_trace

    trace, other = (build_trace(wanted.workload, seed) for seed in (wanted.seed, wanted.seed + 1))
    with new_folder(out) as folder, tempfile.TemporaryDirectory(prefix="semiflow-vllm-") as notes:
        task = _task(wanted, trace, other, Path(notes))
        engine: Mapping[str, Any] = {}
        try:
            for said in converse(python, Path(__file__).with_name("record_in_vllm.py"), task):
                engine = said.get("engine", engine)
                if report is not None and "doing" in said:
                    report(said["done"], said["total"], said["doing"])
        except KeyboardInterrupt:
            kept = {path.stem for path in Path(notes).glob("*.json")}
            if RUN not in kept or not kept & set(MEASURING):
                raise
        return write_recording(folder, _facts(wanted, task, engine), Path(notes), (MEASURING, RUN))


def _task(wanted: Recording, trace: Trace, other: Trace, notes: Path) -> dict[str, Any]:
    """What ``record_in_vllm.py`` reads."""
    columns = (trace.arrival_s - trace.arrival_s[0], trace.prompt_tokens, trace.output_tokens)
    measured = wanted.measure_s
    around = (
        [_WARM_UP, (RUN, None)]
        if wanted.in_turns
        else [_WARM_UP, ("before", measured), (RUN, None), ("after", measured)]
    )
    return {
        "folder": str(notes),
        "engine": _engine(wanted, notes),
        "seed": wanted.seed,
        "in_turns": wanted.in_turns,
        "warm_up": _WARM_UP,
        "phases": around,
        "requests": [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)],
        "lengths": list(zip(other.prompt_tokens.tolist(), other.output_tokens.tolist(), strict=True)),
    }


def _engine(wanted: Recording, notes: Path) -> dict[str, Any]:
    """Prompts are token ids, so that no tokenizer is needed; weights are made up where there are none."""
    given = {"skip_tokenizer_init": True, "disable_log_stats": False, "seed": 0, **wanted.engine}
    source = Path(wanted.model) if wanted.model is not None else None
    if source is None:
        given = {"dtype": SMALL_MODEL["torch_dtype"], **given}  # vLLM halves 32 bits unless it is told
    if source is None or source.is_file():
        content = json.dumps(SMALL_MODEL) if source is None else source.read_text(encoding="utf-8")
        (notes / "config.json").write_text(content, encoding="utf-8")
        return {"model": str(notes), "load_format": "dummy", **given}
    if source.is_dir() and not any(next(source.glob(pattern), None) for pattern in _WEIGHTS):
        if not (source / "config.json").is_file():
            raise ConfigError(
                f"--model {source}: has no config.json; allowed: a model's folder, its config.json, a name"
            )
        return {"model": str(source), "load_format": "dummy", **given}
    return {"model": wanted.model, **given}


def _facts(wanted: Recording, task: Mapping[str, Any], engine: Mapping[str, Any]) -> dict[str, Any]:
    """What ``meta.json`` says of the run before its times are known."""
    name = wanted.model if wanted.model is not None else "a Llama of 27 million parameters (dummy weights)"
    shape = SMALL_MODEL if wanted.model is None else None
    return {
        "schema_version": 1,
        "model": name,
        **({"model_config": shape} if shape else {}),
        "engine_kwargs": {**task["engine"], "model": name},
        **engine,
        "workload": wanted.workload.model_dump(exclude_defaults=True),
        "seed": wanted.seed,
        "num_requests": len(task["requests"]),
        "steps_measured": "in turns with the run, whose clock stood still meanwhile" if wanted.in_turns else _AROUND,
    }
