"""``semiflow workloads``: list, look at and generate traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from experiments.cli.workload_facts import as_text, check_invalid, facts
from experiments.cli.workload_files import convert, fetch
from experiments.config_base import ConfigError

workloads = typer.Typer(help="List, look at and generate workloads.", no_args_is_help=True)
_PROMPT, _OUTPUT = "lognormal:mean_tokens=250,sigma=1.0", "lognormal:mean_tokens=200,sigma=0.8"
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


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
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png|svg", help="Draw it, too.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    json_: Json = False,
) -> None:
    """Size, rate, lengths, burstiness, reuse, sessions and provenance of a workload; with --plot also as a picture."""
    from workloads.catalog import open_trace

    check_invalid(invalid)
    if plot is not None:
        _check_picture(plot, force)
    opened = open_trace(trace, invalid=invalid)  # type: ignore[arg-type]  # mypy does not narrow by `in`
    told = facts(opened)
    if plot is not None:
        from experiments.report.traffic import draw

        draw(opened, plot)
        told = {**told, "picture": str(plot)}
    typer.echo(json.dumps(told, indent=2) if json_ else as_text(told))


def _check_picture(plot: Path, force: bool) -> None:
    if plot.suffix not in (".png", ".svg"):
        raise ConfigError(f"--plot {plot}: pictures are written as .png or .svg")
    if plot.exists() and not force:
        raise ConfigError(f"{plot}: exists already; choose another name or overwrite it with --force")
    if not plot.parent.is_dir():
        raise ConfigError(f"--plot {plot}: there is no folder {plot.parent}")


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
    from workloads.synthetic.scenario import FORMS

    paragraphs = [
        *(f"--arrivals {form}" for form in forms(ARRIVALS)),
        *(f"--prompt, --output {form}" for form in forms(LENGTHS)),
        f"--scenario {FORMS}",
        f"--prefix {keys(SharedPrefix)}",
        f"Tables: {', '.join(shipped_tables())}",
    ]
    return "\n\n".join(paragraphs)


@workloads.command("synth", cls=_SynthCommand)
def synth(
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="Where to write it.")],
    requests: Annotated[int, typer.Option(help="How many.")] = 1000,
    arrivals: Annotated[str, typer.Option(metavar="KIND:KEY=VALUE,...")] = "poisson:rate_rps=4",
    prompt: Annotated[str | None, typer.Option(metavar="KIND:KEY=VALUE,...")] = None,
    output: Annotated[str | None, typer.Option(metavar="KIND:KEY=VALUE,...")] = None,
    scenario: Annotated[str | None, typer.Option(metavar="TEXT", help="Lengths as genai-bench writes them.")] = None,
    prefix: Annotated[str | None, typer.Option(metavar="KEY=VALUE,...", help="Shared prefixes.")] = None,
    seed: Annotated[int, typer.Option(help="Same description and seed, same trace.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Generate a workload: arrival process x prompt lengths x output lengths x shared prefixes.

    The kinds and their keys are listed below. Without lengths: prompts of 250 and outputs of 200 tokens on average.
    """
    from workloads.storage import save
    from workloads.synthetic import SyntheticSpec, synthesise

    if out.suffix != ".parquet":
        raise ConfigError(f"--out {out}: workloads are written as parquet; name it {out.with_suffix('.parquet').name}")
    if out.exists() and not force:
        raise ConfigError(f"{out}: exists already; choose another name or overwrite it with --force")
    given = {"prompt": prompt, "output": output, "scenario": scenario, "prefix": prefix}
    parts = {key: value for key, value in given.items() if value is not None}
    lengths = {} if scenario is not None else {"prompt": _PROMPT, "output": _OUTPUT}
    values = {"requests": requests, "arrivals": arrivals, **lengths, **parts}
    trace = synthesise(SyntheticSpec.from_mapping(values), seed)
    save(trace, out)
    typer.echo(as_text({"file": str(out), **facts(trace)}))


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


workloads.command("convert")(convert)
workloads.command("fetch")(fetch)
