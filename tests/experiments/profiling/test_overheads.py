"""What a deployment adds to iterations, read from an event log that was made with known overheads."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.profiling.overheads import Overheads, overheads
from reference_impl.events import EventLog
from reference_impl.metrics import read

BYTES_PER_TOKEN = 1000.0


def live_log(path: Path, iterations: int, *, transfers: int = 0) -> None:
    """One instance: gaps of 2 ms + 0.1 ms per sequence, one of seven 20 ms longer; requests find it idle 7 ms after
    arriving."""
    gaps = 0
    now_s, request = 1.0, 0
    with EventLog(path, {"schema_version": 1}) as log:
        while iterations > 0:
            arrival_s = now_s
            log.arrive.append((arrival_s, request, 10))
            start_s = arrival_s + 0.007
            log.admit.append((start_s - 0.001, request, 0, "mixed", 0))
            log.arrive.append((start_s + 0.01, request + 1, 10))  # this one finds it busy
            log.admit.append((start_s + 0.3, request + 1, 0, "mixed", 0))
            for place in range(20):
                batch = 1 + place % 8
                end_s = start_s + 0.05
                log.run.append((end_s, 0, "mixed", 0, batch, start_s, 1, end_s, 0.0, 0.0, 1))
                gaps += 1
                tail_s = 0.02 if gaps % 7 == 0 else 0.0
                start_s = end_s + 0.002 + 1e-4 * batch + tail_s
                iterations -= 1
            now_s = start_s + 1.0
            request += 2
        for number in range(transfers):
            tokens = 50 + number
            log.transfer.append((number + 0.003 + tokens * 1e-5, 0, 1, "decode", tokens, float(number)))


def measured(path: Path) -> Overheads | None:
    return overheads([read(path)], BYTES_PER_TOKEN)


def test_the_overheads_of_a_log_are_found(tmp_path: Path) -> None:
    live_log(tmp_path / "events.parquet", 400, transfers=60)
    found = measured(tmp_path / "events.parquet")
    assert found is not None
    mean_s = 0.002 + 1e-4 * 4.5 + 0.02 / 7
    assert found.gap_s + 4.5 * found.gap_sequence_s == pytest.approx(mean_s, rel=0.05)
    assert found.dispatch_delay_s == pytest.approx(0.007)
    assert found.handover_latency_s == pytest.approx(0.003, rel=0.01)
    assert found.handover_bytes_per_s == pytest.approx(1e8, rel=0.01)
    assert found.iterations == 380


def test_a_fleet_that_hands_nothing_over_has_no_handover(tmp_path: Path) -> None:
    live_log(tmp_path / "events.parquet", 100)
    found = measured(tmp_path / "events.parquet")
    assert found is not None
    assert (found.handover_latency_s, found.handover_bytes_per_s) == (None, None)


def test_a_log_that_is_too_short_tells_nothing(tmp_path: Path) -> None:
    live_log(tmp_path / "events.parquet", 10)
    assert measured(tmp_path / "events.parquet") is None


def test_several_runs_are_taken_together(tmp_path: Path) -> None:
    live_log(tmp_path / "first.parquet", 15)
    live_log(tmp_path / "second.parquet", 30)
    assert measured(tmp_path / "first.parquet") is None
    found = overheads([read(tmp_path / name) for name in ("first.parquet", "second.parquet")], BYTES_PER_TOKEN)
    assert found is not None
    assert found.iterations > 30
