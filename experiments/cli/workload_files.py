"""``semiflow workloads convert`` and ``fetch``: files of other formats, and public traces from their sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli import StoppedEarlyError
from experiments.cli.out_file import check_new
from experiments.cli.progress import progress
from experiments.cli.workload_facts import as_text, check_invalid, facts
from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from workloads.formats import Reading
    from workloads.trace import Trace

_Invalid = Annotated[str, typer.Option(metavar="error|drop", help="Rows that no system can have produced.")]
_FORMATS = (".parquet", ".jsonl")


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="File, catalogue name or bundled:NAME.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="FILE.parquet (everything) or FILE.jsonl (Mooncake).")],
    invalid: _Invalid = "error",
    block_tokens: Annotated[
        int | None, typer.Option(help="Convert prefix ids to blocks of so many tokens.", min=1)
    ] = None,
    read_blocks: Annotated[
        int | None, typer.Option(help="Tokens per id in a JSONL that has others than its format's.")
    ] = None,
    arrivals: Annotated[
        str | None, typer.Option(metavar="KIND:KEY=VALUE,...", help="For lengths without times (see synth --help).")
    ] = None,
    session_rate: Annotated[
        float | None, typer.Option(help="Sessions without a common clock: so many start per second.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(metavar="START:END", help="Client profiles: draw requests for these seconds.")
    ] = None,
    slo_class: Annotated[
        list[str] | None, typer.Option(metavar="TENANT=CLASS", help="SLO class of a tenant; may be repeated.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn; default: 0.", min=0)] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Write a trace in another format, its blocks in another size, its lengths with arrivals."""
    from workloads.catalog import open_trace
    from workloads.formats import mooncake_writer
    from workloads.formats.mooncake import BLOCK_TOKENS
    from workloads.storage import save

    check_invalid(invalid)
    classes = _classes(slo_class or [])
    check_new("OUT", out, _FORMATS, force)
    reading = _reading(arrivals, session_rate, window, read_blocks, seed)
    trace = open_trace(source, invalid, reading)  # type: ignore[arg-type]  # mypy does not narrow by `in`
    if block_tokens is not None and trace.prefix_ids is None and out.suffix == ".parquet":
        raise ConfigError(
            f"--block-tokens {block_tokens}: {source} has no prefix ids to convert; leave it out "
            f"(it is for traces with prefix ids, and for OUT.jsonl, which has ids of every prompt)"
        )
    trace = _changed(trace, block_tokens, classes)
    told: dict[str, Any] = {"written": str(out)}
    if out.suffix == ".parquet":
        save(trace, out)
    else:
        mooncake_writer.write(trace, out, block_tokens or BLOCK_TOKENS)
        lost = mooncake_writer.lost(trace)
        told |= {"left out": f"{', '.join(lost)} (Mooncake's format has no place for them)"} if lost else {}
    typer.echo(as_text({**told, **facts(trace)}))


def fetch(
    name: Annotated[str, typer.Argument(help="A public trace (semiflow workloads list).")],
    invalid: _Invalid = "error",
) -> None:
    """Fetch a public trace from its source, check it, convert it, keep it in the cache folder."""
    from workloads.catalog import entry
    from workloads.fetch import fetch as fetch_entry
    from workloads.fetch import terms

    check_invalid(invalid)
    wanted = entry(name)
    typer.echo(as_text(terms(wanted)))
    try:
        with progress(f"fetching {name}") as report:
            fetched = fetch_entry(wanted, invalid, report)  # type: ignore[arg-type]  # as above
    except KeyboardInterrupt as error:
        raise StoppedEarlyError("interrupted; what has arrived is kept, the same command goes on from there") from error
    if wanted.source_sha256 is None:
        typer.echo(as_text({"sha256 found": fetched.sha256}))
    typer.echo(as_text({"source": str(fetched.source), "written": str(fetched.converted), **facts(fetched.trace)}))


def _reading(
    arrivals: str | None, session_rate: float | None, window: str | None, read_blocks: int | None, seed: int | None
) -> Reading:
    from workloads.formats import Reading
    from workloads.synthetic.arrivals import ARRIVALS
    from workloads.synthetic.build import build_kind

    return Reading(
        arrivals=None if arrivals is None else build_kind("arrivals", ARRIVALS, arrivals),
        sessions_per_s=session_rate,
        window_s=None if window is None else _window(window),
        block_tokens=read_blocks,
        seed=seed,
    )


def _window(text: str) -> tuple[float, float]:
    start, _, end = text.partition(":")
    try:
        return float(start), float(end)
    except ValueError as error:
        raise ConfigError(f"--window {text!r}: write START:END in seconds, such as 79200:82800") from error


def _classes(pairs: list[str]) -> dict[str, str]:
    classes = {}
    for pair in pairs:
        tenant, equals, name = pair.rpartition("=")
        if not equals or not tenant or not name or tenant in classes:
            raise ConfigError(f"--slo-class {pair!r}: write TENANT=CLASS, each tenant once")
        classes[tenant] = name
    return classes


def _changed(trace: Trace, block_tokens: int | None, classes: dict[str, str]) -> Trace:
    if classes:
        trace = trace.with_slo_classes(classes)
    if block_tokens is not None and trace.prefix_ids is not None and trace.prefix_block_tokens != block_tokens:
        trace = trace.with_block_tokens(block_tokens)
    return trace
