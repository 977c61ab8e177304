"""Where prefill and decode on separate instances pay: a table over prompt length and decode/prompt ratio.

A file is CSV with the columns ``prompt_tokens,decode_ratio,advantage`` (others are ignored), or JSON: a list of objects
with these keys. Each row is a cell: the upper edges of its two bins, and job time on colocated instances over that on
separate ones, less 1. Rows of the same cell (one per profiled rate) are added up.
"""

from __future__ import annotations

import csv
import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

COLUMNS = ("prompt_tokens", "decode_ratio", "advantage")
_SHAPE = "a heatmap is CSV with the columns prompt_tokens,decode_ratio,advantage, or JSON: a list of such objects"


@dataclass(frozen=True)
class Heatmap:
    """Upper edges of the bins, ascending (beyond the last one counts as the last), and the filled cells."""

    prompt_tokens: tuple[float, ...]
    decode_ratios: tuple[float, ...]
    cells: Mapping[tuple[float, float], float]

    @classmethod
    def of(cls, rows: Iterable[tuple[float, float, float]]) -> Heatmap:
        """From (prompt tokens, decode ratio, advantage) rows."""
        cells: dict[tuple[float, float], float] = {}
        for prompt, ratio, advantage in rows:
            cells[prompt, ratio] = cells.get((prompt, ratio), 0.0) + advantage
        prompts, ratios = ({cell[axis] for cell in cells} for axis in (0, 1))
        return cls(tuple(sorted(prompts)), tuple(sorted(ratios)), cells)

    def advantage(self, prompt_tokens: int, decode_tokens: int) -> float:
        """Positive: separate instances finish sooner; 0: not known."""
        prompt = self.prompt_tokens[min(bisect_left(self.prompt_tokens, prompt_tokens), len(self.prompt_tokens) - 1)]
        ratio = decode_tokens / prompt_tokens
        place = min(bisect_left(self.decode_ratios, ratio), len(self.decode_ratios) - 1)
        return self.cells.get((prompt, self.decode_ratios[place]), 0.0)


_CROSSOVERS = ((256, 2.0), (512, 1.5), (1024, 1.0), (2048, 0.6), (4096, 0.4), (8192, 0.25))
_RATIOS = (0.125, 0.25, 0.4, 0.6, 1.0, 1.5, 2.0, 4.0)
ESTIMATED = Heatmap.of(
    (prompt, ratio, 1.0 if ratio <= crossover else -0.1) for prompt, crossover in _CROSSOVERS for ratio in _RATIOS
)
"""Our own estimate of the signs (the paper's values are not published): separate instances win up to a ratio that
falls with the prompt's length, from 2 at 256 tokens to a quarter at 8192."""


def read_heatmap(path: str) -> Heatmap:
    """Read a file; raises ValueError, one line, for one that cannot be used."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"heatmap {path} cannot be read: {' '.join(str(error).split())}; {_SHAPE}") from error
    rows = _from_json(path, text) if text.lstrip().startswith(("[", "{")) else _from_csv(path, text)
    if not rows:
        raise ValueError(f"heatmap {path} has no cells; {_SHAPE}")
    return Heatmap.of(rows)


def _from_csv(path: str, text: str) -> list[tuple[float, float, float]]:
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"heatmap {path} has no column {missing[0]}; {_SHAPE}")
    return [_cell(f"{path} line {reader.line_num}", row) for row in reader]


def _from_json(path: str, text: str) -> list[tuple[float, float, float]]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise ValueError(f"heatmap {path} is no JSON: {error}; {_SHAPE}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"heatmap {path} is JSON, but no list of objects; {_SHAPE}")
    return [_cell(f"{path} entry {place}", row) for place, row in enumerate(rows, 1)]


def _cell(where: str, row: Mapping[str, object]) -> tuple[float, float, float]:
    prompt, ratio, advantage = (_number(where, name, row.get(name)) for name in COLUMNS)
    for name, value in (("prompt_tokens", prompt), ("decode_ratio", ratio)):
        if value <= 0:
            raise ValueError(f"heatmap {where}: {name} is {value:g}; allowed: a positive number, its bin's upper edge")
    return prompt, ratio, advantage


def _number(where: str, name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not isfinite(number):
        raise ValueError(f"heatmap {where}: {name} is {value!r}; allowed: a finite number")
    return number
