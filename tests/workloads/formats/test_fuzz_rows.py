"""Many random rows through every reader: it reads or refuses, and accounts for each row.

``SEMIFLOW_FUZZ_ROWS`` says how many rows over all formats (1,000,000 takes minutes); by default a few thousand.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from workloads.errors import TraceError
from workloads.formats import Reading, parse_bytes
from workloads.synthetic import Poisson

ROWS = int(os.environ.get("SEMIFLOW_FUZZ_ROWS", "8000"))
ROWS_PER_FILE = 60
READINGS = {
    "lengths.csv": Reading(arrivals=Poisson(4.0)),
    "nanoflow.csv": Reading(arrivals=Poisson(4.0)),
    "sessions.jsonl": Reading(sessions_per_s=1.0),
    "p.tar": Reading(window_s=(0.0, 300.0)),
}

JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, -0.0, 2**31, 2**63, 2**70, 10**400, float("nan"), float("inf"), "", "x", "1_0"),
    *("-1", "\ud800", "٣", "1e999", [], [1, "a"], {}, {"a": [None]}, "\x00", "a,b", '"', "2023-11-16 18:15:46"),
)
Row = Callable[[random.Random, int], str]


@dataclass(frozen=True)
class Format:
    """How files of a format are made."""

    name: str
    header: str | None
    row: Row
    rows_are_lines: bool = True


def cell(rng: random.Random, good: object) -> str:
    """Mostly ``good``, sometimes anything."""
    value = rng.choice(JUNK) if rng.random() < 0.04 else good
    return str(value) if not isinstance(value, str) else value.replace("\n", " ")


def csv(*cells: Callable[[random.Random, int], object]) -> Row:
    def row(rng: random.Random, number: int) -> str:
        made = [cell(rng, make(rng, number)) for make in cells]
        if rng.random() < 0.02:
            made = made[: rng.randrange(len(made) + 1)]
        return ",".join(made)

    return row


def obj(**values: Callable[[random.Random, int], object]) -> Row:
    def row(rng: random.Random, number: int) -> str:
        made = {key: rng.choice(JUNK) if rng.random() < 0.03 else make(rng, number) for key, make in values.items()}
        if rng.random() < 0.02:
            made.pop(rng.choice(list(made)))
        text = json.dumps(made)
        return text[: rng.randrange(1, len(text) + 1)] if rng.random() < 0.01 else text

    return row


def tokens(rng: random.Random, _: int) -> int:
    return rng.randrange(1, 200)


def seconds(rng: random.Random, number: int) -> float:
    return number + rng.random()


def ids(block: int) -> Callable[[random.Random, int], object]:
    return lambda rng, _: [rng.randrange(5) for _ in range(rng.choice((1, 1, 1, 2)) if block else 0)]


def azure_time(rng: random.Random, number: int) -> str:
    return f"2023-11-16 18:{number // 60 % 60:02d}:{number % 60:02d}.{rng.randrange(10**7):07d}"


def weka_request(rng: random.Random, number: int) -> dict[str, Any]:
    blocks = rng.randrange(4)
    request: dict[str, Any] = {"t": seconds(rng, number), "type": "n", "in": 64 * blocks + 5, "out": tokens(rng, 0)}
    request |= {"hash_ids": [rng.randrange(9) for _ in range(blocks)], "think_time": rng.random()}
    if rng.random() < 0.05:
        request[rng.choice(list(request))] = rng.choice(JUNK)
    return request


def weka_session(rng: random.Random, number: int) -> str:
    requests: list[Any] = [weka_request(rng, at) for at in range(rng.randrange(1, 12))]
    if rng.random() < 0.2:
        requests.append({"t": 1.0, "type": "subagent", "agent_id": rng.choice(JUNK), "requests": requests[:2]})
    if rng.random() < 0.05:
        requests.append(rng.choice(JUNK))
    text = json.dumps({"id": f"s{number}", "block_size": 64, "requests": requests})
    return text[: rng.randrange(1, len(text))] if rng.random() < 0.02 else text


FORMATS = (
    Format("azure.csv", "TIMESTAMP,ContextTokens,GeneratedTokens", csv(azure_time, tokens, tokens)),
    Format(
        "burst_1.csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        csv(seconds, lambda *_: "GPT-4", tokens, tokens, tokens, lambda *_: "API log"),
    ),
    Format(
        "burst_3.csv",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type",
        csv(
            seconds,
            lambda rng, _: rng.choice(("", "a", "b")),
            lambda rng, _: rng.random() * 4,
            lambda *_: "GPT-4",
            *(tokens, tokens, tokens),
            lambda *_: "Conversation log",
        ),
    ),
    Format("vidur.csv", "arrived_at,num_prefill_tokens,num_decode_tokens", csv(seconds, tokens, tokens)),
    Format("lengths.csv", "num_prefill_tokens,num_decode_tokens,pd_ratio", csv(tokens, tokens, seconds)),
    Format("nanoflow.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nXXX,5,5", csv(lambda *_: "XXX", tokens, tokens)),
    Format(
        "mooncake.jsonl",
        '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [0]}',
        obj(timestamp=lambda rng, n: n * 1_000, input_length=tokens, output_length=tokens, hash_ids=ids(512)),
    ),
    Format(
        "bailian.jsonl",
        '{"chat_id": 1000000, "parent_chat_id": -1, "timestamp": 0, "input_length": 5, "output_length": 5, '
        '"type": "text", "turn": 1, "hash_ids": [7]}',
        obj(
            chat_id=lambda rng, n: n,
            parent_chat_id=lambda rng, n: rng.choice((-1, n - 1, n - 3, n + 2)),
            timestamp=seconds,
            input_length=lambda rng, _: rng.randrange(16, 32),
            output_length=tokens,
            turn=lambda rng, _: rng.randrange(1, 5),
            hash_ids=ids(16),
        ),
    ),
    Format(
        "requests.jsonl",
        '{"request": 1000000, "arrival_s": 0.0, "prompt_tokens": 5, "output_tokens": 5}',
        obj(
            request=lambda rng, n: n,
            arrival_s=seconds,
            prompt_tokens=tokens,
            output_tokens=tokens,
            outcome=lambda rng, _: rng.choice(("finished", "finished", "cancelled")),
        ),
    ),
    Format("sessions.jsonl", None, weka_session, rows_are_lines=False),
)


def read(name: str, data: bytes) -> tuple[int, int] | None:
    """Rows in the file and rows left out by its reader's own account, or None where it refused. Both ways must work."""
    outcome = None
    messages = []
    for invalid in ("error", "drop"):
        try:
            trace = parse_bytes(name, data, invalid, READINGS.get(name, Reading()))
        except TraceError as error:
            messages.append(str(error))
            continue
        outcome = int(trace.metadata["rows"]), int(trace.metadata["rows_dropped"])
        unfinished = int(trace.metadata.get("unfinished", "0").split()[0])
        assert len(trace) == outcome[0] - outcome[1]
        outcome = outcome[0] + unfinished, outcome[1]
        if invalid == "error":
            assert outcome[1] == 0
    assert all(message.isprintable() and len(message) < 1_500 for message in messages)
    return outcome


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_row_is_read_or_counted(form: Format) -> None:
    rng = random.Random(form.name)
    done = kept = 0
    while done < ROWS // (len(FORMATS) + 1):
        lines = [form.row(rng, number) for number in range(ROWS_PER_FILE)]
        text = "\n".join([form.header, *lines] if form.header is not None else lines) + "\n"
        data = text.encode("utf-8", "surrogatepass")
        counted = read(form.name, gzip.compress(data) if rng.random() < 0.02 else data)
        done += ROWS_PER_FILE
        if counted is None:
            continue
        extra = 1 if form.name.endswith(".jsonl") or form.name == "nanoflow.csv" else 0
        if form.rows_are_lines:
            assert counted[0] == ROWS_PER_FILE + extra, "a row was silently dropped"
        else:
            assert counted[0] >= ROWS_PER_FILE
        kept += counted[0] - counted[1]
    assert kept > 0.3 * done


