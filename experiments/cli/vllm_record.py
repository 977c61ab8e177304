"""``semiflow validate vllm-record``: a real vLLM run for ``vllm-run``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.config_base import ConfigError


def vllm_record(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    python: Annotated[str, typer.Option(metavar="PATH", help="An interpreter that has vLLM, for a GPU or for CPUs.")],
    model: Annotated[
        str | None,
        typer.Option(help="A name, a folder or a config.json; default: a small Llama. Without weights: made-up ones."),
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(metavar="TEXT", help='Lengths as in workloads synth: "N(160,70)/(80,35)".')
    ] = None,
    trace: Annotated[str | None, typer.Option(help="Instead: a trace.")] = None,
    requests: Annotated[int, typer.Option(min=1, help="How many.")] = 300,
    rate: Annotated[float | None, typer.Option(metavar="RPS", help="Poisson arrivals at this rate.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the workload; that of the next seed is measured.")] = 0,
    kv_blocks: Annotated[
        int | None, typer.Option(min=1, help="KV pool; small enough, it fills and preempts. Default: vLLM's own.")
    ] = None,
    block_tokens: Annotated[int | None, typer.Option(min=1, help="KV block; default: vLLM's own.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(min=1)] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    max_model_len: Annotated[int | None, typer.Option(min=2)] = None,
    prefix_caching: Annotated[bool, typer.Option(help="vLLM also caches what was generated, which we do not.")] = False,
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=JSON", help="Another of vLLM's EngineArgs, such as enforce_eager=true; repeatable."),
    ] = None,
    measure_s: Annotated[float, typer.Option(min=10, help="Seconds of measuring before the run, and after it.")] = 60.0,
    in_turns: Annotated[
        bool,
        typer.Option("--in-turns", help="Measure during the run instead, by a second engine, a turn of 0.4 s each."),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print meta.json and nothing else on stdout.")] = False,
) -> None:
    """Record a real vLLM run for vllm-run, and measure the same engine's steps apart from it.

    The engine runs in one process with its scheduler and model; the steps that the cost model is fitted to come from
    another workload, before and after the run; with --in-turns (for machines whose speed changes from minute to minute)
    from a second engine, while the run's clock stands still. Example: semiflow validate vllm-record out --python
    vllm/bin/python --scenario "N(160,70)/(80,35)" --rate 4 --kv-blocks 64
    """
    from experiments.cli.progress import progress
    from experiments.validation.recording import Recording, record_vllm_run

    named = {"block_size": block_tokens, "max_num_seqs": max_num_seqs, "max_num_batched_tokens": max_num_batched_tokens}
    named |= {"max_model_len": max_model_len, "num_gpu_blocks_override": kv_blocks + 1 if kv_blocks else None}
    engine = {key: value for key, value in named.items() if value is not None}
    engine |= {"enable_prefix_caching": prefix_caching, **dict(map(_argument, engine_arg or ()))}
    workload = _workload(scenario, trace, requests, rate)
    with progress("starting vLLM") as report:
        meta = record_vllm_run(Recording(workload, seed, model, engine, measure_s, in_turns), python, out, report)
    typer.echo(json.dumps(meta, indent=2) if json_ else _text(out, meta))


def _workload(scenario: str | None, trace: str | None, requests: int, rate: float | None) -> Any:
    from experiments.config import WorkloadConfig

    if (scenario is None) == (trace is None):
        raise ConfigError("what is served is said by --scenario or by --trace; give one of them")
    if trace is not None:
        return WorkloadConfig(trace=trace, max_requests=requests, rate_rps=rate)
    if rate is None:
        raise ConfigError("--scenario needs --rate, the requests per second of its Poisson arrivals")
    return WorkloadConfig(
        synthetic={"requests": requests, "arrivals": f"poisson:rate_rps={rate:g}", "scenario": scenario}
    )


def _argument(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    try:
        return key, json.loads(value if separator else "")
    except ValueError:
        raise ConfigError(f"--engine-arg {text!r}: allowed: KEY=JSON, such as enforce_eager=true") from None


def _text(out: Path, meta: Mapping[str, Any]) -> str:
    blocks = meta["kv_cache"]["num_gpu_blocks"] - 1
    return (
        f"{out}: {meta['num_requests']} requests, {meta['preemptions']} preemptions, a pool of {blocks} KV blocks; "
        f"compare it with its simulation: semiflow validate vllm-run {out}"
    )
