"""Tables of measured iterations."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference_impl.latency.api import LatencyModel, Work
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.profile import profile
from reference_impl.latency.table import Table, read_table

HEADER = "batch_size,total_prefill_tokens,total_kv_read_tokens,latency_ms\n"
ROWS = "1,0,0,10\n1,0,1000,20\n8,0,0,20\n8,0,1000,40\n1,256,0,30\n1,256,1000,50\n"


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + ROWS, encoding="utf-8")
    return path


def test_measured_points_come_back(measured: Path) -> None:
    table: LatencyModel = profile(measured)
    assert table.iteration_s(Work((), 1, 1000)) == pytest.approx(0.020)
    assert table.iteration_s(Work((), 8, 1000)) == pytest.approx(0.040)
    assert table.iteration_s(Work(((256, 744),), 0, 0)) == pytest.approx(0.050)


def test_between_points_it_is_linear_in_each_axis(measured: Path) -> None:
    table = read_table(measured)
    assert table.iteration_s(Work((), 1, 500)) == pytest.approx(0.015)
    assert table.iteration_s(Work((), 4, 500)) == pytest.approx(0.015 + 3 / 7 * 0.015)


def test_a_chunk_reads_its_own_tokens_and_those_before(measured: Path) -> None:
    table = read_table(measured)
    assert table.iteration_s(Work(((256, 244),), 0, 0)) == pytest.approx(0.040)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size,latency_ms\n1,2\n", "column 'total_prefill_tokens' is missing"),
        (HEADER + "1,0,0,fast\n", "line 2: latency_ms is 'fast'"),
        (HEADER + "1,0,0,5\n1,0,-3,5\n", "line 3: total_kv_read_tokens is '-3'"),
        (HEADER + "1,0,0,0\n", "line 2: latency_ms is '0'; it must be a number above 0"),
        (HEADER + "1,0\n", "line 2: total_kv_read_tokens is None"),
        (HEADER, "has no rows"),
    ],
)
def test_a_bad_file_names_line_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=message):
        read_table(path)


def test_a_time_of_zero_is_refused() -> None:
    with pytest.raises(ProfileError, match="must be positive"):
        Table("zero", {(1, 0, 0): 0.0})


def test_a_path_that_is_no_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="is neither a profile folder"):
        profile(tmp_path / "nothing.txt")
