"""One file over HTTP, resumed where it was cut off: the part beside the target grows, then takes its name."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from workloads.errors import TraceError

Report = Callable[[int, int], None]
"""Bytes that are here, and bytes in all (0 where the server does not say)."""
_CHUNK = 1 << 18
_TIMEOUT_S = 60.0
_GO_ON = "the same command goes on from there"


def download(url: str, target: Path, report: Report | None = None, verified: bool = False) -> None:
    """Fetch ``url`` to ``target``. Raises TraceError; an interrupted or failed download keeps its part.

    It is resumed only if the server vouches that the file is still the same (ETag or Last-Modified), or if it is
    ``verified`` by a checksum afterwards.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise TraceError(f"{url}: cannot be fetched (allowed: http and https)")
    part, notes = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file, _alone(file, target):
            _fetch(url, file, notes, report, verified)
            part.replace(target)
        notes.unlink(missing_ok=True)
    except urllib.error.HTTPError as error:
        error.close()
        raise TraceError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise TraceError(f"{url}: {reason or type(error).__name__}; what has arrived is kept, {_GO_ON}") from error
    except OSError as error:
        raise TraceError(f"{target}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _alone(file: BinaryIO, target: Path) -> Iterator[None]:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TraceError(f"{target}: another process is fetching it") from error
    yield  # closing the file ends the lock


def _fetch(url: str, file: BinaryIO, notes: Path, report: Report | None, verified: bool) -> None:
    have = file.seek(0, os.SEEK_END)
    validator = _validator(notes, url)
    if have and not (validator or verified):
        have = _restart(file)
    try:
        answer = _ask(url, have, validator)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        error.close()
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return  # all of it was here already
        have, answer = _restart(file), _ask(url, 0, None)
    with answer:
        if have and not _continues(answer, have):
            have = _restart(file)
        found = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        notes.write_text(json.dumps({"url": url, "validator": found}), encoding="utf-8")
        _copy(url, answer, file, have, report)


def _ask(url: str, have: int, validator: str | None) -> http.client.HTTPResponse:
    headers = {"User-Agent": "semiflow", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    answer: http.client.HTTPResponse = urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S
    )
    return answer


def _continues(answer: http.client.HTTPResponse, have: int) -> bool:
    """Whether the answer begins where the part ends; a server may send the whole file instead."""
    started = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    if answer.status == http.client.PARTIAL_CONTENT and not started:
        raise TraceError(f"{answer.url}: the server sent another range than asked for; delete the .part file")
    return answer.status == http.client.PARTIAL_CONTENT


def _copy(url: str, answer: http.client.HTTPResponse, file: BinaryIO, have: int, report: Report | None) -> None:
    length = answer.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else 0
    while chunk := answer.read(_CHUNK):
        file.write(chunk)
        have += len(chunk)
        if report is not None:
            report(have, total)
    file.flush()
    if total and have < total:
        raise TraceError(f"{url}: the connection ended after {have:,} of {total:,} bytes; {_GO_ON}")


def _restart(file: BinaryIO) -> int:
    file.truncate(0)
    return file.seek(0)


def _validator(notes: Path, url: str) -> str | None:
    """What the server said about the file of which a part is here; None where it was another one."""
    try:
        kept = json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    text = kept.get("validator") if isinstance(kept, dict) and kept.get("url") == url else None
    weak = isinstance(text, str) and text.startswith("W/")
    return text if isinstance(text, str) and not weak else None
