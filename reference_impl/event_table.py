"""Rows of several kinds as one Arrow table.

Columns are handed over as buffers: pyarrow's own conversions from numpy and lists import pandas where it is installed,
and decoding a dictionary imports ``pyarrow.compute``; either takes longer than a small simulation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Gathered = Mapping[str, Mapping[str, Sequence[NDArray[Any]]]]
"""Kind -> column name -> parts, one after the other."""
Places = Mapping[str, NDArray[np.int64]]
_NUMPY: dict[pa.DataType, type[np.generic]] = {
    pa.float64(): np.float64,
    pa.int32(): np.int32,
    pa.string(): np.int32,  # codes into the log's texts
}


_NULL = np.iinfo(np.int32).min
"""Stands for null among whole numbers until they are a column."""


def column(cells: Sequence[Any], type_: pa.DataType, texts: dict[str | None, int]) -> NDArray[Any]:
    """Cells of one kind and field as numbers; a text becomes its place in ``texts`` (which grows).

    ``texts`` begins as ``{None: -1}``.
    """
    if type_ == pa.string():
        for text in dict.fromkeys(cells):
            texts.setdefault(text, len(texts) - 1)
        cells = list(map(texts.__getitem__, cells))
    try:
        return np.array(cells, _NUMPY[type_])
    except TypeError:
        return np.array([_NULL if cell is None else cell for cell in cells], _NUMPY[type_])


def interleaved(gathered: Gathered, texts: list[str], schema: pa.Schema) -> pa.Table:
    """One table of the columns of several kinds, its rows ordered by ``time_s`` and, within a moment, by kind.

    A column that a kind lacks is null there. The key is the kind, unless the columns hold a ``kind`` of their own.
    """
    blocks = {
        kind: {name: np.concatenate(parts) for name, parts in columns.items()} for kind, columns in gathered.items()
    }
    times_s = np.concatenate([columns["time_s"] for columns in blocks.values()])
    places = np.empty(len(times_s), np.int64)
    places[np.argsort(times_s, kind="stable")] = np.arange(len(times_s))
    where: dict[str, NDArray[np.int64]] = {}
    start = 0
    for kind, columns in blocks.items():
        where[kind] = places[start : start + len(columns["time_s"])]
        start += len(columns["time_s"])
    arrays = [_array(field, blocks, where, texts, len(times_s)) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(
    field: pa.Field, blocks: Mapping[str, Mapping[str, NDArray[Any]]], where: Places, texts: list[str], count: int
) -> pa.Array:
    if field.name == "kind":
        codes = np.empty(count, np.int32)
        for code, (name, places) in enumerate(where.items(), len(texts)):
            codes[places] = blocks[name].get("kind", code)
        return _texts(codes, [*texts, *where])
    is_text = field.type == pa.string()
    values = np.full(count, -1 if is_text else 0, _NUMPY[field.type])
    present = np.zeros(count, np.bool_)
    for kind, columns in blocks.items():
        if field.name in columns:
            values[where[kind]] = columns[field.name]
            present[where[kind]] = True if field.type == pa.float64() else columns[field.name] != _NULL
    if is_text:
        return _texts(values, texts)
    return pa.Array.from_buffers(field.type, count, [_bitmap(present), pa.py_buffer(values)])


def _texts(codes: NDArray[np.int32], texts: list[str]) -> pa.Array:
    """The texts that ``codes`` index; null where a code is negative."""
    encoded = np.array(
        [*(text.encode(errors="backslashreplace") for text in texts), b""], dtype=object
    )  # the last is that of code -1
    lengths = np.array([len(text) for text in encoded], np.int32)
    ends = np.zeros(len(codes) + 1, np.int32)
    np.cumsum(lengths[codes], out=ends[1:])
    content = pa.py_buffer(b"".join(encoded[codes].tolist()))
    return pa.StringArray.from_buffers(len(codes), pa.py_buffer(ends), content, _bitmap(codes >= 0))


def _bitmap(present: NDArray[np.bool_]) -> pa.Buffer | None:
    """Arrow's validity bits; None where nothing is missing."""
    return None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
