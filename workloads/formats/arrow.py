"""Numbers between Arrow and numpy through their buffers.

pyarrow's own conversions (``to_numpy``, ``pa.array``) import pandas where it is installed, which takes longer than
reading a trace. Arrow ships no types, hence ``Any``.
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
    bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(np.bool_)


def floats(array: Any) -> NDArray[np.float64]:
    """An array of numbers as floats; null becomes NaN. Integers beyond 2^53 are rounded."""
    import pyarrow as pa

    numbers = _values(array.cast(pa.float64(), safe=False), np.dtype(np.float64))
    return np.where(valid(array), numbers, np.nan)


def integers(array: Any) -> NDArray[np.int64]:
    """An array of integers; null becomes -1, and so do unsigned ones beyond 2^63-1."""
    import pyarrow as pa

    numbers = _values(array.cast(pa.int64(), safe=False), np.dtype(np.int64))
    return np.where(valid(array), np.maximum(numbers, -1), -1)


def _values(array: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array), dtype=dtype)
    return np.frombuffer(buffer, dtype=dtype, count=array.offset + len(array))[array.offset :]


def to_arrow(column: NDArray[Any], arrow_type: Any) -> Any:
    """A numpy column as an Arrow array of the same width, without nulls."""
    import pyarrow as pa

    return pa.Array.from_buffers(arrow_type, len(column), [None, pa.py_buffer(np.ascontiguousarray(column))])
