"""Whose request it was, and of which SLO class: the labels of every request in an event log's metadata.

The key ``labels`` holds, for each of :data:`LABELS` that any request has, ``{"names": [...], "codes": TEXT}``: the
codes are places in ``names``, one for each request number from 0 on, as little-endian int32, compressed by zlib, in
base64. The empty name is none. A log without labels has no such key.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABELS = ("tenant", "slo_class")
Labels = tuple[tuple[str, ...], NDArray[np.int64]]
"""Names, and for each request the place of its own."""


def packed(columns: Mapping[str, Sequence[str | None] | None]) -> dict[str, Any]:
    """Metadata that says the labels of requests 0, 1, ...; empty where no request has one."""
    told = {}
    for kind in LABELS:
        column = columns.get(kind)
        if column is not None and any(column):
            names = sorted({name or "" for name in column})
            place = {name: code for code, name in enumerate(names)}
            codes = np.array([place[name or ""] for name in column], "<i4")
            told[kind] = {"names": names, "codes": base64.b64encode(zlib.compress(codes.tobytes())).decode()}
    return {"labels": told} if told else {}


def unpacked(metadata: Mapping[str, Any], kind: str, requests: NDArray[np.int64]) -> Labels | None:
    """The labels of a kind of these requests; None: the log has none. One that the log does not know has no name."""
    told = metadata.get("labels", {}).get(kind)
    if told is None:
        return None
    codes = np.frombuffer(zlib.decompress(base64.b64decode(told["codes"])), "<i4")
    names = (*told["names"], "")
    known = requests < len(codes)
    return names, np.where(known, codes[np.where(known, requests, 0)], len(names) - 1).astype(np.int64)
