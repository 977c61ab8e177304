"""BurstGPT CSV: both column sets, failures, sessions."""

from __future__ import annotations

import pytest

from workloads.errors import TraceError
from workloads.formats import parse_bytes
from workloads.settle import Invalid
from workloads.trace import Trace

FIRST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
LATER = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"


def read(header: str, *rows: str, invalid: Invalid = "error") -> Trace:
    return parse_bytes("b.csv", "\n".join((header, *rows)).encode(), invalid)


def test_the_first_files_count_from_their_first_row() -> None:
    trace = read(FIRST, "5,ChatGPT,472,18,490,Conversation log", "45,ChatGPT,1087,230,1317,API log")
    assert trace.arrival_s.tolist() == [0.0, 40.0]
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == ([472, 1087], [18, 230])
    assert trace.session_id is None
    assert trace.parent_row is None


def test_columns_are_found_by_name_and_numbers_of_pandas_are_read() -> None:
    trace = read("Response tokens,Request tokens,Timestamp", "18.0,472.0,5.5", "1,2,6.25")
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == ([472, 2], [18, 1])
    assert trace.arrival_s.tolist() == [0.0, 0.75]


def test_failures_are_invalid_rows() -> None:
    rows = "5,ChatGPT,472,18,490,API log", "6,ChatGPT,10,0,10,API log"
    with pytest.raises(TraceError, match=r"b\.csv, line 3, column output_tokens \(Response tokens\): 0 is not allowed"):
        read(FIRST, *rows)
    assert read(FIRST, *rows, invalid="drop").metadata["rows_dropped"] == "1"


def test_a_turn_follows_the_answer_before_it_and_the_rest_of_the_gap_is_the_pause() -> None:
    trace = read(
        LATER,
        "0,s1,2.5,GPT-4,10,5,15,Conversation log",
        "1,,,GPT-4,10,5,15,API log",
        "10,s1,4,GPT-4,20,5,25,Conversation log",
        "12,s1,1,GPT-4,30,5,35,Conversation log",
    )
    assert trace.session_id == ("s1", "", "s1", "s1")
    assert trace.turn is not None
    assert trace.parent_row is not None
    assert trace.think_s is not None
    assert trace.turn.tolist() == [0, 0, 1, 2]
    assert trace.parent_row.tolist() == [-1, -1, 0, -1], "the last came before the answer: it waited for nobody"
    assert trace.think_s.tolist() == [0.0, 0.0, 7.5, 0.0]


def test_nobody_follows_a_failure() -> None:
    trace = read(
        LATER,
        "0,s,1,GPT-4,10,5,15,Conversation log",
        "5,s,1,GPT-4,10,0,10,Conversation log",
        "9,s,1,GPT-4,10,5,15,Conversation log",
        invalid="drop",
    )
    assert trace.parent_row is not None
    assert trace.think_s is not None
    assert (trace.parent_row.tolist(), trace.think_s.tolist()) == ([-1, 0], [0.0, 8.0])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,,,GPT-4,1,1,2,API log", "column Timestamp: 'x'"),
        ("1_0,,,GPT-4,1,1,2,API log", "column Timestamp: '1_0'"),
        ("nan,,,GPT-4,1,1,2,API log", "column Timestamp: 'nan'"),
        ("1,,,GPT-4,1.5,1,2,API log", r"column Request tokens: '1\.5'"),
        ("1,,,GPT-4,,1,2,API log", "column Request tokens: ''"),
        ("1,s,soon,GPT-4,1,1,2,API log", "column Elapsed time: 'soon'"),
        ("1,,,GPT-4,1,1,2", "column row.*8 cells"),
    ],
)
def test_a_bad_row_is_refused_or_dropped_and_counted(row: str, message: str) -> None:
    good = "0,,,GPT-4,1,1,2,API log"
    with pytest.raises(TraceError, match=message):
        read(LATER, good, row)
    trace = read(LATER, good, row, invalid="drop")
    assert (len(trace), trace.metadata["rows"], trace.metadata["rows_dropped"]) == (1, "2", "1")
