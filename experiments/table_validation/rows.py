"""Read a table of measured benchmarks in the columns of AIConfigurator's ``silicon_sample.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.config_base import ConfigError
from reference_impl.latency.errors import reason

_COLUMNS = (
    *("id", "backend", "model_path", "system", "precision", "mode", "isl", "osl", "gemm_quant_mode", "batch_size"),
    *("tp_size", "pp_size", "silicon_ttft_ms", "silicon_tpot_ms"),
)


class Group(NamedTuple):
    """Rows that are fitted or tested as a whole."""

    backend: str
    model: str
    """Our name, such as ``llama-3.1-8b``; a quantised copy is no other model."""
    tp: int


class Row(NamedTuple):
    """One benchmark: so many users with fixed lengths."""

    id: str
    group: Group
    system: str
    precision: str
    """``bf16`` or ``fp8``."""
    dtype: str
    """Of the matrices: ``bf16``, ``fp8`` or ``fp8_block``."""
    concurrency: int
    prompt_tokens: int
    output_tokens: int
    pipeline: int
    mode: str
    ttft_ms: float
    tpot_ms: float


def read_rows(path: Path) -> list[Row]:
    """Raises ConfigError naming file, line, column and value."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            absent = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if absent:
                raise ConfigError(f"{path}: column {absent[0]!r} is missing; it needs {', '.join(_COLUMNS)}")
            rows = [_row(f"{path}, line {line}", cells) for line, cells in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read {path}: {reason(error)}; name a CSV of measured benchmarks") from error
    if not rows:
        raise ConfigError(f"{path} has no rows")
    return rows


def _row(where: str, cells: Mapping[str, str]) -> Row:
    precision = cells["precision"] or "bf16"
    return Row(
        id=cells["id"],
        group=Group(cells["backend"], _model(cells["model_path"]), _whole(where, cells, "tp_size")),
        system=cells["system"],
        precision=precision,
        dtype=cells["gemm_quant_mode"] or precision,
        concurrency=_whole(where, cells, "batch_size"),
        prompt_tokens=_whole(where, cells, "isl"),
        output_tokens=_whole(where, cells, "osl"),
        pipeline=_whole(where, cells, "pp_size"),
        mode=cells["mode"],
        ttft_ms=_number(where, cells, "silicon_ttft_ms"),
        tpot_ms=_number(where, cells, "silicon_tpot_ms"),
    )


def _model(path: str) -> str:
    """Our name of the model; one that we do not know keeps its own."""
    from reference_impl.latency import ProfileError, model

    try:
        return model(path.removesuffix("-FP8")).name
    except ProfileError:
        return path


def _whole(where: str, cells: Mapping[str, str], column: str) -> int:
    value = _number(where, cells, column)
    if value != int(value):
        raise ConfigError(f"{where}: {column} is {cells[column]!r}; it must be a whole number")
    return int(value)


def _number(where: str, cells: Mapping[str, str], column: str) -> float:
    try:
        value = float(cells[column])
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 < value < 1e9:
        raise ConfigError(f"{where}: {column} is {cells[column]!r}; it must be a number above 0")
    return value
