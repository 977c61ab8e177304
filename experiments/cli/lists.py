"""``semiflow policies``, ``hardware``, ``models`` and ``metrics``: what there is to choose from and to measure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from policies.registry import PolicyInfo
    from reference_impl.latency import Hardware, ModelShape

_INDENT = 20
KINDS = ("dispatch", "batch", "partition", "scaling", "prediction")
_Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


def policies(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=f"One of: {', '.join(KINDS)}.")] = None,
    json_: _Json = False,
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


def hardware(json_: _Json = False) -> None:
    """List the accelerators that --hardware takes by name: peaks without sparsity, links one way."""
    from dataclasses import asdict

    from reference_impl.latency import HARDWARE

    found = list(HARDWARE.values())
    if json_:
        typer.echo(json.dumps([asdict(device) for device in found], indent=2))
    else:
        typer.echo("\n".join(line for device in found for line in _wrapped(_device_text(device), _INDENT)))


def models(json_: _Json = False) -> None:
    """List the models that --model takes by name; it also takes the path of a Hugging Face config.json."""
    from reference_impl.latency import known_models

    found = known_models()
    if json_:
        typer.echo(json.dumps([_model_facts(shape) for shape in found], indent=2))
    else:
        typer.echo("\n".join(line for shape in found for line in _wrapped(_model_text(shape), _INDENT)))


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


def _device_text(device: Hardware) -> str:
    fp8 = "" if device.fp8_flops is None else f" ({device.fp8_flops / 1e12:g} in fp8)"
    return (
        f"{device.name:<{_INDENT - 2}}  {device.bf16_flops / 1e12:g} TFLOP/s in bf16{fp8}, "
        f"{device.hbm_bytes_per_s / 1e12:g} TB/s, {device.memory_bytes / 1e9:.1f} GB, {device.link} at "
        f"{device.link_bytes_per_s / 1e9:g} GB/s, {device.sm_count} cores. {device.source}"
    )


def _model_text(shape: ModelShape) -> str:
    active = "" if shape.experts is None else f" ({shape.active_parameters / 1e9:.3g} B active)"
    return (
        f"{shape.name:<{_INDENT - 2}}  {shape.parameters / 1e9:.4g} B parameters{active}, "
        f"{shape.weight_bytes / 1e9:.4g} GB, {shape.kv_bytes_per_token / 1e3:.4g} KB of KV a token, "
        f"context {shape.max_context_tokens:,}"
    )


def _model_facts(shape: ModelShape) -> dict[str, object]:
    from dataclasses import asdict

    derived = ("parameters", "active_parameters", "weight_bytes", "kv_bytes_per_token")
    return {**asdict(shape), **{name: getattr(shape, name) for name in derived}}


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
