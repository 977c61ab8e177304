"""Rows as a reader collects them, one list per column."""

from __future__ import annotations

from dataclasses import dataclass, field

from workloads.sessions import NO_PARENT
from workloads.settle import BadRow, Problem, RawRows


@dataclass
class Columns:
    """Grows row by row; :meth:`raw` makes of it what :func:`workloads.settle.settle` takes."""

    row: list[int] = field(default_factory=list)
    arrival_s: list[float] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    output_tokens: list[int] = field(default_factory=list)
    prefix_ids: list[tuple[int, ...]] = field(default_factory=list)
    session_id: list[str] = field(default_factory=list)
    tenant: list[str] = field(default_factory=list)
    slo_class: list[str] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    think_s: list[float] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, row: int, arrival_s: float, prompt_tokens: int, output_tokens: int) -> None:
        """What every request has."""
        self.row.append(row)
        self.arrival_s.append(arrival_s)
        self.prompt_tokens.append(prompt_tokens)
        self.output_tokens.append(output_tokens)

    def add_turn(self, session_id: str, turn: int, parent: int = NO_PARENT, think_s: float = 0.0) -> None:
        """Where the request stands in its session; ``parent`` is the row of the one before."""
        self.session_id.append(session_id)
        self.turn.append(turn)
        self.parent.append(parent)
        self.think_s.append(think_s)

    def note(self, row: int, bad: BadRow) -> None:
        """A row that cannot be used."""
        self.problems.append(Problem(row, bad.column, bad.value, bad.allowed))

    def raw(self, raw: RawRows) -> RawRows:
        """Fill ``raw`` with the columns that are as long as the rows; empty ones stay absent."""
        raw.label, raw.arrival_s = self.row, self.arrival_s
        raw.prompt_tokens, raw.output_tokens = self.prompt_tokens, self.output_tokens
        raw.prefix_ids = self.prefix_ids or None
        for label in ("session_id", "tenant", "slo_class"):
            values = getattr(self, label)
            if any(values):
                raw.labels[label] = values
        if self.turn:
            raw.turn, raw.parent, raw.think_s = self.turn, self.parent, self.think_s
        raw.problems += self.problems
        return raw
