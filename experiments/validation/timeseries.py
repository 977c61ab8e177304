"""Read ``timeseries.csv`` of a recorded vLLM run: what vLLM said of itself, once a tick.

Columns ``t`` (end of the tick, s), ``prompt_throughput`` (prompts whose first token fell in the tick, tokens/s),
``running``, ``waiting`` and ``kv_cache_pct`` (of the tick's last iteration). Source: LLMServingSim 2,
bench/core/stat_logger.py. Until September 2026 that recorder read a field that vLLM had renamed and wrote
``kv_cache_pct`` as 0.0 throughout (its own comment): such a column counts as not recorded here.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config_base import ConfigError
from experiments.vllm_run import Record
from reference_impl.latency.errors import reason

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Floats = NDArray[float64]

_COLUMNS = ("t", "prompt_throughput", "running", "waiting", "kv_cache_pct")
_RESOLUTION_S = 0.001


@dataclass(frozen=True)
class Timeseries:
    """Arrays of equal length."""

    tick_end_s: Floats
    """On the recorder's own clock, which starts some time before the first request."""
    prompt_tokens_per_s: Floats
    running: Floats
    waiting: Floats
    kv_use: Floats | None
    """Share of the KV blocks; None where it was not recorded."""

    def start_s(self, record: Record) -> float:
        """When the recorder's clock started, in seconds after the first request was queued.

        The one number that the two files of a run do not share. Found from the run alone: with it, the prompts of
        each tick add up to ``prompt_throughput`` (the middle of the range in which they do so best, to 1 ms).
        """
        import numpy as np

        tick_s = float(np.diff(self.tick_end_s).min()) if len(self.tick_end_s) > 1 else float(self.tick_end_s[0])
        order = np.argsort(record.first_token_s, kind="stable")
        first_s = record.first_token_s[order]
        tokens = np.append(0, np.cumsum(record.prompt_tokens[order]))
        tick = int(np.argmax(self.prompt_tokens_per_s > 0))
        earliest_s = first_s[0] - self.tick_end_s[tick]
        starts_s = np.arange(earliest_s, earliest_s + tick_s, _RESOLUTION_S)
        ends_s = starts_s[:, None] + self.tick_end_s
        before = tokens[np.searchsorted(first_s, ends_s, side="left")]
        until = tokens[np.searchsorted(first_s, ends_s - tick_s, side="left")]
        missed = np.abs(before - until - tick_s * self.prompt_tokens_per_s).sum(axis=1)
        return float(np.median(starts_s[missed <= missed.min() + 1e-6]))


def read_timeseries(path: Path) -> Timeseries:
    """Raises ConfigError naming file, line, column and value."""
    import numpy as np

    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [[_number(path, reader.line_num, row, name) for name in _COLUMNS] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read {path}: {reason(error)}") from error
    if not rows:
        raise ConfigError(f"{path} has no rows")
    columns = np.array(rows, np.float64).T
    if (np.diff(columns[0]) <= 0).any():
        raise ConfigError(f"{path}: t must ascend")
    kv_recorded = bool((columns[4] > 0).any() or not (columns[2] > 0).any())
    tick_end_s, prompt, running, waiting, kv_pct = columns
    return Timeseries(tick_end_s, prompt, running, waiting, kv_pct / 100 if kv_recorded else None)


def _number(path: Path, line: int, row: dict[str, str], column: str) -> float:
    text = row.get(column)
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15:
        raise ConfigError(f"{path}, line {line}: {column} is {text!r}; it must be a number of 0 or more")
    return value
