"""Start-up time of one process."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from types import ModuleType


def keep_pandas_out_of_pyarrow() -> None:
    """Save 0.3 s: pyarrow imports pandas at the first conversion, only to ask whether a value is one of its objects.

    It asks once and remembers the answer, so pandas is made to look absent for that moment. Afterwards pandas can be
    imported as ever; only pyarrow's own conversions to and from it are off in this process. No part of semiflow uses
    them, but others may: call this from a process of our own, not from a library function.
    """
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, _path: object, _target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not needed here", name="pandas")
