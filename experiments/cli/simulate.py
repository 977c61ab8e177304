"""``semiflow simulate``: one run."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from experiments.cli.figure_lines import class_notes, figure_lines
from experiments.cli.flags import takes_run_config
from experiments.cli.progress import progress
from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.decisions import Recorded

if TYPE_CHECKING:
    from experiments.run import RunResult

_MANY = 0.01
"""Share of the requests from which on a user should be told."""
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Keep the run here: configuration, manifest, events, metrics.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace DIR if it holds an earlier run and nothing else.")]
Decisions = Annotated[
    str,
    typer.Option(
        "--record-decisions",
        metavar="none|dispatch|all",
        help="Keep what the policies saw and decided, for `semiflow replay-decisions DIR`.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


@takes_run_config
def simulate(
    config: RunConfig, out: Out = None, force: Force = False, record: Decisions = "none", json_: Json = False
) -> None:
    """Simulate a fleet under a workload and print its metrics.

    Example: semiflow simulate --trace bundled:sharegpt-like --instances 8 --dispatch least_loaded:metric=tokens
    --batch chunked_prefill:chunk_tokens=512 --slo ttft=1.0,tpot=0.1 --rate 20 --max-requests 2000 --out runs/first
    """
    from experiments.run import execute

    with kept_or_scratch(out) as folder, progress("simulating") as report:
        result = execute(config, folder, report, force=force, decisions=_recorded(record))
    typer.echo(json.dumps(_as_json(result, out), indent=2) if json_ else _as_text(result, out))
    for line in _hints(config, result):
        typer.echo(line, err=True)


def _recorded(given: str) -> Recorded:
    for known in get_args(Recorded):
        if given == known:
            return known  # type: ignore[no-any-return]  # get_args does not know
    raise ConfigError(f"--record-decisions {given} is not allowed; allowed: {', '.join(get_args(Recorded))}")


@contextlib.contextmanager
def kept_or_scratch(out: Path | None) -> Iterator[Path]:
    """Where the run goes; without --out a place that is gone afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="semiflow-") as scratch:
        yield Path(scratch) / "run"


def _hints(config: RunConfig, result: RunResult) -> Iterator[str]:
    """What a user should know before believing the figures."""
    from reference_impl.metrics import remarks

    yield from (f"note: {remark}" for remark in (*remarks(result.metrics), *class_notes(config.slo, result.metrics)))
    manifest = result.manifest
    trace, limit, too_long = manifest["trace"], manifest["max_request_tokens"], manifest["too_long_requests"]
    if int(trace.get("rows_dropped", 0)):
        yield f"note: {trace['rows_dropped']} of {trace['rows']} rows of {trace['name']} were invalid and dropped"
    if too_long > _MANY * result.summary.requests:
        yield (
            f"hint: {too_long} of {result.summary.requests} requests were rejected, for they have over {limit} tokens "
            f"(prompt and output), the most that fits here; --max-total-tokens {limit} clips prompts"
        )


def _as_json(result: RunResult, out: Path | None) -> dict[str, Any]:
    return {"folder": str(out) if out else None, "metrics": dict(result.metrics), "manifest": dict(result.manifest)}


def _as_text(result: RunResult, out: Path | None) -> str:
    models = [f"cost model {name}: {provenance}" for name, provenance in result.manifest["cost_models"].items()]
    return "\n".join([*figure_lines(result.metrics), "", *models, f"run: {out}" if out else "not kept (no --out)"])
