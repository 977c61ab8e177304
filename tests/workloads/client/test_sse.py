"""Whatever the chunks, the same events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.client import sse
from workloads.client.sse import EventLengthError, SseParser

LINE = st.one_of(
    st.just(b""),
    st.binary(max_size=6).map(lambda text: b"data: " + text.translate(None, b"\r\n")),
    st.sampled_from([b"data", b"data:", b": comment", b"event: x", b"id", b"retry: 3", b"database: no", b"data:  two"]),
)
STREAM = st.lists(st.tuples(LINE, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=12).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def events(stream: bytes, cuts: list[int]) -> list[bytes]:
    parser, found, start = SseParser(), [], 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        found += parser.feed(stream[start:cut])
        start = cut
    return found + parser.finish()


@given(STREAM, st.lists(st.integers(0, 200), max_size=8))
def test_any_chunking_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    assert events(stream, cuts) == events(stream, [])


@given(STREAM)
def test_byte_by_byte_gives_the_same_events(stream: bytes) -> None:
    assert events(stream, list(range(len(stream)))) == events(stream, [])


@given(STREAM)
def test_every_kind_of_line_end_gives_the_same_events(stream: bytes) -> None:
    plain = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert events(stream, []) == events(plain, [])


@given(st.lists(st.binary(max_size=20).map(lambda text: text.translate(None, b"\r\n")), max_size=6))
def test_what_is_sent_arrives(sent: list[bytes]) -> None:
    stream = b"".join(b"data: " + data + b"\n\n" for data in sent)
    assert events(stream, [3, 5, 11]) == sent


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:a\n\ndata: \n\n", [b"a", b""]),
        (b": hello\nevent: error\nid: 7\ndata: a\n\n", [b"a"]),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\r\n\r\ndata: b\r\r", [b"a", b"b"]),
        (b"data: [DONE]", [b"[DONE]"]),
        (b"data: [DONE]\n", [b"[DONE]"]),
        (b"event: ping\n\n", []),
        (b"", []),
    ],
)
def test_streams_of_the_format(stream: bytes, expected: list[bytes]) -> None:
    assert events(stream, []) == expected


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 90, b"data: xxxxx\n" * 20])
def test_an_event_without_an_end_is_refused(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 80)
    parser = SseParser()
    with pytest.raises(EventLengthError, match="over 80 bytes"):
        parser.feed(piece)
