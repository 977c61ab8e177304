"""Coefficient files of operators: one device's matrix multiplications and attention, with their source and errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_impl.latency.devices import Hardware, hardware
from reference_impl.latency.errors import ProfileError, reason
from reference_impl.latency.operators.costs import DecodeCosts, GemmCosts, PrefillCosts
from reference_impl.latency.shapes import ModelShape

FORMAT = "semiflow-operators"
VERSION = 1
DTYPES = {"bf16": 2, "fp8": 1, "fp8_block": 1}
"""Of a layer's matrices, and the bytes of a weight."""
_FOLDER = Path(__file__).parent / "profiles"
SHIPPED = tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))
"""The profiles that come with semiflow, by name."""


@dataclass(frozen=True)
class Grid:
    """What the tables cover: least and most of each."""

    gemm_rows: tuple[int, int]
    gemm_columns: tuple[int, int]
    gemm_inner: tuple[int, int]
    heads: tuple[tuple[int, int], ...]
    """Heads and KV heads of one device."""
    head_dims: tuple[int, ...]
    prompt_tokens: tuple[int, int]
    context_tokens: tuple[int, int]
    """Of one decode."""
    sequences: tuple[int, int]
    """Decodes of one iteration."""


@dataclass(frozen=True)
class Operators:
    """The fitted operators of one device."""

    name: str
    hardware: Hardware
    """For what the tables lack: links, bandwidth, launches of element-wise operators, memory."""
    gemms: Mapping[str, GemmCosts]
    """By dtype, one of :data:`DTYPES`."""
    prefill: PrefillCosts
    decode: DecodeCosts
    grid: Grid
    source: str
    errors: Mapping[str, Mapping[str, float]]
    """By operator: median, p90, bias of rows that were kept aside."""

    def gemm(self, dtype: str) -> GemmCosts:
        """Matrix multiplications in ``dtype``. Raises :class:`ProfileError` with the choices."""
        if dtype not in self.gemms:
            raise ProfileError(f"profile {self.name} has no matrices in {dtype!r}; it has {', '.join(self.gemms)}")
        return self.gemms[dtype]

    def provenance(self, dtype: str) -> str:
        """Source, and the errors on rows kept aside."""
        used = (f"gemm {dtype}", "prefill attention", "decode attention")
        told = ", ".join(
            f"{name} {self.errors[name]['median']:.1%} (P90 {self.errors[name]['p90']:.1%})" for name in used
        )
        return f"operators fitted to {self.source}; median relative error on rows kept aside: {told}"


def matrices(model: ModelShape, tp: int) -> tuple[tuple[str, float, float], ...]:
    """Name, columns and inner dimension of one layer's matrices on one of ``tp`` devices."""
    queries, inner = model.query_dim / tp, model.intermediate / tp
    return (
        ("QKV", queries + 2 * model.kv_dim_per_device(tp), model.hidden),
        ("O", model.hidden, queries),
        ("up", (2 if model.gated_mlp else 1) * inner, model.hidden),
        ("down", model.hidden, inner),
    )


def beyond_the_tables(operators: Operators, model: ModelShape, tp: int) -> list[str]:
    """Where this model leaves what was measured; empty: nowhere."""
    grid, found = operators.grid, []
    for name, columns, inner in (*matrices(model, tp), ("head", model.vocab / tp, model.hidden)):
        for what, size, (least, most) in (("columns", columns, grid.gemm_columns), ("inner", inner, grid.gemm_inner)):
            if not least <= size <= most:
                found.append(f"{name} matrix of {size:g} {what} (tables: {least} to {most})")
    heads = (model.heads // tp, max(1, model.kv_heads // tp))
    if heads not in grid.heads:
        found.append(f"attention of {heads[0]} heads over {heads[1]} KV heads per device")
    if model.head_dim not in grid.head_dims:
        found.append(f"head dimension {model.head_dim} (tables: {', '.join(map(str, grid.head_dims))})")
    for what, (_, most) in (("prompts", grid.prompt_tokens), ("contexts", grid.context_tokens)):
        if model.max_context_tokens > most:
            found.append(f"{what} above {most} tokens")
    return [*found, f"iterations above {grid.gemm_rows[1]} tokens or {grid.sequences[1]} decodes"]


def weight_bytes(model: ModelShape, dtype: str) -> float:
    """Of the whole model: layers in ``dtype``, embeddings and head in bfloat16."""
    layers = model.parameters - model.embedding_parameters
    return layers * DTYPES[dtype] + 2 * model.embedding_parameters


def open_operators(text: str | Path) -> tuple[Operators, str] | None:
    """The profile and dtype that ``h100``, ``h100:fp8`` or ``mine.json:fp8`` names; None: it is of another format.

    Without a dtype bf16. Raises :class:`ProfileError` for a file that is one of ours and damaged.
    """
    path, _, dtype = str(text).rpartition(":")
    if dtype not in DTYPES:
        path, dtype = str(text), "bf16"
    source = _FOLDER / f"{path}.json" if path in SHIPPED else Path(path)
    if source.suffix != ".json" or not source.is_file():
        return None
    data = _content(source)
    return None if data is None else (from_json(source, data), dtype)


def _content(source: Path) -> dict[str, Any] | None:
    try:
        data: Any = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot read {source}: {reason(error)}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        return None
    if data.get("version") != VERSION:
        raise ProfileError(f"{source}: version {data.get('version')!r} of {FORMAT}; allowed: {VERSION}")
    return data


def from_json(source: Path, data: Mapping[str, Any]) -> Operators:
    """Raises :class:`ProfileError` naming the file and what is wrong in it."""
    try:
        return Operators(
            name=str(data["name"]),
            hardware=hardware(data["hardware"]),
            gemms={str(dtype): _gemm(costs) for dtype, costs in data["gemm"].items()},
            prefill=PrefillCosts(**data["prefill_attention"]),
            decode=DecodeCosts(**data["decode_attention"]),
            grid=Grid(**{key: _tuples(value) for key, value in data["grid"].items()}),
            source=str(data["source"]),
            errors=data["errors"],
        )
    except ProfileError as error:
        raise ProfileError(f"{source}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"{source}: {error!r}: a key is missing, unknown or of the wrong type") from error


def _gemm(costs: Mapping[str, Any]) -> GemmCosts:
    rows, sm_count = tuple(map(int, costs["rows"])), int(costs["sm_count"])
    return GemmCosts(rows, tuple(tuple(map(float, each)) for each in costs["seconds"]), sm_count)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else int(value)
