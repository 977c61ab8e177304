"""Vidur's CSV, and tables of lengths that need arrivals."""

from __future__ import annotations

from pathlib import Path

import pytest

from workloads.errors import TraceError
from workloads.formats import Reading, open_file, parse_bytes
from workloads.synthetic import Poisson

NANOFLOW = b"TIMESTAMP,ContextTokens,GeneratedTokens\nXXX,42,285\nXXX,19,82\n"
VIDUR_LENGTHS = (
    b"num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n3772,54,3826,69.8\n2015,156,2171,12.9\n"
)


def test_vidurs_traces_keep_their_clock_and_labels() -> None:
    data = b"arrived_at,num_prefill_tokens,num_decode_tokens,tenant\r\n0.5,10,1,a\r\n1.25,20,2,b\r\n"
    trace = parse_bytes("v.csv", data)
    assert (trace.arrival_s.tolist(), trace.prompt_tokens.tolist()) == ([0.5, 1.25], [10, 20])
    assert trace.tenant == ("a", "b")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"arrived_at,num_prefill_tokens,num_decode_tokens\n-1,10,1\n", r"column arrival_s \(arrived_at\): -1.0"),
        (b"arrived_at,num_prefill_tokens,num_decode_tokens\n1,10,0\n", r"output_tokens \(num_decode_tokens\): 0"),
        (b"arrived_at,num_prefill_tokens,num_decode_tokens\n", "no requests"),
        (b"arrived_at,num_prefill_tokens,num_decode_tokens,arrived_at\n1,1,1,1", "names arrived_at twice"),
        (b"when,prompt\n1,2\n", r"v\.csv, line 1: 'when,prompt' is not the header of a known CSV"),
        (b'[{"id": "x", "conversations": []}]', "ShareGPT's texts have no lengths until a tokenizer"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        parse_bytes("v.csv", data)


@pytest.mark.parametrize("data", [NANOFLOW, VIDUR_LENGTHS])
def test_lengths_need_arrivals_and_keep_prompt_and_output_together(data: bytes) -> None:
    with pytest.raises(TraceError, match=r"lengths without arrival times; say when .*--arrivals poisson"):
        parse_bytes("l.csv", data)
    reading = Reading(arrivals=Poisson(4.0), seed=3)
    trace = parse_bytes("l.csv", data, reading=reading)
    pairs = list(zip(trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), strict=True))
    assert pairs in ([(42, 285), (19, 82)], [(3772, 54), (2015, 156)])
    assert trace.metadata["arrivals"] == "not recorded; poisson:rate_rps=4.0, seed 3"
    assert trace.arrival_s.tolist() == parse_bytes("l.csv", data, reading=reading).arrival_s.tolist()


@pytest.mark.parametrize(
    ("raw", "converted"),
    [
        ("nanoflow_sharegpt.csv.gz", "sharegpt_lengths"),
        ("arxiv_long_online.csv.gz", "arxiv_long_lengths"),
        ("arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz", "arxiv_summarization_lengths"),
    ],
)
def test_the_original_and_its_conversion_hold_the_same_lengths(traces_folder: Path, raw: str, converted: str) -> None:
    reading = Reading(arrivals=Poisson(4.0))
    left = open_file(traces_folder / "raw" / raw, reading=reading)
    right = open_file(traces_folder / f"{converted}.parquet", reading=reading)
    assert (left.prompt_tokens == right.prompt_tokens).all()
    assert (left.output_tokens == right.output_tokens).all()
    assert (left.arrival_s == right.arrival_s).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sessions_per_s": 0.0}, "sessions per second: 0.0"),
        ({"window_s": (5.0, 5.0)}, "window: 5.0 to 5.0"),
        ({"block_tokens": 0}, "prefix_block_tokens: 0"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_a_reading_that_makes_no_sense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        Reading(**values)  # type: ignore[arg-type]
