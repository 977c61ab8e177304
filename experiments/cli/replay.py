"""``semiflow replay``: a trace against a live server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli import StoppedEarlyError
from experiments.cli.figure_lines import class_notes, figure_lines
from experiments.cli.progress import progress
from experiments.cli.replay_flags import takes_replay_config
from experiments.cli.simulate import Force, Json, kept_or_scratch
from experiments.config_replay import ReplayConfig

if TYPE_CHECKING:
    from experiments.replay import ReplayResult

Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep the run here: configuration, manifest, events, requests, metrics."),
]
Detailed = Annotated[
    bool, typer.Option("--save-detailed", help="Per-request lists in vllm_bench.json, answers included.")
]


@takes_replay_config
def replay(
    config: ReplayConfig, out: Out = None, force: Force = False, detailed: Detailed = False, json_: Json = False
) -> None:
    """Send a trace's requests to an OpenAI-compatible server, each when it is due, and measure the answers.

    Open loop: no request waits for another's answer. How late the client itself was is measured and reported.
    Example: semiflow replay bundled:shared-prefix --url http://127.0.0.1:8000 --rate 2 --max-requests 200 --out run
    """
    from experiments.replay import execute_replay

    with kept_or_scratch(out) as folder, progress("replaying") as report:
        result = execute_replay(config, folder, report, force=force, detailed=detailed)
    typer.echo(json.dumps(_as_json(result, out), indent=2) if json_ else _as_text(result, out))
    for line in _hints(config, result):
        typer.echo(line, err=True)
    if result.manifest["interrupted"]:
        where = f"; what came until then is in {out}" if out else " (not kept: no --out)"
        raise StoppedEarlyError(f"interrupted; {result.manifest['not_due']} requests were not sent{where}")


def _hints(config: ReplayConfig, result: ReplayResult) -> Iterator[str]:
    """What a user should know before believing the figures."""
    from reference_impl.metrics import remarks

    most = config.client.max_concurrency
    metrics, told, bound_ms = result.metrics, result.manifest, config.client.lag_bound_s * 1e3
    for kind, count in told["errors"].items():
        yield f"note: {count} of {metrics['arrived']} requests ended in {kind}: {told['error_examples'][kind]}"
    if most is not None:
        yield f"note: not open loop: at most {most} requests at once, so that the load depended on the server"
    elif metrics.get("client_lag_p99_ms", 0.0) > bound_ms:
        yield (
            f"warning: the client itself was late: {metrics['client_lag_p99_ms']:.1f} ms at the 99th percentile, over "
            f"the bound of {bound_ms:g} ms (--lag-bound): the server got other traffic than the trace's; give the "
            "client a core of its own (--client-cores) or a lower rate"
        )
    if told["prompts_of_another_length"]["requests"]:
        odd = told["prompts_of_another_length"]
        yield (
            f"note: {odd['requests']} prompts had another length than the trace's, by {odd['most_tokens']} tokens at "
            f"most, as the server counted ({told['prompt_lengths']})"
        )
    if told["answers_of_another_length"]:
        yield f"note: {told['answers_of_another_length']} answers had another length than the trace's"
    if told["token_counts_guessed"]:
        yield (
            f"note: {told['token_counts_guessed']} answers did not say how many tokens each chunk holds: one each was "
            "assumed, or an even share of the total"
        )
    yield from (f"note: {remark}" for remark in (*remarks(metrics), *class_notes(config.slo, metrics)))


def _as_json(result: ReplayResult, out: Path | None) -> dict[str, Any]:
    return {"folder": str(out) if out else None, "metrics": dict(result.metrics), "manifest": dict(result.manifest)}


def _as_text(result: ReplayResult, out: Path | None) -> str:
    server = f"server {result.manifest['server']}, model {result.manifest['model']}; times on the client's clock"
    return "\n".join([*figure_lines(result.metrics), "", server, f"run: {out}" if out else "not kept (no --out)"])
