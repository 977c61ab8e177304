"""Long work that goes on where it was: the same command takes over what an earlier attempt has simulated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from experiments.cli import StoppedEarlyError

if TYPE_CHECKING:
    from experiments.cases.answers import Answers


@contextlib.contextmanager
def resumable(path: Path | None) -> Iterator[Answers]:
    """Yield the answers kept in ``path`` (None: nowhere), which goes once all is done and stays if it is not.

    Raises StoppedEarlyError, which says what is kept, in the place of a KeyboardInterrupt.
    """
    from experiments.cases.answers import Answers

    answers = Answers(path)
    try:
        yield answers
    except KeyboardInterrupt as error:
        if not answers.kept:
            raise
        raise StoppedEarlyError(f"interrupted; {_told(answers)}") from error
    except Exception:
        if answers.kept:
            typer.echo(_told(answers), err=True)
        raise
    if answers.taken_over:
        typer.echo(f"simulated runs taken over from {path}: {answers.taken_over}", err=True)
    answers.remove()


def _told(answers: Answers) -> str:
    return f"{answers.kept} simulated runs are kept in {answers.path}, the same command goes on from there"
