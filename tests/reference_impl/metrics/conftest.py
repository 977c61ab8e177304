"""Hand-made event logs whose token times are known."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reference_impl.events import SCHEMA, Event
from reference_impl.metrics import RunLog, read

COLOCATED = {"id": 0, "role": "colocated", "kv_blocks": 100, "block_tokens": 16, "devices": 1}
MakeRun = Callable[..., RunLog]


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., Path]:
    def write(events: Sequence[Event], name: str = "events.parquet", **metadata: Any) -> Path:
        told: Mapping[str, Any] = {"schema_version": 1, "instances": [COLOCATED], "slo": None, **metadata}
        schema = SCHEMA.with_metadata({b"semiflow": json.dumps(told).encode()})
        rows = [event._asdict() for event in events]
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def make_run(write_log: Callable[..., Path]) -> MakeRun:
    def make(events: Sequence[Event], **metadata: Any) -> RunLog:
        return read(write_log(events, **metadata))

    return make


@pytest.fixture
def two_requests() -> list[Event]:
    """One colocated instance. Request 0: tokens at 1.0, 1.5, 1.75, 2.0, 2.75, 3.75. Request 1: tokens at 2.5, 2.75."""
    return [
        Event(0.0, "arrive", 0, tokens=32),
        Event(0.0, "dispatch", 0, 0),
        Event(0.25, "admit", 0, 0, tokens=16),
        Event(1.0, "prefilled", 0, 0, tokens=1),
        Event(1.0, "run", None, 0, "mixed", 32, 0, 0.25, 1, 1.0, kv_blocks=2),
        Event(1.25, "arrive", 1, tokens=48),
        Event(1.25, "dispatch", 1, 0),
        Event(2.0, "run", None, 0, "mixed", 0, 1, 1.0, 3, 1.5, 0.25, 0.0, kv_blocks=3),
        Event(2.0, "admit", 1, 0, tokens=0),
        Event(2.5, "prefilled", 1, 0, tokens=1),
        Event(2.5, "run", None, 0, "mixed", 48, 0, 2.0, 1, 2.5, kv_blocks=50),
        Event(2.75, "finish", 1, 0, tokens=2),
        Event(2.75, "run", None, 0, "mixed", 0, 2, 2.5, 1, 2.75, kv_blocks=50),
        Event(3.75, "finish", 0, 0, tokens=6),
        Event(3.75, "run", None, 0, "mixed", 0, 1, 2.75, 1, 3.75, kv_blocks=4),
    ]
