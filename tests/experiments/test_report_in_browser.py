"""The report as a browser sees it: nothing to complain of, and one colour for each policy in every figure."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.cases.model import Case, Outcome
from experiments.compare import compare
from experiments.compare_config import CompareConfig
from experiments.config_file import parse
from experiments.report import Part, write_report
from experiments.report.theme import policy_colours

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
POLICIES = {"old": "round_robin", "new & <fast>": "mine:Fast", "third": "least_loaded"}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=1000")
LEGEND_ENTRY = re.compile(r'<g id="line2d_\d+">.*?stroke: (#\w{6}).*?<text[^>]*>(.*?)</text>', re.DOTALL)


def _outcome(case: Case) -> Outcome:
    late = 1.0 + len(case.variant) * (case.rate or 1.0) + 0.1 * case.seed
    figures = {f"{family}_{p}_ms": 100 * late for family in ("ttft", "tpot") for p in ("p50", "p99")}
    timeline = {"time_s": [0.0, 1.0], "running": [0.0, late]}
    figures |= {"attainment": 1 / late, "goodput_rps": 1 / late, "offered_rps": case.rate or 1.0}
    return Outcome(figures, {"ttft_ms": [1, late]}, timeline)


def _legends(page: str) -> list[dict[str, str]]:
    """Of each figure: label -> colour."""
    figures = re.findall(r'<svg class="figure".*?</svg>', page, re.DOTALL)
    entries = [LEGEND_ENTRY.findall(figure.split('<g id="legend_1">')[1]) for figure in figures]
    return [{html.unescape(label): colour for colour, label in found} for found in entries]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_no_console_message_and_one_colour_for_each_policy(tmp_path: Path) -> None:
    variants = {name: {"policies": {"dispatch": text}} for name, text in POLICIES.items()}
    content = {"variants": variants, "seeds": [0, 1], "rates": [1, 2], "rate_key": "rate_rps"}
    write_report(tmp_path / "report.html", Part(compare(parse(CompareConfig, content, "test"), runner=_outcome)))
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, profile, "--dump-dom", (tmp_path / "report.html").as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert not [line for line in seen.stderr.splitlines() if "CONSOLE" in line]
    colours = policy_colours(POLICIES.values())
    expected = {name: colours[text] for name, text in POLICIES.items()}
    legends = _legends(seen.stdout)
    assert len(legends) == 5
    assert [legend for legend in legends if legend != expected] == [{n: c for n, c in expected.items() if n != "old"}]
    for name, colour in expected.items():
        swatch = re.compile(rf'background:\s*{colour}"></span>{re.escape(html.escape(name))}<')
        assert len(swatch.findall(seen.stdout)) >= 2
