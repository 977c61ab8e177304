"""The demo's tables and page agree with its runs, and name the assumption that they rest on."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.config_base import ConfigError
from experiments.demo import ASSUMPTION, Demo, as_text, contention_lines, run_demo
from experiments.settled import LEGEND

REQUESTS = 1100
"""Just more than the warm-up, so that there are figures."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return run_demo(tmp_path_factory.mktemp("demo"), seeds=2, requests=REQUESTS)


def test_it_compares_four_ways_at_equal_devices(demo: Demo) -> None:
    devices = {case.config.fleet.instances * case.config.fleet.tp for case in demo.policies.cases}
    assert devices == {4}
    assert list(demo.policies.config.variants) == ["chunked", "prefill_first", "disaggregated 1P3D", "semi_pd"]


def test_the_sweep_changes_the_assumption_and_nothing_else(demo: Demo) -> None:
    configs = [case.config for case in demo.contention.cases if case.variant == "semi_pd" and case.seed == 0]
    assert len({config.contention for config in configs}) == len(configs) == 5
    assert len({config.model_copy(update={"contention": configs[0].contention}) for config in configs}) == 1


def test_policies_without_shared_devices_run_once_for_the_whole_sweep(demo: Demo) -> None:
    others = {case.key for case in demo.contention.cases if case.variant != "semi_pd"}
    assert len(others) == 2 * len(demo.contention.config.seeds)
    assert others < {case.key for case in demo.policies.cases}


def test_text_and_page_state_the_horizon(demo: Demo) -> None:
    assert as_text(demo).count("1,100 requests per run (1,024 of them warm-up), ") == 2
    assert "1,100 requests per run" in demo.page.read_text(encoding="utf-8")


def test_runs_this_short_are_marked_in_text_and_page(demo: Demo) -> None:
    row = next(line for line in as_text(demo).splitlines() if line.startswith("prefill_first"))
    assert row.split()[-1].endswith("*")
    assert LEGEND in as_text(demo)
    assert LEGEND in demo.page.read_text(encoding="utf-8")


def test_the_text_states_the_assumption(demo: Demo) -> None:
    assert ASSUMPTION in as_text(demo)
    assert "assumed gamma" in as_text(demo)


def test_verdicts_are_seen_from_semi_pd(demo: Demo) -> None:
    """The comparison's baseline is semi-PD; the table turns sign and word."""
    (judgement,) = (j for j in demo.contention.judgements if (j.workload, j.variant) == ("gamma 0.5", "chunked"))
    assert judgement.difference is not None
    shown = next(line for line in contention_lines(demo.contention) if line.startswith("0.5 "))
    assert f"{-judgement.difference.mean:+.3f}" in shown


def test_the_one_page_holds_both_parts_and_needs_no_network(demo: Demo) -> None:
    assert [path.name for path in demo.page.parent.glob("*.html")] == ["report.html"]
    text = demo.page.read_text(encoding="utf-8")
    assert all(found.config.title in text for found in (demo.policies, demo.contention))
    assert "is an assumption of the cost model" in text
    assert "<th>semi_pd against prefill_first</th>" in text
    assert text.count('<svg class="figure"') == 10
    assert not any(f'{attribute}="http' in text for attribute in ("src", "href"))


def test_a_second_run_takes_the_finished_cases(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished case was run again")

    monkeypatch.setattr("experiments.run.execute", refuse)
    again = run_demo(demo.page.parent, seeds=2, requests=REQUESTS)
    assert again.policies.judgements == demo.policies.judgements


def test_a_page_that_is_no_report_of_ours_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("my thesis", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no report of semiflow's"):
        run_demo(tmp_path, seeds=1, requests=10)
    assert page.read_text(encoding="utf-8") == "my thesis"
