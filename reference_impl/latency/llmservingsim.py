"""Read a hardware profile in LLMServingSim's format.

A folder with, for one tensor-parallel degree (each file with or without the prefix ``profile_``):

``dense.csv``         layer, tokens, time_us: operators whose time depends on the tokens of the iteration
``per_sequence.csv``  layer, sequences, time_us: output head and sampler
``attention.csv``     prefill_chunk, kv_prefill, n_decode, kv_decode, time_us: one layer; kv columns per sequence
``skew_fit.csv``      optional: what unequal contexts of one decode batch cost, by bucket
``meta.yaml``         model, hardware and the axes of the buckets

Times are of one device, whose matrices are already divided by the tensor-parallel degree. No all-reduce is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_impl.latency.csv_table import number, rows
from reference_impl.latency.errors import ProfileError, reason
from reference_impl.latency.interpolate import Curve, curve_of, value
from reference_impl.latency.skew import SkewTable, read_skew

Cell = tuple[int, int]
"""Prefill chunk tokens and decodes."""
Plane = tuple[tuple[int, ...], tuple[Curve, ...]]
"""KV tokens before the chunk, and for each the seconds over the KV tokens of each decode."""

_PER_LAYER = {
    "layernorm": 2,
    "qkv_proj": 1,
    "qk_norm": 1,
    "rotary_emb": 1,
    "o_proj": 1,
    "gate_up_proj": 1,
    "act_fn": 1,
    "down_proj": 1,
}
_ONCE = {"embedding": 1, "final_layernorm": 1}
_REQUIRED = ("layernorm", "qkv_proj", "o_proj", "gate_up_proj", "down_proj")


@dataclass(frozen=True)
class Profile:
    """The tables of one folder, in seconds."""

    folder: Path
    model: str
    device: str
    layer: Curve
    """All token-dependent operators of one layer, attention left out."""
    once: Curve
    """Embedding and final norm."""
    head: Curve
    """Output head and sampler, by sequences."""
    attention: Mapping[Cell, Plane]
    skew: SkewTable | None


def read_profile(folder: str | Path, tp: int = 1) -> Profile:
    """Read a folder that was profiled at tensor-parallel degree ``tp``.

    Raises :class:`ProfileError` naming file, row and column, and where the folder tells another degree.
    """
    root = Path(folder)
    meta = _meta(_find(root, "meta.yaml"))
    dense = _curves(_find(root, "dense.csv"), "tokens")
    unknown = sorted(set(dense) - set(_PER_LAYER) - set(_ONCE))
    if unknown:
        raise ProfileError(
            f"{_find(root, 'dense.csv')}: layer {unknown[0]!r} is not modelled; known: "
            f"{', '.join((*_PER_LAYER, *_ONCE))}"
        )
    _require(_find(root, "dense.csv"), dense, _REQUIRED)
    head = _curves(_find(root, "per_sequence.csv"), "sequences")
    _require(_find(root, "per_sequence.csv"), head, ("lm_head",))
    return Profile(
        folder=root,
        model=str(meta.get("model", "")),
        device=str(meta.get("hardware", "")),
        layer=_total(dense, _PER_LAYER),
        once=_total(dense, _ONCE),
        head=_total(head, {"lm_head": 1, "sampler": 1}),
        attention=_attention(_find(root, "attention.csv")),
        skew=_skew(root, meta, tp),
    )


def _skew(root: Path, meta: Mapping[str, Any], tp: int) -> SkewTable | None:
    """None where the profile has no skew measurement: unequal contexts then cost what equal ones cost."""
    fit = meta.get("skew_fit")
    if not isinstance(fit, dict) or not fit.get("enabled"):
        return None
    samples = next((path for path in (root / "profile_skew.csv", root / "skew.csv") if path.is_file()), None)
    return read_skew(_find(root, "skew_fit.csv"), samples, fit, tp)


def _find(root: Path, name: str) -> Path:
    for candidate in (root / f"profile_{name}", root / name):
        if candidate.is_file():
            return candidate
    raise ProfileError(f"{root} has no {name} or profile_{name}; it must be a folder with a profile")


def _meta(path: Path) -> dict[str, Any]:
    import yaml

    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProfileError(f"cannot read {path}: {reason(error)}") from error
    if not isinstance(data, dict):
        raise ProfileError(f"{path} must hold a mapping, not {type(data).__name__}")
    return data


def _curves(path: Path, axis: str) -> dict[str, Curve]:
    """Seconds over ``axis`` by layer."""
    points: dict[str, dict[float, float]] = {}
    for line, row in rows(path, "layer", axis, "time_us"):
        at, time_us = (number(path, line, row, column, positive=True) for column in (axis, "time_us"))
        points.setdefault(row["layer"], {})[at] = time_us * 1e-6
    return {layer: _curve(by_point) for layer, by_point in points.items()}


def _curve(by_point: Mapping[float, float]) -> Curve:
    grid = tuple(sorted(by_point))
    return grid, tuple(by_point[at] for at in grid)


def _require(path: Path, curves: Mapping[str, Curve], names: Sequence[str]) -> None:
    for name in names:
        if name not in curves:
            raise ProfileError(f"{path}: layer {name!r} is missing; it needs {', '.join(names)}")


def _total(curves: Mapping[str, Curve], counts: Mapping[str, int]) -> Curve:
    """The sum of the operators that are there, each taken ``counts`` times, on the union of their grids."""
    present = {name: count for name, count in counts.items() if name in curves}
    if not present:
        return (1.0,), (0.0,)
    grid = sorted({at for name in present for at in curves[name][0]})
    return tuple(grid), tuple(sum(count * value(curves[name], at) for name, count in present.items()) for at in grid)


def _attention(path: Path) -> dict[Cell, Plane]:
    """Measured seconds of one layer; along the decode context made non-decreasing (a longer context costs no less)."""
    columns = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    cells: dict[Cell, dict[int, dict[float, float]]] = {}
    for line, row in rows(path, *columns, "time_us"):
        if row.get("layer", "attention") != "attention":
            raise ProfileError(f"{path}, line {line}: attention kernel {row['layer']!r} is not modelled")
        chunk, before, decodes, context = (int(number(path, line, row, column)) for column in columns)
        seconds = number(path, line, row, "time_us", positive=True) * 1e-6
        cells.setdefault((chunk, decodes), {}).setdefault(before, {})[context] = seconds
    _check_cells(path, set(cells))
    return {
        cell: (tuple(sorted(plane)), tuple(curve_of(plane[before]) for before in sorted(plane)))
        for cell, plane in cells.items()
    }


def _check_cells(path: Path, cells: set[Cell]) -> None:
    """A lookup needs decodes alone, and each chunk size both alone and beside decodes."""
    chunks, decodes = {chunk for chunk, _ in cells if chunk}, {count for _, count in cells if count}
    if not any((0, count) in cells for count in decodes) or not chunks:
        raise ProfileError(f"{path} needs rows with prefill_chunk 0 and with n_decode 0; it has not both")
    for chunk in sorted(chunks):
        if (chunk, 0) not in cells or not any((chunk, count) in cells for count in decodes):
            raise ProfileError(f"{path}: prefill_chunk {chunk} needs rows with n_decode 0 and with n_decode above 0")
