"""Answers of single runs: known by what they depend on, kept in one file, whatever else that file holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cases import answers as module
from experiments.cases.answers import Answers
from experiments.config import RunConfig

ran: list[object] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def half(number: float) -> float:
    ran.append(number)
    return number / 2


def third(number: float) -> float:
    return number / 3


def seed_and_name(config: RunConfig) -> tuple[int, str]:
    ran.append(config.seed)
    return config.seed, "a"


def test_an_answer_outlives_its_process_and_is_not_sought_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".x.runs"
    first = Answers(path)
    assert [first.ask(half, number) for number in (0.2, 5, 0.2)] == [0.1, 2.5, 0.1]
    again = Answers(path)
    assert (again.kept, again.taken_over) == (2, 0)
    assert [again.ask(half, number) for number in (5, 0.2, 7)] == [2.5, 0.1, 3.5]
    assert (again.kept, again.taken_over) == (3, 2)
    assert ran == [0.2, 5, 7]
    again.remove()
    assert list(path.parent.iterdir()) == []


def test_an_answer_is_the_same_in_the_first_attempt_and_in_the_next(tmp_path: Path) -> None:
    asked = RunConfig(seed=4)
    assert Answers(tmp_path / "x").ask(seed_and_name, asked) == [4, "a"]
    assert Answers(tmp_path / "x").ask(seed_and_name, asked) == [4, "a"]
    assert ran == [4]


def test_another_question_has_another_answer(tmp_path: Path) -> None:
    for asked in (RunConfig(seed=0), RunConfig(seed=1), RunConfig(seed=0, host={"report_delay_s": 1.0})):  # type: ignore[arg-type]
        Answers(tmp_path / "x").ask(seed_and_name, asked)
    assert ran == [0, 1, 0]
    known = Answers(tmp_path / "x")
    assert (known.ask(half, 6.0), known.ask(third, 6.0)) == (3.0, 2.0)


def test_other_code_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Answers(tmp_path / "x").ask(half, 1.0)
    monkeypatch.setattr(module, "own_code", lambda *_folders: "changed")
    later = Answers(tmp_path / "x")
    assert later.ask(half, 1.0) == 0.5
    assert (ran, later.taken_over) == ([1.0, 1.0], 0)


@pytest.mark.parametrize("left", range(1, 9))
def test_a_line_cut_short_is_no_answer_and_spoils_no_other(left: int, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for number in (1.0, 24690.0):
        Answers(path).ask(half, number)
    path.write_bytes(path.read_bytes()[:-left])
    second = Answers(path)
    assert [second.ask(half, number) for number in (1.0, 24690.0)] == [0.5, 12345.0]
    assert Answers(path).ask(half, 24690.0) == 12345.0
    assert ran == [1.0, 24690.0, 24690.0]


def test_lines_of_anything_else_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b'\xff\xfe\n7\n[1]\n{}\n[["list"], 1]\nnull\n"text"')
    assert Answers(tmp_path / "x").ask(half, 1.0) == 0.5
    assert Answers(tmp_path / "x").ask(half, 1.0) == 0.5
    assert ran == [1.0]


def test_without_a_file_answers_are_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = Answers()
    assert [known.ask(half, 1.0) for _ in range(2)] == [0.5, 0.5]
    known.remove()
    assert (ran, known.kept, list(tmp_path.iterdir())) == ([1.0], 0, [])
