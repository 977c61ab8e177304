"""The runner that simulates a case."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.cases.model import Case, Outcome

if TYPE_CHECKING:
    from reference_impl.metrics import RunLog

_QUANTILES = 201
_TIMELINE_POINTS = 240


@dataclass(frozen=True)
class Simulated:
    """Simulates in a folder under ``scratch`` (None: the system's) that is gone afterwards; keeps curves, no events."""

    scratch: Path | None = None

    def __call__(self, case: Case) -> Outcome:
        """Run one case. Raises what ``experiments.run.execute`` raises; a PolicyError names the case."""
        from experiments.run import EVENTS, execute
        from policies.api import PolicyError
        from reference_impl.metrics import read

        with tempfile.TemporaryDirectory(prefix="case-", dir=self.scratch) as folder:
            try:
                result = execute(case.config, Path(folder) / "run")
            except (
                PolicyError
            ) as error:  # a plain one: a policy's own subclass may not survive the way between processes
                raise PolicyError(f"{case.variant}, {case.workload}, seed {case.seed}: {error}") from error
            run = read(result.folder / EVENTS)
        return Outcome(
            metrics=dict(result.metrics),
            curves=_curves(run),
            timeline=_timeline(run),
            provenance=dict(result.manifest),
        )


def _curves(run: RunLog) -> dict[str, list[float]]:
    import numpy as np

    from reference_impl.metrics import per_request

    table = per_request(run)
    found = {}
    for name, values in (("ttft_ms", table.ttft_s), ("tpot_ms", table.tpot_s), ("e2e_ms", table.e2e_s)):
        known = values[~np.isnan(values)]
        if len(known):
            found[name] = _short(np.quantile(known, np.linspace(0, 1, _QUANTILES)) * 1e3)
    return found


def _timeline(run: RunLog) -> dict[str, list[float]]:
    from reference_impl.metrics import timeline

    shown = timeline(run, _TIMELINE_POINTS)
    return {name: _short(column) for name, column in shown._asdict().items() if column is not None}


def _short(values: object) -> list[float]:
    """Six significant digits: what a drawing needs."""
    import numpy as np

    return [float(f"{value:.6g}") for value in np.asarray(values, np.float64)]
