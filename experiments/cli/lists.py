"""``semiflow policies`` and ``semiflow metrics``: what there is to choose from, and what is measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from policies.registry import PolicyInfo

_INDENT = 20
KINDS = ("dispatch", "batch", "partition", "scaling", "prediction")


def policies(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=f"One of: {', '.join(KINDS)}.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")] = False,
) -> None:
    """List policies with their parameters: built-in ones, and those of installed packages.

    An installed one that cannot be used is named on stderr, and stands in the JSON with its error.
    """
    from dataclasses import asdict
    from typing import cast

    from policies.api import PolicyKind
    from policies.registry import survey

    if kind is not None and kind not in KINDS:
        raise ConfigError(f"{kind!r} is no kind of policy; allowed: {', '.join(KINDS)}")
    found, broken = survey(cast("PolicyKind | None", kind))
    entries = [*map(asdict, found), *map(asdict, broken)]
    typer.echo(json.dumps(entries, indent=2) if json_ else _as_text(found))
    for entry in broken:
        typer.echo(f"warning: policy {entry.name} of {entry.origin} cannot be used: {entry.error}", err=True)


def metrics(
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="Only figures whose name holds this.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")] = False,
) -> None:
    """List the figures of a run: population, window and unit of each."""
    from reference_impl.metrics import definitions

    found = {key: told for key, told in definitions().items() if text is None or text in key}
    if not found:
        raise ConfigError(f"no figure's name holds {text!r}; `semiflow metrics` lists all")
    lines = [line for key, told in found.items() for line in (key, *_wrapped(f"    {told}", 4))]
    typer.echo(json.dumps(found, indent=2) if json_ else "\n".join(lines))


def _as_text(found: list[PolicyInfo]) -> str:
    lines: list[str] = []
    for kind in dict.fromkeys(info.kind for info in found):
        lines += ["", kind.upper()] if lines else [kind.upper()]
        for info in (info for info in found if info.kind == kind):
            where = "" if info.origin == "built in" else f" [{info.origin}]"
            lines += _wrapped(f"  {info.name:<{_INDENT - 4}}  {info.summary}{where}", _INDENT)
            for parameter in info.parameters:
                text = f"{parameter.name}: {parameter.allowed()}. {parameter.doc}".rstrip()
                lines += _wrapped(f"{'':<{_INDENT}}{text}", _INDENT + 4)
    return "\n".join(lines)


def _wrapped(text: str, indent: int) -> list[str]:
    import shutil
    import textwrap

    width = max(shutil.get_terminal_size((100, 24)).columns, 60)
    return textwrap.wrap(text, width, subsequent_indent=" " * indent, drop_whitespace=True)
