"""Progress is for people: on a terminal, on stderr, and only where work takes a while."""

from __future__ import annotations

import io

import pytest

from experiments.cli import progress as module


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with module.progress("working") as report:
        assert report is None


def test_short_work_shows_nothing_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with module.progress("working") as report:
        assert report is not None
        report(1, 10)
    assert terminal.getvalue() == ""


def test_long_work_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(module, "_QUIET_S", 0.0)
    with module.progress("working") as report:
        assert report is not None
        report(1, 10)
    assert "working" in terminal.getvalue()
