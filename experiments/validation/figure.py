"""A recorded run and its simulation over time: a picture, its data, and what both rest on."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.config_base import ConfigError
from experiments.validation.over_time import OverTime
from reference_impl.latency.errors import reason

_LABELS = {"running": "running requests", "waiting": "waiting requests", "kv_use_pct": "KV use (%)"}
_FORMATS = (".svg", ".png", ".pdf")


def write(found: OverTime, path: Path, manifest: dict[str, Any]) -> None:
    """Write ``path`` (a picture), and beside it the same name with ``.csv`` and ``.json``.

    Raises ConfigError where the name does not end in a format that can be drawn, or cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"cannot draw {path}: the name must end in {', '.join(_FORMATS)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _draw(found, path)
        _table(found, path.with_suffix(".csv"))
        text = json.dumps(manifest | {"over_time": facts(found)}, indent=1)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}") from error


def facts(found: OverTime) -> dict[str, Any]:
    """What is compared, without the series; ready for JSON."""
    told = asdict(found)
    return {key: told[key] for key in ("kv_blocks", "kv_source", "agreement")}


def _draw(found: OverTime, path: Path) -> None:
    import matplotlib as mpl
    import seaborn as sns

    from experiments.report.theme import COLOURS, panels

    figure = panels(len(_LABELS), 1, 6.0, sharex="col")
    for ax, (name, label) in zip(figure.axes, _LABELS.items(), strict=True):
        source = f"vLLM, from {found.kv_source}" if name == "kv_use_pct" else "vLLM, timeseries.csv"
        for side, values, style in ((source, found.real, "-"), ("simulated", found.simulated, "--")):
            colour = COLOURS[style == "--"]
            sns.lineplot(x=found.time_s, y=values[name], ax=ax, label=side, color=colour, ls=style, estimator=None)
        ax.set_ylabel(label)
        ax.set_ylim(bottom=0)
        ax.margins(x=0)
        ax.legend(frameon=False)
    figure.axes[-1].set_xlabel("seconds since the first request was queued")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "over_time"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None, dpi=120)


def _table(found: OverTime, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["time_s", *(f"{name}_{side}" for name in _LABELS for side in ("real", "simulated"))])
        columns = [series[name] for name in _LABELS for series in (found.real, found.simulated)]
        for time_s, *values in zip(found.time_s, *columns, strict=True):
            table.writerow([f"{time_s:.3f}", *(f"{value:.6g}" for value in values)])
