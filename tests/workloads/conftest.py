"""Traces that the tests of this package share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from workloads.trace import Trace


@pytest.fixture
def small_trace() -> Trace:
    """Six requests with every column; 4-token blocks; requests 0, 2 and 4 share their first block."""
    return Trace(
        name="small",
        arrival_s=np.array([0.0, 1.0, 1.0, 2.5, 4.0, 10.0]),
        prompt_tokens=np.array([8, 5, 9, 1, 4, 12]),
        output_tokens=np.array([3, 1, 7, 2, 100, 4]),
        prefix_ids=((0, 1), (2, 3), (0, 4, 5), (), (0,), (6, 7, 8)),
        prefix_block_tokens=4,
        session_id=("a", "b", "a", "c", "a", "d"),
        tenant=("x", "x", "y", "y", "x", "x"),
        slo_class=("chat",) * 6,
        turn=np.array([0, 0, 1, 0, 2, 0]),
        parent_row=np.array([-1, -1, 0, -1, 2, -1]),
        think_s=np.array([0.0, 0.0, 0.5, 0.0, 1.25, 0.0]),
        metadata={"licence": "none"},
    )


@pytest.fixture
def assert_same() -> Callable[[Trace, Trace], None]:
    """Fails unless two traces agree in every field, metadata included."""

    def compare(left: Trace, right: Trace) -> None:
        for entry in fields(Trace):
            one, other = getattr(left, entry.name), getattr(right, entry.name)
            if isinstance(one, np.ndarray):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other, err_msg=entry.name)
            else:
                assert one == other, entry.name

    return compare


@pytest.fixture
def traces_folder() -> Path:
    """The folder of public traces on this machine."""
    folder = os.environ.get("SEMIFLOW_TRACES")
    if not folder:
        pytest.skip("SEMIFLOW_TRACES is not set: the public traces are not at hand")
    return Path(folder)


@pytest.fixture
def no_traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """SEMIFLOW_TRACES unset and an empty cache folder, which is returned."""
    monkeypatch.delenv("SEMIFLOW_TRACES", raising=False)
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("SEMIFLOW_CACHE", str(cache))
    return cache
