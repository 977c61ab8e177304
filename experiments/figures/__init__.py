"""Figures of known effects, each with its data and the bands that it was expected in: one module per figure."""

from __future__ import annotations

from experiments.figures.herding import HERDING
from experiments.figures.stale_views import STALE_VIEWS
from experiments.figures.study import Study

STUDIES: dict[str, Study] = {study.name: study for study in (HERDING, STALE_VIEWS)}
"""What ``semiflow figure`` can make."""
