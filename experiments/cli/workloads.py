"""``semiflow workloads``: list, look at and generate traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.trace import Trace

workloads = typer.Typer(help="List, look at and generate workloads.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]
_PERCENTILES = (50, 90, 99)


@workloads.command("list")
def list_(json_: Json = False) -> None:
    """Bundled workloads (generated, always there) and public traces, with the file where they were found."""
    found = [*_bundled(), *_catalogue()]
    if json_:
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(len(entry["name"]) for entry in found)
    for entry in found:
        typer.echo(f"{entry['name']:<{width}}  {entry['summary']}")
        typer.echo(f"{'':<{width}}  {entry['state']}")


@workloads.command("show")
def show(
    trace: Annotated[str, typer.Argument(help="File, catalogue name or bundled:NAME.")],
    invalid: Annotated[
        str, typer.Option(metavar="error|drop", help="Rows that no system can have produced.")
    ] = "error",
    json_: Json = False,
) -> None:
    """Size, rate, lengths and provenance of a workload."""
    from workloads.catalog import open_trace

    if invalid not in ("error", "drop"):
        raise ConfigError(f"--invalid: {invalid!r} is not allowed; write error or drop")
    facts = _facts(open_trace(trace, invalid=invalid))  # type: ignore[arg-type]  # mypy does not narrow by `in`
    typer.echo(json.dumps(facts, indent=2) if json_ else _as_text(facts))


class _SynthCommand(TyperCommand):
    """Its help lists the kinds from the tables that parse them, and imports these tables only to do so."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.epilog = _synthetic_kinds()
        super().format_help(ctx, formatter)


def _synthetic_kinds() -> str:
    from workloads.synthetic.arrivals import ARRIVALS
    from workloads.synthetic.build import forms, keys
    from workloads.synthetic.lengths import LENGTHS, shipped_tables
    from workloads.synthetic.prefixes import SharedPrefix

    paragraphs = [
        *(f"--arrivals {form}" for form in forms(ARRIVALS)),
        *(f"--prompt, --output {form}" for form in forms(LENGTHS)),
        f"--prefix {keys(SharedPrefix)}",
        f"Tables: {', '.join(shipped_tables())}",
    ]
    return "\n\n".join(paragraphs)


@workloads.command("synth", cls=_SynthCommand)
def synth(
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="Where to write it.")],
    requests: Annotated[int, typer.Option(help="How many.")] = 1000,
    arrivals: Annotated[str, typer.Option(metavar="KIND:KEY=VALUE,...")] = "poisson:rate_rps=4",
    prompt: Annotated[str, typer.Option(metavar="KIND:KEY=VALUE,...")] = "lognormal:mean_tokens=250,sigma=1.0",
    output: Annotated[str, typer.Option(metavar="KIND:KEY=VALUE,...")] = "lognormal:mean_tokens=200,sigma=0.8",
    prefix: Annotated[str | None, typer.Option(metavar="KEY=VALUE,...", help="Shared prefixes.")] = None,
    seed: Annotated[int, typer.Option(help="Same description and seed, same trace.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Generate a workload: arrival process x prompt lengths x output lengths x shared prefixes.

    The kinds and their keys are listed below.
    """
    from workloads.storage import save
    from workloads.synthetic import SyntheticSpec, synthesise

    if out.suffix != ".parquet":
        raise ConfigError(f"--out {out}: workloads are written as parquet; name it {out.with_suffix('.parquet').name}")
    if out.exists() and not force:
        raise ConfigError(f"{out}: exists already; choose another name or overwrite it with --force")
    parts = {"requests": requests, "arrivals": arrivals, "prompt": prompt, "output": output}
    trace = synthesise(SyntheticSpec.from_mapping(parts if prefix is None else {**parts, "prefix": prefix}), seed)
    save(trace, out)
    typer.echo(_as_text({"file": str(out), **_facts(trace)}))


def _bundled() -> list[dict[str, str]]:
    from workloads.synthetic.bundled import BUNDLED, PREFIX

    return [
        {"name": f"{PREFIX}{name}", "summary": entry.summary, "state": "generated"} for name, entry in BUNDLED.items()
    ]


def _catalogue() -> list[dict[str, str]]:
    from workloads.catalog import entries, find

    listed = []
    for entry in entries():
        path = find(entry)
        there = str(path) if path else f"not here; {entry.licence}, {entry.url}"
        state = f"cannot be opened yet: {entry.unsupported}" if entry.unsupported else there
        listed.append({"name": entry.name, "summary": entry.title, "state": state})
    return listed


def _facts(trace: Trace) -> dict[str, Any]:
    return {
        "name": trace.name,
        "requests": len(trace),
        "duration_s": trace.duration_s,
        "mean_rate_rps": trace.mean_rate_rps,
        "prompt_tokens": _spread(trace.prompt_tokens),
        "output_tokens": _spread(trace.output_tokens),
        "prefix_block_tokens": trace.prefix_block_tokens,
        "metadata": dict(trace.metadata),
    }


def _spread(column: NDArray[Any]) -> dict[str, float]:
    import numpy as np

    percentiles = {f"p{p}": float(v) for p, v in zip(_PERCENTILES, np.percentile(column, _PERCENTILES), strict=True)}
    return {"mean": float(column.mean()), **percentiles, "max": float(column.max())}


def _as_text(facts: dict[str, Any]) -> str:
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict) and key != "metadata":
            value = "  ".join(f"{name} {number:.6g}" for name, number in value.items())
        if key == "metadata":
            lines += [f"{name:<20} {text}" for name, text in value.items()]
        elif value is not None:
            lines.append(f"{key:<20} {value:.6g}" if isinstance(value, float) else f"{key:<20} {value}")
    return "\n".join(lines)
