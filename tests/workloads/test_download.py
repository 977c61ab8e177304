"""Fetching over HTTP from a server on this machine: whole, resumed, changed, damaged."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from workloads import catalog
from workloads.download import download
from workloads.errors import TraceError
from workloads.fetch import fetch, terms

CSV = b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,10,1\n2023-11-16 18:15:56.5,20,2"


@dataclass
class Source:
    """What the server has, and what it was asked."""

    content: bytes = CSV
    etag: str | None = '"one"'
    ranges: bool = True
    cut_after: int | None = None
    port: int = 0
    asked: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/data/Tiny.csv"


def handler(source: Source) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            source.asked.append(asked)
            if "missing" in self.path:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and source.ranges else 0
            if self.headers.get("If-Range") not in (None, source.etag):
                start = 0
            total = len(source.content)
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if source.etag:
                self.send_header("ETag", source.etag)
            self.send_header("Content-Length", str(total - start))
            self.end_headers()
            self.wfile.write(source.content[start : source.cut_after])

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


@pytest.fixture
def source() -> Iterator[Source]:
    served = Source()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(served))
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tiny(source: Source) -> catalog.CatalogEntry:
    return replace(
        catalog.entry("azure_2023_conv"),
        name="tiny",
        url=source.url,
        source_sha256=hashlib.sha256(CSV).hexdigest(),
        source_window_s=5.0,
        file="tiny.parquet",
    )


def interrupt(source: Source, target: Path, after: int = 50) -> None:
    source.cut_after = after
    with pytest.raises(TraceError, match="the same command goes on from there"):
        download(source.url, target)
    source.cut_after = None
    assert target.with_name("t.part").stat().st_size == after
    assert not target.exists()


def test_a_file_arrives_whole_and_says_how_far_it_is(source: Source, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    download(source.url, tmp_path / "new" / "t", lambda done, total: steps.append((done, total)))
    assert (tmp_path / "new" / "t").read_bytes() == CSV
    assert steps[-1] == (len(CSV), len(CSV))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t"]


def test_a_cut_transfer_goes_on_where_it_ended(source: Source, tmp_path: Path) -> None:
    interrupt(source, tmp_path / "t")
    download(source.url, tmp_path / "t")
    assert source.asked == [None, "bytes=50-"]
    assert (tmp_path / "t").read_bytes() == CSV


def test_a_source_that_changed_meanwhile_is_fetched_anew(source: Source, tmp_path: Path) -> None:
    interrupt(source, tmp_path / "t")
    source.content, source.etag = CSV.replace(b"10", b"11"), '"two"'
    download(source.url, tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == source.content


def test_a_server_without_ranges_sends_all_of_it_again(source: Source, tmp_path: Path) -> None:
    interrupt(source, tmp_path / "t")
    source.ranges = False
    download(source.url, tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == CSV


def test_nothing_is_resumed_that_nobody_vouches_for(source: Source, tmp_path: Path) -> None:
    source.etag = None
    interrupt(source, tmp_path / "t")
    download(source.url, tmp_path / "t")
    assert source.asked == [None, None]


def test_a_checksum_vouches_for_a_resumed_file(source: Source, tmp_path: Path) -> None:
    source.etag = None
    interrupt(source, tmp_path / "t")
    download(source.url, tmp_path / "t", verified=True)
    assert source.asked == [None, "bytes=50-"]


def test_a_part_that_is_complete_or_too_long_is_settled(source: Source, tmp_path: Path) -> None:
    (tmp_path / "t.part").write_bytes(CSV)
    download(source.url, tmp_path / "t", verified=True)
    assert (tmp_path / "t").read_bytes() == CSV
    (tmp_path / "u.part").write_bytes(CSV + b"more")
    download(source.url, tmp_path / "u", verified=True)
    assert (tmp_path / "u").read_bytes() == CSV


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:{port}/missing", "the server answers 404 Not Found"),
        ("http://127.0.0.1:1/x", "refused; what has arrived is kept"),
        ("file:///etc/passwd", "allowed: http and https"),
    ],
)
def test_a_failure_is_one_line(source: Source, tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        download(url.format(port=source.port), tmp_path / "t")
    assert "\n" not in str(caught.value)


def test_a_fetched_trace_is_checked_converted_and_opened_by_name(
    no_traces: Path, tiny: catalog.CatalogEntry, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "entries", lambda: (tiny,))
    fetched = fetch(tiny)
    assert fetched.converted == no_traces / "tiny.semiflow.parquet"
    trace = catalog.open_trace("tiny")
    assert (trace.name, trace.prompt_tokens.tolist()) == ("tiny", [10])
    assert trace.metadata["licence"] == "CC-BY-4.0"
    assert trace.metadata["source_sha256"] == tiny.source_sha256
    fetch(tiny)
    assert source.asked == [None], "what is here is not fetched again"


def test_a_packed_source_is_checked_by_its_content(no_traces: Path, tiny: catalog.CatalogEntry, source: Source) -> None:
    source.content = gzip.compress(CSV)
    packed = replace(tiny, url=source.url + ".gz")
    assert len(fetch(packed).trace) == 1


def test_another_checksum_keeps_nothing(no_traces: Path, tiny: catalog.CatalogEntry, source: Source) -> None:
    source.content = CSV + b"\n2023-11-16 18:16:46.5,1,1"
    with pytest.raises(TraceError, match=r"sha256 \w+ is not the published \w+; nothing was kept"):
        fetch(tiny)
    assert list(no_traces.iterdir()) == []


def test_a_source_without_a_checksum_is_said_to_have_none(
    no_traces: Path, tiny: catalog.CatalogEntry, source: Source
) -> None:
    unchecked = replace(tiny, source_sha256=None)
    assert "publishes no checksum" in terms(unchecked)["sha256"]
    assert fetch(unchecked).sha256 == hashlib.sha256(CSV).hexdigest()


def test_rows_that_were_dropped_are_asked_about_again(
    no_traces: Path, tiny: catalog.CatalogEntry, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.content = CSV + b"\n2023-11-16 18:15:57,0,2"
    dirty = replace(tiny, source_sha256=hashlib.sha256(source.content).hexdigest(), source_window_s=None)
    monkeypatch.setattr(catalog, "entries", lambda: (dirty,))
    with pytest.raises(TraceError, match="1 of 3 rows are invalid"):
        fetch(dirty)
    fetch(dirty, "drop")
    with pytest.raises(TraceError, match="1 of 3 rows were dropped when it was fetched; say --invalid drop"):
        catalog.open_trace("tiny")
    assert len(catalog.open_trace("tiny", "drop")) == 2


@pytest.mark.parametrize("name", ["agentic_coding_cc", "azure_2025_multimodal", "vtc_arena_600s"])
def test_what_cannot_be_read_is_not_fetched(no_traces: Path, name: str) -> None:
    with pytest.raises(TraceError, match="cannot be fetched: "):
        fetch(catalog.entry(name))
