"""Requests that a server has served, as a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.catalog import open_trace
from workloads.errors import TraceError
from workloads.formats import parse_bytes, served
from workloads.trace import Trace


def line(request: int, arrival_s: Any, **more: Any) -> dict[str, Any]:
    return {"request": request, "arrival_s": arrival_s, "prompt_tokens": 40, "output_tokens": 5, **more}


def data(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parse(*rows: Any, keep_unfinished: bool = False) -> Trace:
    return served.parse("requests.jsonl", data(*rows), "live", {}, "error", keep_unfinished)


def test_lines_in_any_order_become_arrivals_from_zero_on() -> None:
    trace = parse(line(3, 12.5), line(1, 10.0, prompt_tokens=7), line(2, 10.25))
    assert trace.arrival_s.tolist() == [0.0, 0.25, 2.5]
    assert trace.prompt_tokens.tolist() == [7, 40, 40]
    assert trace.prefix_ids is None
    assert trace.tenant is None


def test_prefixes_and_labels_are_kept() -> None:
    one = line(0, 0.0, prefix_ids=[5, 6], prefix_block_tokens=16, tenant="a", session_id=None, slo_class="x")
    two = line(1, 1.0, prefix_ids=None, prefix_block_tokens=None, tenant=None)
    three = line(2, 2.0, prefix_ids=[5, 7, 8, 9], prefix_block_tokens=16)
    trace = parse(one, two, three)
    assert trace.prefix_ids == ((5, 6), (), (5, 7, 8))  # 40 tokens are three blocks: a longer list is cut
    assert trace.prefix_block_tokens == 16
    assert (trace.tenant, trace.slo_class, trace.session_id) == (("a", "", ""), ("x", "", ""), None)


def test_unfinished_requests_are_left_out_and_counted() -> None:
    rows = line(0, 0.0, outcome="finished"), line(1, 1.0, outcome="rejected"), line(2, 2.0, outcome="cancelled")
    trace = parse(*rows)
    assert len(trace) == 1
    assert trace.metadata["unfinished"] == "2 left out"


def test_unfinished_requests_are_kept_as_they_were_asked_for() -> None:
    rows = line(0, 0.0, max_tokens=99), line(1, 1.0, outcome="failed", output_tokens=0, max_tokens=30)
    trace = parse(*rows, keep_unfinished=True)
    assert trace.output_tokens.tolist() == [5, 30]
    assert trace.metadata["unfinished"] == "1 kept as asked for"


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (line(1, 0.0, prompt_tokens=0), "line 2, column prompt_tokens: 0"),
        (line(1, 0.0, output_tokens="5"), "line 2, column output_tokens: '5'"),
        (line(1, float("inf")), "line 2, column arrival_s: inf"),
        (line(1, True), "line 2, column arrival_s: True"),
        (line(1, 10**400), "line 2, column arrival_s: 1000"),
        (line(0, 0.0), "line 2, column request: 0 is not allowed (allowed: each request once)"),
        (line(-1, 0.0), "line 2, column request: -1"),
        (line(1, 0.0, tenant=3), "line 2, column tenant: 3 is not allowed (allowed: text or null)"),
        (line(1, 0.0, prefix_ids=[-1], prefix_block_tokens=4), "line 2, column prefix_ids: -1"),
        (line(1, 0.0, prefix_ids=[1], prefix_block_tokens=8), "column prefix_block_tokens: 8 is not allowed"),
        (line(1, 2.0, prefix_ids=[2, 1], prefix_block_tokens=4), "line 2, column prefix_ids: (2, 1) is not allowed"),
        ({"request": 1, "arrival_s": 0.0}, "line 2, column prompt_tokens: None"),
        ([], "line 2, column row: '[]'"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(bad: Any, expected: str) -> None:
    good = line(0, 1.0, prefix_ids=[1, 2], prefix_block_tokens=4)
    with pytest.raises(TraceError) as caught:
        parse(good, bad)
    assert expected in str(caught.value)


def test_keeping_an_unfinished_request_needs_its_asked_length() -> None:
    with pytest.raises(TraceError, match="column max_tokens: None"):
        parse(line(0, 0.0, outcome="failed"), keep_unfinished=True)


def test_nothing_finished_is_told() -> None:
    with pytest.raises(TraceError, match=r"no requests .*1 did not finish and were left out"):
        parse(line(0, 0.0, outcome="failed"))


def test_the_file_opens_as_a_trace_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_bytes(data(line(0, 3.0), line(1, 4.0)))
    trace = open_trace(str(tmp_path / "requests.jsonl"))
    assert trace.arrival_s.tolist() == [0.0, 1.0]


VALUE = st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=2) | st.just([1, 2])
ROW = st.dictionaries(
    st.sampled_from(
        [
            *("request", "arrival_s", "prompt_tokens", "output_tokens", "prefix_ids", "prefix_block_tokens"),
            *("tenant", "outcome", "max_tokens"),
        ]
    ),
    VALUE,
    max_size=9,
)


@given(st.lists(ROW, max_size=4), st.booleans(), st.binary(max_size=12))
def test_anything_is_a_trace_or_a_trace_error(rows: list[Any], keep: bool, tail: bytes) -> None:
    message = ""
    try:
        trace = served.parse("x", data(line(0, 0.0), *rows) + tail, "x", {}, "drop", keep)
    except TraceError as error:
        message = str(error)
    else:
        assert len(trace) >= 1
    assert message.isprintable()


def test_mooncake_lines_are_still_told_apart() -> None:
    mooncake = {"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [0]}
    assert parse_bytes("x.jsonl", data(mooncake)).prefix_block_tokens == 512
