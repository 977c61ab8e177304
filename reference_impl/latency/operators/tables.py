"""Read AIConfigurator's operator tables: matrix multiplication, prefill attention and decode attention in bfloat16.

``gemm.parquet``                       gemm_dtype, m, n, k, latency_ms
``context_attention_bf16.parquet``     batch_size, isl, num_heads, num_key_value_heads, head_dim, latency_ms
``generation_attention_bf16.parquet``  the same and step: the context is isl + step

Each with the columns ``system`` (``h100_sxm``) and ``source`` (``vllm 0.24.0``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_impl.latency.errors import ProfileError, reason

GEMM, PREFILL, DECODE = "gemm.parquet", "context_attention_bf16.parquet", "generation_attention_bf16.parquet"
FILES = (GEMM, PREFILL, DECODE)
_ATTENTION = ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim")
COLUMNS = {
    GEMM: ("m", "n", "k"),
    PREFILL: _ATTENTION,
    DECODE: (*_ATTENTION, "step"),
}
Columns = Mapping[str, NDArray[Any]]


def read_table(folder: str | Path, file: str, system: str) -> Columns:
    """The rows of one system: whole numbers by column, ``seconds``, ``source``, and of GEMM ``gemm_dtype``.

    Raises :class:`ProfileError` naming file and column, and for a system that the file does not have.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(folder) / file
    texts = ("system", "source", "gemm_dtype") if file == GEMM else ("system", "source")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ProfileError(f"cannot read {path}: {reason(error)}") from error
    absent = [name for name in (*COLUMNS[file], *texts, "latency_ms") if name not in table.column_names]
    if absent:
        raise ProfileError(f"{path}: column {absent[0]!r} is missing; it needs {', '.join(COLUMNS[file])}, latency_ms")
    systems = np.asarray(table["system"].to_pylist())
    chosen = systems == system
    if not chosen.any():
        raise ProfileError(f"{path} has no rows of system {system!r}; it has {', '.join(sorted(set(systems)))}")
    columns = {name: np.asarray(table[name].to_pylist())[chosen] for name in (*COLUMNS[file], *texts)}
    seconds = 1e-3 * np.asarray(table["latency_ms"].to_pylist(), np.float64)[chosen]
    if not (seconds > 0).all() or not np.isfinite(seconds).all():
        raise ProfileError(f"{path}: a latency_ms of {system} is {1e3 * seconds.min():g}; it must be above 0")
    return {**columns, "seconds": seconds}
