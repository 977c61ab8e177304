"""``semiflow record``: a run as a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.out_file import check_new
from experiments.config_base import ConfigError
from experiments.run_folder import SPOOL


def record(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or a requests.jsonl.")],
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="Where to write the trace.")],
    unfinished: Annotated[
        str,
        typer.Option(metavar="drop|keep", help="Requests that did not finish: left out, or as they were asked for."),
    ] = "drop",
    invalid: Annotated[str, typer.Option(metavar="error|drop", help="Lines that cannot be used.")] = "error",
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Turn what a live run was asked into a trace: arrivals, lengths, prefixes, tenants and sessions.

    Works on the folder of a deployment, of a replay and of a simulated run (which has no prefixes). The trace can be
    simulated and replayed. What a deployment left that could not finish (OUT.unfinished, or a hidden .OUT.*.partial
    where it was killed) is made a whole run's folder first.
    """
    from experiments.record import record as recorded
    from workloads.settle import check_invalid
    from workloads.storage import save

    if out.suffix != ".parquet":
        raise ConfigError(f"--out {out}: traces are written as parquet; name it {out.with_suffix('.parquet').name}")
    check_new("--out", out, (".parquet",), force)
    if unfinished not in ("drop", "keep"):
        raise ConfigError(f"--unfinished {unfinished!r} is not allowed; allowed: drop, keep")
    check_invalid(invalid)
    if (run / SPOOL).is_file():
        _finish(run)
    trace = recorded(run, keep_unfinished=unfinished == "keep", invalid="drop" if invalid == "drop" else "error")
    save(trace, out)
    typer.echo(
        f"{out}: {len(trace)} requests over {trace.duration_s:.1f} s; unfinished: {trace.metadata['unfinished']}"
    )
    missing = int(trace.metadata.get("arrivals_without_a_line", 0))
    if missing:
        typer.echo(f"note: {missing} arrivals of the event log have no line in requests.jsonl", err=True)
    dropped = int(trace.metadata.get("rows_dropped", 0))
    if dropped:
        typer.echo(f"note: {dropped} lines were invalid and dropped", err=True)


def _finish(run: Path) -> None:
    from experiments.serve import finish

    finish(run)
    typer.echo(
        f"note: {run} was not finished; it has its event log, requests and metrics now ({SPOOL} stays)", err=True
    )
