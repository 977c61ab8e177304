"""Between Arrow and numpy through their buffers.

pyarrow's own conversions (``to_numpy``, ``cast``, ``pa.array``) import pandas where it is installed, or
``pyarrow.compute``, which takes longer than reading a trace. Arrow ships no types, hence ``Any``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def valid(array: Any) -> NDArray[np.bool_]:
    """Which entries of an array are not null."""
    bitmap = array.buffers()[0]
    if array.null_count == 0 or bitmap is None:
        return np.full(len(array), array.null_count == 0)
    start, skipped = divmod(array.offset, 8)
    packed = np.frombuffer(bitmap, dtype=np.uint8, offset=start)
    return np.unpackbits(packed, count=skipped + len(array), bitorder="little")[skipped:].astype(np.bool_)


def floats(array: Any) -> NDArray[np.float64]:
    """An array of numbers as floats; null becomes NaN. Integers beyond 2^53 are rounded."""
    return np.where(valid(array), _values(array).astype(np.float64), np.nan)


def integers(array: Any) -> NDArray[np.int64]:
    """An array of numbers as integers; null becomes -1, fractions are cut off, unsigned ones beyond 2^63-1 negative."""
    present, numbers = valid(array), _values(array)
    # what lies under a null is anything, NaN included, which is no integer
    return np.where(present, np.where(present, numbers, numbers.dtype.type(0)).astype(np.int64), -1)


def texts(array: Any) -> tuple[list[str], NDArray[np.int64]]:
    """A dictionary-encoded array of texts: the texts, and for each entry its place among them, -1 for null."""
    return array.dictionary.to_pylist(), integers(array.indices)


def is_number(arrow_type: Any) -> bool:
    """Whether :func:`floats` and :func:`integers` read arrays of this type."""
    import pyarrow as pa

    return bool(pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type))


def is_text(arrow_type: Any) -> bool:
    """Whether :func:`texts` reads a parquet column of this type, once ``read_dictionary`` names it."""
    import pyarrow as pa

    text = arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type
    return str(text) in ("string", "large_string", "string_view")


def _values(array: Any) -> NDArray[Any]:
    """The numbers as they lie there, whatever a null covers. Raises TypeError where they are no numbers."""
    import pyarrow as pa

    if not is_number(array.type):
        raise TypeError(f"an Arrow array of {array.type} (allowed: integers, floats)")
    kind = "f" if pa.types.is_floating(array.type) else "i" if pa.types.is_signed_integer(array.type) else "u"
    dtype, buffer = np.dtype(f"{kind}{array.type.bit_width // 8}"), array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array), dtype=dtype)
    return np.frombuffer(buffer, dtype=dtype, count=len(array), offset=array.offset * dtype.itemsize)


def to_arrow(column: NDArray[Any], arrow_type: Any) -> Any:
    """A numpy column as an Arrow array of the same width, without nulls."""
    import pyarrow as pa

    return pa.Array.from_buffers(arrow_type, len(column), [None, pa.py_buffer(np.ascontiguousarray(column))])
