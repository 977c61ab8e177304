"""``semiflow demo --live``: a small deployment on this machine under three policies, beside the same simulated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config_file import load
from experiments.fidelity.config import FidelityConfig
from experiments.fidelity.page import write_study
from experiments.fidelity.study import PAGE, Profiler, Study, run_study
from experiments.preflight import check_out

if TYPE_CHECKING:
    from experiments.config import RunConfig
    from experiments.fidelity.hosts import LiveHost

_CONFIG = Path(__file__).with_name("configs") / "demo_live.yaml"


def run_demo_live(
    out: Path, report: Callable[[str], None], *, host: LiveHost | None = None, profiler: Profiler | None = None
) -> tuple[Study, Path]:
    """The study and its page. Finished runs in ``out`` are not run again."""
    from experiments.fidelity.hosts import Deployed

    page = out / PAGE
    check_out(out, page)
    with contextlib.ExitStack() as stack:
        study = run_study(
            load(_CONFIG, FidelityConfig),
            out,
            host or stack.enter_context(Deployed(report)),
            profiler or _quick_profile,
            source=_CONFIG.name,
            progress=lambda done, total, what: report(f"[{done}/{total}] {what}"),
        )
    write_study(page, study)
    return study, page


def _quick_profile(config: RunConfig, path: Path) -> None:
    from experiments.profiling.run import profile_engine

    profile_engine(config, path, rounds=1, quick=True)
