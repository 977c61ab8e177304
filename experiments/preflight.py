"""Whether a comparison can run at all: what its configuration names is looked up before the first case runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.cases.model import Case
from experiments.compare_config import CompareConfig
from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.config_build import build_cluster, build_trace, check_traffic
from experiments.run_folder import check_can_hold

if TYPE_CHECKING:
    from reference_impl.core.spec import ClusterSpec

_RATES = {"rate_rps", "rate_scale"}
_MARK = b"semiflow</title>"
"""Near the start of every report."""


def check_gate(config: CompareConfig) -> None:
    """Raises ConfigError where a gate has too few seeds to judge by."""
    if len(config.seeds) < 2:
        raise ConfigError(f"a gate needs two seeds or more to tell a regression from chance, got {list(config.seeds)}")


def check_runs(config: CompareConfig, cases: Sequence[Case], source: str) -> None:
    """Build the cluster of every variant and workload once, and open every trace. Raises ConfigError naming both."""
    _check_metrics(config, source)
    clusters: dict[tuple[str, str], ClusterSpec] = {}
    opened: set[tuple[int, str]] = set()
    for case in cases:
        try:
            cell = case.variant, case.workload
            if cell not in clusters:
                _check_targets(config, case.config)
                clusters[cell] = build_cluster(case.config)
            # Rates do not decide whether a trace opens. Seeds do only if they choose a window, which is in the text.
            traffic = len(clusters[cell].instances), case.config.workload.model_dump_json(exclude=_RATES)
            if traffic not in opened:
                opened.add(traffic)
                check_traffic(build_trace(case.config.workload, case.seed), clusters[cell])
        except ValueError as error:
            raise ConfigError(f"{source}: variant {case.variant!r}, workload {case.workload!r}: {error}") from error


def check_out(folder: Path, page: Path) -> None:
    """Raises ConfigError where ``folder`` cannot take files or is a run's, or ``page`` is there and no report."""
    check_can_hold(folder, told=folder)
    if (folder / "events.parquet").exists():
        raise ConfigError(f"{folder}: holds a run, which is kept as it is; choose another folder with --out")
    if os.path.lexists(page) and not (page.is_file() and _MARK in page.read_bytes()[:4096]):
        raise ConfigError(f"{page}: is no report of semiflow's; move it away or choose another folder with --out")


def _check_metrics(config: CompareConfig, source: str) -> None:
    from reference_impl.metrics import definition, definitions

    known = definitions()
    for name in config.metrics:
        if definition(name) is None:
            close = get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
            raise ConfigError(f"{source}: metrics: {name!r} is no figure of a run; {hint}")


def _check_targets(config: CompareConfig, run: RunConfig) -> None:
    """A figure that judges by a target, or a price, needs it."""
    given = [] if run.slo is None else [run.slo, *(run.slo.classes or {}).values()]
    for name in config.metrics:
        if name.startswith(("attainment", "goodput", "fluidity")) and run.slo is None:
            raise ConfigError(f"metric {name} needs an SLO, for instance slo: {{ttft_s: 1.0, tpot_s: 0.1}}")
        for target in ("ttft_s", "tpot_s"):
            has = [getattr(slo, target) is not None for slo in given]
            if name.startswith(f"attainment_{target[:4]}") and not any(has):
                raise ConfigError(f"metric {name} needs slo.{target}")
            if name.startswith("fluidity") and not all(has):
                raise ConfigError(f"metric {name} needs slo.{target}, and of each class too, for its tokens' deadlines")
        if name.startswith("cost") and run.fleet.price_per_device_hour is None:
            raise ConfigError(f"metric {name} needs fleet.price_per_device_hour; there is no price by default")
