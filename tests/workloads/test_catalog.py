"""Names, folders, checksums."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from workloads import catalog
from workloads.errors import TraceError
from workloads.storage import save
from workloads.trace import Trace

CSV = b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,10,1\n2023-11-16 18:15:56.5,20,2"


@pytest.fixture
def csv_entry(monkeypatch: pytest.MonkeyPatch) -> catalog.CatalogEntry:
    """A named trace whose source is the first 5 s of ``CSV``."""
    entry = replace(
        catalog.entry("azure_2023_conv"),
        name="tiny",
        url="https://example.org/data/Tiny.csv",
        source_sha256=hashlib.sha256(CSV).hexdigest(),
        source_window_s=5.0,
        file="tiny.parquet",
        file_sha256="0" * 64,
    )
    monkeypatch.setattr(catalog, "entries", lambda: (entry,))
    return entry


def test_every_entry_says_where_it_is_from_and_under_which_licence() -> None:
    names = [entry.name for entry in catalog.entries()]
    assert len(set(names)) == len(names) > 30
    for entry in catalog.entries():
        assert entry.url.startswith("https://")
        assert entry.licence
        assert entry.title


def test_a_trace_that_is_not_at_hand_says_where_to_get_it(no_traces: Path) -> None:
    with pytest.raises(TraceError) as caught:
        catalog.open_trace("azure_2023_conv")
    for part in (
        "https://raw.githubusercontent.com/Azure",
        "CC-BY-4.0",
        "2f1e5b66",
        str(no_traces),
        "SEMIFLOW_TRACES is not",
    ):
        assert part in str(caught.value)


def test_a_relative_traces_folder_is_refused(no_traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMIFLOW_TRACES", "some/folder")
    with pytest.raises(TraceError, match=r"SEMIFLOW_TRACES='some/folder' \(allowed: an absolute path"):
        catalog.open_trace("azure_2023_conv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("azure_2023_con", "did you mean azure_2023_conv"),
        ("nothing", "allowed: the path of a trace file, azure_2023_code, "),
        ("missing.csv", r"missing\.csv: not a file"),
        ("folder/missing", "folder/missing: not a file"),
        ("/", "not a file"),
        ("sharegpt_lengths", "cannot be opened yet: lengths without arrival times"),
        ("agentic_coding_cc", "cannot be opened yet: closed-loop sessions .* its url: https://github.com/callanjfox/"),
        ("burstgpt_1", r"not at hand: .*semiflow workloads fetch burstgpt_1.*sha256 4bb37836"),
    ],
)
def test_a_name_that_cannot_be_opened_is_explained(no_traces: Path, name: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        catalog.open_trace(name)


@pytest.mark.parametrize("file_name", ["Tiny.csv", "Tiny.csv.gz"])
def test_a_downloaded_source_is_found_checked_and_cut(
    no_traces: Path, csv_entry: catalog.CatalogEntry, file_name: str
) -> None:
    (no_traces / file_name).write_bytes(gzip.compress(CSV) if file_name.endswith("gz") else CSV)
    trace = catalog.open_trace("tiny")
    assert (trace.name, trace.prompt_tokens.tolist()) == ("tiny", [10])
    assert trace.metadata["source_url"] == csv_entry.url
    assert trace.metadata["licence"] == "CC-BY-4.0"


@pytest.mark.parametrize("file_name", ["Tiny.csv", "tiny.parquet"])
def test_a_file_with_another_checksum_is_refused_by_name_but_not_by_path(
    no_traces: Path, csv_entry: catalog.CatalogEntry, file_name: str, small_trace: Trace
) -> None:
    path = no_traces / file_name
    if file_name.endswith("csv"):
        path.write_bytes(CSV + b"\n2023-11-16 18:16:46.5,1,1")
    else:
        save(small_trace, path)
    with pytest.raises(TraceError, match=r"(Tiny\.csv|tiny\.parquet): sha256 .* is not that of tiny .*path instead"):
        catalog.open_trace("tiny")
    assert len(catalog.open_trace(path)) >= 3


def test_the_traces_folder_comes_before_the_cache(
    no_traces: Path, csv_entry: catalog.CatalogEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (no_traces / "Tiny.csv").write_bytes(CSV)
    assert catalog.find(csv_entry) == no_traces / "Tiny.csv"
    monkeypatch.setenv("SEMIFLOW_TRACES", str(tmp_path))
    (tmp_path / "Tiny.csv").write_bytes(CSV)
    assert catalog.find(csv_entry) == tmp_path / "Tiny.csv"


OPENABLE = [entry.name for entry in catalog.entries() if entry.file and not entry.unsupported]


@pytest.mark.parametrize("name", OPENABLE)
def test_a_public_trace_opens_whole(traces_folder: Path, name: str) -> None:
    trace = catalog.open_trace(name)
    entry = catalog.entry(name)
    assert len(trace) == entry.rows
    assert trace.prefix_block_tokens == entry.block_tokens
    assert trace.metadata["rows_dropped"] == "0"


def test_the_catalogue_agrees_with_the_folder(traces_folder: Path) -> None:
    described = json.loads((traces_folder / "traces.json").read_text())
    facts = {trace["name"]: trace for trace in described["traces"] + described["fetch_only"]}
    assert {entry.name for entry in catalog.entries()} == set(facts)
    for entry in catalog.entries():
        fact = facts[entry.name]
        assert entry.licence == fact["license"]
        assert entry.file_sha256 == fact.get("sha256_parquet")


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("AzureLLMInferenceTrace_conv.first1800s.csv.gz", "azure_2023_conv"),
        ("AzureLLMInferenceTrace_code.csv.gz", "azure_2023_code"),
        ("conversation_trace.first1800s.jsonl.gz", "mooncake_conversation"),
        ("synthetic_trace.jsonl.gz", "mooncake_synthetic"),
    ],
)
def test_the_original_file_and_its_conversion_are_the_same_trace(
    traces_folder: Path, raw: str, name: str, assert_same: Callable[[Trace, Trace], None]
) -> None:
    original = catalog.open_trace(traces_folder / "raw" / raw)
    converted = catalog.open_trace(name)
    assert_same(replace(original, name="t", metadata={}), replace(converted, name="t", metadata={}))


def test_lengths_and_sessions_are_refused_by_path_too(traces_folder: Path) -> None:
    with pytest.raises(TraceError, match="lengths without arrival times"):
        catalog.open_trace(traces_folder / "sharegpt_lengths.parquet")
    with pytest.raises(
        TraceError, match=r"sessions without a common clock.*sub-agents.*archive 'https://.*--session-rate"
    ):
        catalog.open_trace(traces_folder / "agentic_coding_cc.parquet")
    with pytest.raises(TraceError, match=r"lmcache-agent-trace.*is in no format of semiflow"):
        catalog.open_trace(traces_folder / "lmcache_agents.parquet")
