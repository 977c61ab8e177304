"""Same deployment, trace and seed: the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.registry import PolicySpec
from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.simulator import simulate
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]


@pytest.mark.parametrize(
    "dispatch",
    [
        "random",
        "power_of_two",
        "prefix_affinity",
        "kv_cost:temperature=0.5",
        "weighted_scorers",
        "preble_e2",
        "mooncake",
    ],
)
def test_same_seed_gives_a_byte_identical_log_and_another_seed_does_not(
    deploy: Deploy, tmp_path: Path, dispatch: str
) -> None:
    rng = np.random.default_rng(5)
    trace = Trace(
        "drawn",
        np.cumsum(rng.exponential(0.01, 300)),
        rng.integers(1, 300, 300).astype(np.int32),
        rng.integers(1, 50, 300).astype(np.int32),
    )

    def log_of(name: str, seed: int) -> bytes:
        spec = replace(
            deploy(*["colocated"] * 3), dispatch=PolicySpec.parse(dispatch, "dispatch").build(seed), seed=seed
        )
        with EventLog(tmp_path / name, {"seed": 0}) as log:
            simulate(spec, trace, log)
        return (tmp_path / name).read_bytes()

    assert log_of("a", 1) == log_of("b", 1)
    if dispatch not in ("prefix_affinity", "preble_e2", "mooncake"):
        assert log_of("a", 1) != log_of("c", 2)


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with EventLog(tmp_path / "events.parquet") as log:
            log.arrive.append((0.0, 0, 1))
            log.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_rows_are_ordered_by_time_then_kind() -> None:
    log = EventLog(None, {"seed": 3})
    log.arrive.append((2.0, 1, 10))
    log.finish.append((2.0, 0, 0, "mixed", 5))
    log.run.append((2.0, 0, "mixed", 0, 1, 1.0, 2, 1.5, 0.5, 0.0, 7))
    log.arrive.append((0.5, 0, 10))
    rows: list[dict[str, Any]] = log.table().to_pylist()
    assert [(row["time_s"], row["kind"]) for row in rows] == [
        (0.5, "arrive"), (2.0, "run"), (2.0, "finish"), (2.0, "arrive"),
    ]  # fmt: skip
    assert rows[1]["kv_blocks"] == 7
    assert rows[1]["request"] is None
