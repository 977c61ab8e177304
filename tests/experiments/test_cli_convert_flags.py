"""Every format with every flag of ``workloads convert``: honoured, or refused by a line that names both."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.cli import run

_AGENT = '{"t": 0, "type": "n", "in": 8, "out": 5, "hash_ids": [1, 2], "think_time": 0}'
_CHAT = '{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 8, "output_length": 2, "turn": 1,'
_SESSIONS = "".join(f'{{"id": "{name}", "block_size": 4, "requests": [{_AGENT}]}}\n' for name in "ab")
_LENGTHS = {"0": {"input_tokens": "{10: 1.0}", "output_tokens": "{5: 1.0}"}}
TEXTS = {
    "azure.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,42,28\n",
    "burst.csv": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,4,8,12,API log\n",
    "vidur.csv": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,10,1\n",
    "lengths.csv": "num_prefill_tokens,num_decode_tokens\n10,1\n",
    "mooncake.jsonl": '{"timestamp": 0, "input_length": 8, "output_length": 2, "hash_ids": [1]}\n',
    "bailian.jsonl": f'{_CHAT} "hash_ids": [1]}}\n',
    "one.json": _SESSIONS.split("\n")[0],
    "sessions.jsonl": _SESSIONS,
    "requests.jsonl": '{"request": 0, "arrival_s": 0.5, "prompt_tokens": 8, "output_tokens": 2}\n',
}
FORMATS = {
    "azure.csv": ("Azure's CSV", ()),
    "burst.csv": ("BurstGPT's CSV", ()),
    "vidur.csv": ("Vidur's CSV", ()),
    "lengths.csv": ("a table of lengths", ("--arrivals", "--seed")),
    "lengths.parquet": ("a table of lengths", ("--arrivals", "--seed")),
    "mooncake.jsonl": ("Mooncake's JSONL", ("--read-blocks",)),
    "bailian.jsonl": ("Bailian's JSONL", ("--read-blocks",)),
    "one.json": ("one session of kv-cache-tester", ()),
    "sessions.jsonl": ("sessions of kv-cache-tester", ("--session-rate", "--seed")),
    "profiles.tar": ("ServeGen's client profiles", ("--window", "--seed")),
    "requests.jsonl": ("a run's requests", ()),
    "plain.parquet": ("parquet with arrival times", ()),
    "bundled:sharegpt-like": ("a bundled workload", ()),
}
"""Sample -> what its format is called, and which flags it honours; the first is one that it needs."""
FLAGS = {
    "--arrivals": ("poisson:rate_rps=4", "lengths without times: NanoFlow's and Vidur's CSV, parquet without"),
    "--session-rate": ("2", "several sessions of kv-cache-tester"),
    "--window": ("0:600", "ServeGen's client profiles"),
    "--read-blocks": ("16", "JSONL of Mooncake or Bailian"),
    "--seed": ("3", "lengths without times, several sessions, client profiles"),
}
NEEDED = {"lengths.csv", "lengths.parquet", "sessions.jsonl", "profiles.tar"}


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        files = {
            "chunk-1-trace.csv": "0,2,1,Gamma,1.0,0.05\n600,0,0,,0,0\n",
            "chunk-1-dataset.json": json.dumps(_LENGTHS),
        }
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "profiles.tar").write_bytes(_tar())
    lengths = {"prompt_tokens": [8], "output_tokens": [2]}
    pq.write_table(pa.table(lengths), folder / "lengths.parquet")
    pq.write_table(pa.table({"arrival_s": [0.5], **lengths}), folder / "plain.parquet")
    return folder


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("sample", FORMATS)
def test_a_flag_is_honoured_or_refused(
    sample: str, flag: str, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    format_, honoured = FORMATS[sample]
    value, meant_for = FLAGS[flag]
    flags = [flag, value]
    if sample in NEEDED and honoured[0] != flag:
        flags += [honoured[0], FLAGS[honoured[0]][0]]
    source = sample if sample.startswith("bundled:") else str(samples / sample)
    code = run(["workloads", "convert", source, str(tmp_path / "out.parquet"), *flags])
    error = capsys.readouterr().err
    if flag in honoured:
        assert (code, error) == (0, "")
        return
    assert code == 2
    for part in (sample, format_, flag, meant_for):
        assert part in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.parquet").exists()


def test_blocks_are_converted_where_there_are_any(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert = ["workloads", "convert", str(samples / "vidur.csv")]
    assert run([*convert, str(tmp_path / "out.parquet"), "--block-tokens", "16"]) == 2
    assert "--block-tokens 16" in (error := capsys.readouterr().err)
    assert "vidur.csv has no prefix ids to convert" in error
    assert run([*convert, str(tmp_path / "out.jsonl"), "--block-tokens", "16"]) == 0
