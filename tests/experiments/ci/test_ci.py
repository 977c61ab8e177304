"""What a CI reads of a comparison: a test case for each gated cell, and a comment with the verdict first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from experiments.cases.model import Case, Outcome
from experiments.ci import junit_xml, markdown_text
from experiments.cli import run
from experiments.compare import Comparison, compare, gate
from experiments.compare_config import CompareConfig
from experiments.config_file import parse

ODD = "new | `x` <b>&\x00"
METRICS = {"attainment": {"min_effect": 0.01}, "ttft_p99_ms": {}}


def _figures(case: Case) -> Mapping[str, float]:
    """The odd one is worse at a rate of 2, and equal at 1 but for noise."""
    effect = -0.1 * (case.variant == ODD and case.rate == 2) + 0.001 * (-1) ** case.seed * (case.variant == ODD)
    return {"attainment": 0.5 + 0.05 * case.seed + effect, "ttft_p99_ms": 100.0 + case.seed}


def _comparison(**changes: Any) -> Comparison:
    content = {
        "variants": {"old": {}, ODD: {"policies": {"dispatch": "random"}}},
        "rates": [1, 2],
        "rate_key": "rate_rps",
        "seeds": [0, 1, 2, 3],
    }
    config = parse(CompareConfig, {**content, "title": "A | title", "metrics": METRICS, **changes}, "test")
    return compare(config, runner=lambda case: Outcome(_figures(case)))


def test_each_gated_cell_is_a_test_case_and_a_regression_a_failure_that_says_how_large() -> None:
    found = _comparison()
    root = ElementTree.fromstring(junit_xml(found, gate(found)).encode())
    (suite,) = root
    assert root.tag == "testsuites"
    assert [suite.get(key) for key in ("name", "tests", "failures", "errors")] == ["A | title", "2", "1", "0"]
    good, bad = suite.findall("testcase")
    assert good.get("classname") == bad.get("classname") == "semiflow.attainment"
    assert good.get("name") == "new | `x` <b>&\ufffd against old, default at 1 requests/s"
    assert good.find("failure") is None
    failure = bad.find("failure")
    assert failure is not None
    assert failure.get("type") == "regression"
    for said in ("worse: ", "-0.1 (-17.39%) [", "over 4 seeds, d -", "smallest effect that counts: 0.01"):
        assert said in (failure.text or "")


def test_the_comment_begins_with_the_verdict_and_folds_what_is_not_gated() -> None:
    found = _comparison()
    lines = markdown_text(found, gate(found), gated=True).splitlines()
    assert lines[0] == "❌ **semiflow: 1 regression** (1 worse, 1 no difference)"
    assert lines[4].startswith(
        "| ❌ worse | `new \\| 'x' <b>&\x00` | `default at 2 requests/s` | SLO attainment | 0.575 |"
    )
    assert "−0.100 (−17.4%)" in lines[4]
    assert lines[5].startswith("| ➖ no difference |")
    assert "<details><summary>2 more verdicts</summary>" in lines
    assert lines[-1].startswith("A \\| title · baseline `old` · 4 seeds, 95 % intervals")
    unescaped = [line.replace("\\|", "").count("|") for line in lines if line.startswith("|")]
    assert set(unescaped) == {10}


def test_without_a_gate_the_comment_only_counts() -> None:
    assert markdown_text(_comparison(), [], gated=False).startswith("**semiflow: 1 worse, 1 no difference**")
    assert markdown_text(_comparison(rates=[1]), [], gated=True).startswith("✅ **semiflow: no regression**")


JUDGE = """
base:
  workload: {trace: "bundled:sharegpt-like", max_requests: 30, rate_rps: 20}
  fleet: {groups: [{count: 2, role: colocated}]}
  slo: {ttft_s: 0.5, tpot_s: 0.03}
variants:
  even: {policies: {dispatch: round_robin}}
  one: {fleet: {groups: [{count: 1, role: colocated}]}}
seeds: [0, 1, 2, 3]
pairing: {kind: arrivals}
metrics:
  device_held_s: {better: higher}
"""


@pytest.mark.parametrize(
    ("flags", "code"),
    [((), 0), (("--gate",), 1), (("--gate", "--min-effect", "90%"), 0)],
)
def test_only_the_gate_decides_over_the_exit_code(
    flags: tuple[str, ...],
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One instance holds half the devices for a little longer: surely fewer device-seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.report.write_report", lambda page, part: None)
    (tmp_path / "judge.yaml").write_text(JUDGE, encoding="utf-8")
    files = ("--junit", "junit.xml", "--markdown", "comment.md")
    assert run(["compare", "judge.yaml", "--out", "out", "--processes", "1", *files, *flags]) == code
    failures = ElementTree.parse(tmp_path / "junit.xml").getroot().get("failures")
    assert failures == ("1" if code or not flags else "0")
    assert (tmp_path / "comment.md").read_text(encoding="utf-8").count("| `one` |") == 1
    assert ("gate: 1 regression" in capsys.readouterr().err) == bool(code)
