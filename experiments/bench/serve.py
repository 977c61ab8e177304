"""The live deployment's part of issue 3's table: what it costs beyond its engine. Needs the extra ``serve``.

Everything runs on this host, the client included, so a machine that is busy with something else is measured with it;
CPU times suffer less from that than latencies do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from experiments.bench.figures import Figure
from experiments.bench.serve_start import start_up
from experiments.bench.serve_streams import many_streams
from experiments.bench.serve_tokens import token_cost
from experiments.bench.serve_ttft import first_token
from experiments.bench.serve_weights import weights_shared
from experiments.config_base import ConfigError

Row = Literal["start", "ttft", "tokens", "streams", "weights"]
ROWS: tuple[Row, ...] = get_args(Row)
Report = Callable[[str], None]
_ROWS: dict[Row, tuple[str, Callable[[Path, bool, Report], list[Figure]]]] = {
    "start": ("start", start_up),
    "ttft": ("time to first token", first_token),
    "tokens": ("streamed tokens against Ray Serve alone", token_cost),
    "streams": ("200 streams at once", many_streams),
    "weights": ("memory of the weights", weights_shared),
}


def chosen(names: Sequence[str]) -> list[Row]:
    """The rows of these names, in the order of :data:`ROWS`. Raises ConfigError."""
    for name in names:
        if name not in ROWS:
            raise ConfigError(f"there is no row {name!r} (allowed: {', '.join(ROWS)})")
    return [row for row in ROWS if row in names]


def run_serve_suite(quick: bool, report: Report = lambda _: None, rows: Sequence[Row] = ROWS) -> list[Figure]:
    """Measure ``rows``, each on a deployment of its own; ``quick``: fewer and shorter rounds, for a glance."""
    figures: list[Figure] = []
    for row in rows:
        title, measure = _ROWS[row]
        report(title)
        with tempfile.TemporaryDirectory(prefix="semiflow-bench-") as folder:
            figures += measure(Path(folder), quick, report)
    return figures
