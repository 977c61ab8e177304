"""Agent sessions: pauses, sub-agents, local ids, sessions without a common clock."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from workloads.errors import TraceError
from workloads.formats import Reading, open_file, parse_bytes
from workloads.settle import Invalid


def request(t: float, blocks: list[int], **more: Any) -> dict[str, Any]:
    return {"t": t, "type": "n", "in": 64 * len(blocks) + 3, "out": 5, "hash_ids": blocks, "think_time": 2.0} | more


def session(name: str, *requests: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "block_size": 64, "hash_id_scope": "local", "requests": list(requests)}


AGENT = {"t": 5.0, "type": "subagent", "agent_id": "agent_1", "requests": [request(0.0, [7]), request(1.0, [7, 8])]}
ONE = session("a", request(0.0, [1, 2]), AGENT, request(9.0, [1, 2, 3]))
TWO = session("b", request(0.0, [1, 2]))


def test_a_session_keeps_its_clock_its_pauses_and_its_sub_agents() -> None:
    trace = parse_bytes("s.json", json.dumps(ONE).encode())
    assert trace.arrival_s.tolist() == [0.0, 5.0, 6.0, 9.0]
    assert trace.session_id == ("a", "a/agent_1", "a/agent_1", "a")
    assert trace.parent_row is not None
    assert trace.think_s is not None
    assert trace.turn is not None
    assert trace.parent_row.tolist() == [-1, 0, 1, 0]
    assert trace.think_s.tolist() == [0.0, 2.0, 2.0, 2.0]
    assert trace.turn.tolist() == [0, 0, 1, 1]
    assert (trace.prefix_block_tokens, len({len(ids) for ids in trace.prefix_ids or ()})) == (64, 3)
    assert "their think times after the answers" in trace.metadata["turns"]


@pytest.mark.parametrize("packed", ["lines", "tar"])
def test_sessions_start_at_a_stated_rate_and_share_no_ids(packed: str) -> None:
    texts = [json.dumps(content).encode() for content in (ONE, TWO)]
    data, name = b"\n".join(texts), "s.jsonl"
    if packed == "tar":
        buffer, name = io.BytesIO(), "s.tar"
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for number, text in enumerate(texts):
                member = tarfile.TarInfo(f"traces/trace_{number}.json")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))
        data = buffer.getvalue()
    with pytest.raises(TraceError, match=r"2 sessions without a common clock; say .*--session-rate"):
        parse_bytes(name, data)
    trace = parse_bytes(name, data, reading=Reading(sessions_per_s=0.1, seed=1))
    assert len(trace) == 5
    assert "Poisson, 0.1 sessions/s" in trace.metadata["session_starts"]
    ids: dict[str, set[int]] = {name: set() for name in ("a", "b")}
    for label, chain in zip(trace.session_id or (), trace.prefix_ids or (), strict=True):
        ids[label[0]].update(chain)
    assert not ids["a"] & ids["b"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (request(1.0, [1, 2], out=0), r"request 1, column out: 0"),
        (request(1.0, [1, 2], think_time=-1), "column think_time: -1"),
        (request(1.0, [1, 2], hash_ids=[1]), "'1 ids'.*2 to 3, one per 64 of 131"),
        (request(1.0, [1, 2]) | {"t": None}, "column t: None"),
        ({"t": 1.0, "type": "subagent", "requests": None}, "column requests"),
        ("x", "column request: 'x'"),
    ],
)
def test_a_bad_request_is_refused_or_dropped_and_counted(bad: Any, message: str) -> None:
    data = json.dumps(session("a", request(0.0, [1, 2]), bad, request(2.0, [1, 2]))).encode()
    with pytest.raises(TraceError, match=message):
        parse_bytes("s.json", data)
    trace = parse_bytes("s.json", data, "drop")
    assert (len(trace), trace.metadata["rows"], trace.metadata["rows_dropped"]) == (2, "3", "1")


@pytest.mark.parametrize("invalid", ["error", "drop"])
@pytest.mark.parametrize(
    "data", [b'{"requests": []}', b'{"id": 1, "requests": 3}', b'{"id": 1, "requests": [', b'{"requests": [']
)
def test_a_file_without_a_usable_request_is_refused(data: bytes, invalid: Invalid) -> None:
    with pytest.raises(TraceError):
        parse_bytes("s.json", data, invalid)


def test_the_original_sessions_equal_their_conversion(traces_folder: Path) -> None:
    columns = ["session_id", "root_session_id", "arrival_s", "prompt_tokens", "output_tokens", "think_time_s"]
    table = pq.read_table(traces_folder / "agentic_coding_cc.parquet", columns=columns).to_pydict()
    roots = np.array(table["root_session_id"])
    checked = 0
    for path in sorted((traces_folder / "raw" / "kv-cache-tester").glob("*.json.gz")):
        trace = open_file(path)
        rows = np.flatnonzero(roots == trace.name)
        if not rows.size:
            continue
        checked += 1
        order = rows[np.argsort(np.array(table["arrival_s"])[rows], kind="stable")]
        assert sorted(trace.prompt_tokens.tolist()) == sorted(table["prompt_tokens"][row] for row in order)
        assert trace.output_tokens.sum() == sum(table["output_tokens"][row] for row in order)
        assert trace.arrival_s.tolist() == pytest.approx([table["arrival_s"][row] for row in order])
    assert checked >= 10
