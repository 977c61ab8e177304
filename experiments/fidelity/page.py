"""A study as one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.config_file import to_yaml
from experiments.fidelity.figures import by_policy, diagonal
from experiments.fidelity.study import Study
from experiments.fidelity.table import errors_table, paced, ranking_table
from experiments.report.template import write_page

_TEMPLATE = "fidelity.html.jinja"


def write_study(path: Path, study: Study) -> None:
    """Write the page, whole or not at all. Equal studies give equal pages."""
    write_page(path, _TEMPLATE, _content(study))


def _content(study: Study) -> dict[str, Any]:
    from markupsafe import Markup

    config = study.config
    profile = study.profile
    return {
        "title": config.title,
        "bars": study.bars,
        "repeats": config.repeats,
        "traces": [
            {
                "name": f"{trace}{paced(study, trace)}",
                "svg": Markup(by_policy(study, trace)),
                "table": errors_table(study, trace),
            }
            for trace in config.traces
        ],
        "diagonal": Markup(diagonal(study)),
        "rankings": ranking_table(study.rankings),
        "effect_pct": f"{100 * config.min_effect:g}",
        "provenance": profile["provenance"],
        "overheads": {key: value for key, value in (profile.get("overheads") or {}).items() if value is not None},
        "environment": profile.get("environment", {}),
        "configuration": to_yaml(config),
    }