def profile(rng: random.Random) -> bytes:
    """A tar of one client's profile with mistakes."""
    rates = csv(
        lambda _, n: n * 60,
        lambda rng, _: rng.choice((0, 0.5, 3)),
        lambda *_: 1,
        lambda rng, _: rng.choice(("Gamma", "Weibull", "Gamma", "")),
        lambda rng, _: rng.choice((0.3, 1, 2)),
        lambda *_: 1,
    )
    lines = [rates(rng, number) if rng.random() < 0.1 else f"{number * 60},1.5,1,Gamma,1,1" for number in range(8)]
    field = [cell(rng, f"{{{rng.randrange(1, 50)}: 0.5, 60: 0.5}}") for _ in range(2)]
    lengths: Any = {"0": {"input_tokens": field[0], "output_tokens": field[1]}}
    if rng.random() < 0.1:
        lengths = rng.choice(JUNK)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in (("chunk-0-trace.csv", "\n".join(lines)), ("chunk-0-dataset.json", json.dumps(lengths))):
            content = text.encode("utf-8", "surrogatepass")
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    data = bytearray(buffer.getvalue())
    if rng.random() < 0.1:
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(len(data))]) if rng.random() < 0.05 else bytes(data)


def test_profiles_are_drawn_from_or_refused() -> None:
    rng = random.Random(5)
    drawn = 0
    for _ in range(max(ROWS // (len(FORMATS) + 1) // 10, 10)):
        counted = read("p.tar", profile(rng))
        drawn += 0 if counted is None else counted[0]
    assert drawn > 0
