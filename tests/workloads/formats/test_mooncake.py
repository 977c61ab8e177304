"""Mooncake JSONL: hash ids, and every way a row can be wrong."""

from __future__ import annotations

import json

import pytest

from workloads.errors import TraceError
from workloads.formats import parse_bytes
from workloads.settle import Invalid
from workloads.trace import Trace


def row(timestamp: object = 0, prompt: object = 600, output: object = 5, ids: object = (0, 1)) -> str:
    return json.dumps({"timestamp": timestamp, "input_length": prompt, "output_length": output, "hash_ids": ids})


def read(*rows: str, invalid: Invalid = "error") -> Trace:
    return parse_bytes("m.jsonl", "\n".join(rows).encode(), invalid)


def test_milliseconds_and_blocks_of_512_tokens() -> None:
    trace = read(row(), row(1_500, 512, 7, [0]), row(1_500, 1_537, 7, [0, 2, 3, 4]), "")
    assert trace.arrival_s.tolist() == [0.0, 1.5, 1.5]
    assert trace.prompt_tokens.tolist() == [600, 512, 1_537]
    assert trace.prefix_ids == ((0, 1), (0,), (0, 2, 3, 4))
    assert trace.prefix_block_tokens == 512


BAD_ROWS = [
    (row(timestamp=-1), "column timestamp: -1 .*milliseconds >= 0"),
    (row(timestamp=float("nan")), "column timestamp: nan"),
    (row(timestamp=10**400), "column timestamp: 1000"),
    (row(timestamp="1"), "column timestamp: '1'"),
    (row(timestamp=True), "column timestamp: True"),
    (row(prompt=0, ids=[]), "column input_length: 0"),
    (row(prompt=600.0), r"column input_length: 600\.0"),
    (row(prompt=None), "column input_length: None"),
    (row(output=0), r"column output_length: 0 is not allowed \(allowed: integers 1\.\."),
    (row(output=2**31), "column output_length: 2147483648"),
    (row(ids=[0]), r"column hash_ids: '1 ids' .*2, one per 512 of 600 prompt tokens"),
    (row(ids=[0, 1, 2]), "column hash_ids: '3 ids'"),
    (row(ids=[0, -1]), "column hash_ids: -1"),
    (row(ids=[0, True]), "column hash_ids: True"),
    (row(ids=[0, 2**63]), "column hash_ids: 9223372036854775808"),
    (row(ids=[0, [1]]), r"column hash_ids: \[1\]"),
    (row(ids="01"), "column hash_ids: '01'"),
    (row(ids=[7, 1]), r"column prefix_ids \(hash_ids\): \(7, 1\) .*chained"),
    ('{"timestamp": 0, "input_length": 4}', "column output_length: None .*JSON object with"),
    ('{"timestamp": 0, "input_le', "column row: .*one JSON object per line"),
    ("[]", "column row"),
    ("", "column row"),
    ("[" * 100_000, "column row"),
    ("9" * 10_000, "column row"),
    (row(timestamp=-5), "column timestamp"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_ROWS)
def test_a_bad_row_is_refused_or_dropped(bad: str, message: str) -> None:
    with pytest.raises(TraceError, match=r"m\.jsonl, line 2, " + message) as caught:
        read(row(), bad, row(2_000))
    assert "1 of 3 rows are invalid" in str(caught.value)
    kept = read(row(), bad, row(2_000), invalid="drop")
    assert kept.arrival_s.tolist() == [0.0, 2.0]
    assert kept.metadata["rows_dropped"] == "1"


def test_rows_out_of_order_are_refused_or_as_few_as_possible_dropped() -> None:
    rows = [row(0), row(9_000), row(1_000), row(2_000), row(2_000)]
    with pytest.raises(TraceError, match=r"line 2, column arrival_s \(timestamp\): 9\.0 .*ascending"):
        read(*rows)
    assert read(*rows, invalid="drop").arrival_s.tolist() == [0.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize("data", [b"", b"\n", b"{}", b"\xff\xfe", b"{" * 1_000])
@pytest.mark.parametrize("invalid", ["error", "drop"])
def test_a_file_without_a_usable_row_is_refused(data: bytes, invalid: Invalid) -> None:
    with pytest.raises(TraceError, match=r"m\.jsonl"):
        parse_bytes("m.jsonl", data, invalid)
