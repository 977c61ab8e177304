"""Azure CSV: both years' layouts, and every way a row can be wrong."""

from __future__ import annotations

import gzip

import pytest

from workloads.errors import TraceError
from workloads.formats import parse_bytes
from workloads.settle import Invalid
from workloads.trace import Trace

HEADER = b"TIMESTAMP,ContextTokens,GeneratedTokens"
ROW_1 = b"2023-11-16 18:15:46.6805900,374,44"
ROW_2 = b"2023-11-16 18:15:50.9951690,396,109"


def read(*rows: bytes, invalid: Invalid = "error", end: bytes = b"\r\n") -> Trace:
    return parse_bytes("a.csv", end.join((HEADER, *rows)), invalid)


def test_rows_of_2023_are_read_to_a_hundred_nanoseconds() -> None:
    trace = read(ROW_1, ROW_2, b"2023-11-16 18:15:50.9951691,1,1")
    assert trace.arrival_s.tolist() == [0.0, 4.314579, 4.3145791]
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == ([374, 396, 1], [44, 109, 1])
    assert (trace.name, trace.metadata["rows"], trace.metadata["rows_dropped"]) == ("a", "3", "0")


def test_rows_of_2024_carry_a_time_zone() -> None:
    trace = read(b"2024-05-10 00:00:00.009930+00:00,10,1", b"2024-05-10 02:00:01.009930+02:00,10,1")
    assert trace.arrival_s.tolist() == [0.0, 1.0]


def test_midnight_and_a_leap_day_are_crossed() -> None:
    trace = read(b"2024-02-28 23:59:59.5,1,1", b"2024-02-29T00:00:00,1,1", b"2024-03-01 00:00:00,1,1")
    assert trace.arrival_s.tolist() == [0.0, 0.5, 86_400.5]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_last_line_may_end_or_not_and_gzip_is_seen_through(end: bytes) -> None:
    assert len(read(ROW_1, ROW_2, end=end)) == len(read(ROW_1, ROW_2, b"", end=end)) == 2
    packed = gzip.compress(end.join((HEADER, ROW_1)))
    assert parse_bytes("a.csv.gz", packed).name == parse_bytes("a.csv", packed).name == "a"


BAD_ROWS = [
    (
        b"2023-11-16 18:15:51,0,44",
        r"column prompt_tokens \(ContextTokens\): 0 is not allowed \(allowed: integers 1\.\.",
    ),
    (b"2023-11-16 18:15:51,-3,44", r"column prompt_tokens \(ContextTokens\): -3"),
    (b"2023-11-16 18:15:51,12,0", r"column output_tokens \(GeneratedTokens\): 0"),
    (b"2023-11-16 18:15:51,12,9999999999", r"column output_tokens \(GeneratedTokens\): 9999999999"),
    (b"2023-11-16 18:15:51,12," + b"9" * 5_000, "column GeneratedTokens: '9999"),
    (b"2023-11-16 18:15:51,1.5,44", r"column ContextTokens: '1\.5'"),
    (b"2023-11-16 18:15:51,nan,44", "column ContextTokens: 'nan'"),
    (b"2023-11-16 18:15:51, 7,44", "column ContextTokens: ' 7'"),
    (b"2023-11-16 18:15:51,\xd9\xa3,44", "column ContextTokens"),
    (b"2023-11-16 18:15:51,\xff,44", "column ContextTokens"),
    (b"2023-11-16 18:15:51,12", "column row: '2023-11-16 18:15:51,12'.*three cells"),
    (b"2023-11-16 18:15:51,12,3,4", "column row"),
    (b"", "column row: ''"),
    (b"XXX,12,3", "column TIMESTAMP: 'XXX'"),
    (b"2023-02-30 18:15:51,12,3", "column TIMESTAMP"),
    (b"2023-11-16 24:00:00,12,3", "column TIMESTAMP"),
    (b"2023-11-16 18:15:60,12,3", "column TIMESTAMP"),
    (b"2023-11-16 18:15:51.1234567890,12,3", "column TIMESTAMP"),
    (b"2023-11-16 18:15:51+00:00,12,3", "column TIMESTAMP: .*a time zone in all rows or in none"),
    (b"2023-11-16 18:15:40,12,3", r"column arrival_s \(TIMESTAMP\): -6.68.*ascending"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_a_bad_row_is_refused_with_its_line_and_value(row: bytes, message: str) -> None:
    with pytest.raises(TraceError, match=r"a\.csv, line 3, " + message) as caught:
        read(ROW_1, row, ROW_2)
    assert "1 of 3 rows are invalid" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_a_bad_row_can_be_dropped_and_is_counted(row: bytes, message: str) -> None:
    trace = read(ROW_1, row, ROW_2, invalid="drop")
    assert trace.prompt_tokens.tolist() == [374, 396]
    assert (trace.metadata["rows"], trace.metadata["rows_dropped"]) == ("3", "1")
    assert trace.metadata["rows_dropped_examples"].startswith("line 3: ")


def test_times_count_from_the_first_row_that_is_kept() -> None:
    trace = read(b"2023-11-16 18:15:40,0,3", ROW_1, ROW_2, invalid="drop")
    assert trace.arrival_s[0] == 0.0


def test_one_time_far_ahead_costs_only_its_own_row() -> None:
    trace = read(b"2999-01-01 00:00:00,5,5", ROW_1, ROW_2, invalid="drop")
    assert trace.prompt_tokens.tolist() == [374, 396]
    assert trace.arrival_s.tolist() == pytest.approx([0.0, 4.314579])


@pytest.mark.parametrize("invalid", ["error", "drop"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no known trace format|not the header"),
        (HEADER, "no requests"),
        (HEADER + b"\n", "no requests"),
        (b"TIMESTAMP,Context\n1,2\n", "line 1: .*not the header"),
        (HEADER + b"\nsoon,1,2\n", "1 of 1 rows are invalid"),
    ],
)
def test_a_file_without_a_usable_row_is_refused(data: bytes, message: str, invalid: Invalid) -> None:
    with pytest.raises(TraceError, match=message):
        parse_bytes("a.csv", data, invalid)
