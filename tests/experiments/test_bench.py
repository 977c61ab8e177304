"""The benchmark measures what it says, and says what it measured."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from experiments.bench import Figure, as_json, as_text, base, million, policies, scale, workload
from experiments.bench.figures import Sample, median_loops
from experiments.bench.measure import colocated, measure
from experiments.bench.reference import reference_cpu_s
from experiments.cli import run
from experiments.config_base import ConfigError
from policies.registry import BUILTIN
from workloads.catalog import open_trace


def figure(value: float, better: str = "higher") -> Figure:
    assert better in ("higher", "lower")
    return Figure("f", value, "u", "higher" if better == "higher" else "lower", 1.5, 3, floor=10.0, aim=30.0, note="n")


def test_the_reference_loop_is_unchanged() -> None:
    """It checks its own result: a changed loop cannot be compared with older figures."""
    assert reference_cpu_s() > 0


@pytest.mark.parametrize(("value", "reached"), [(9.9, "missed"), (10.0, "floor"), (29.0, "floor"), (30.0, "aim")])
def test_a_higher_figure_reaches_its_targets_from_below(value: float, reached: str) -> None:
    assert figure(value).reached == reached


def test_a_lower_figure_reaches_its_targets_from_above() -> None:
    lower = Figure("f", 1.2, "x", "lower", None, 3, floor=1.5, aim=1.1)
    assert lower.reached == "floor"


def test_a_figure_without_targets_reaches_nothing() -> None:
    assert Figure("f", 1.2, "x", "lower", None, 3).reached is None


def test_loops_are_paired_with_their_own_run() -> None:
    """The second run met a machine half as fast: its loop took twice as long too."""
    assert median_loops([Sample(1.0, 0.5), Sample(2.0, 1.0)]) == 2.0


def test_the_table_shows_every_figure_with_its_note() -> None:
    text = as_text([figure(12.0)])
    assert "12" in text
    assert "floor" in text
    assert "f: n" in text
    assert as_json([figure(12.0)])["figures"][0]["reached"] == "floor"


def test_a_measured_run_costs_cpu_time() -> None:
    trace = open_trace("bundled:azure-conv-like:requests=30")
    sample = measure(colocated(2, "round_robin", "prefill_first"), trace)
    assert sample.cpu_s > 0
    assert sample.reference_s > 0


def test_without_the_trace_the_look_alike_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEMIFLOW_TRACES", str(tmp_path))
    monkeypatch.setenv("SEMIFLOW_CACHE", str(tmp_path))
    found, reading = workload.conversations(50, 8.0, 4096)
    assert len(found.trace) == 50
    assert found.label == "bundled:azure-conv-like (synthetic: azure_2023_conv is not at hand)"
    assert "azure-conv-like" in reading.name
    assert int((found.trace.prompt_tokens + found.trace.output_tokens).max()) <= 4096
    prefixes, _ = workload.shared_prefixes(50, 8.0, 4096)
    assert prefixes.trace.prefix_ids is not None


def test_seventy_percent_of_capacity_is_served() -> None:
    """At the load found, one instance keeps up: the run ends soon after the last arrival."""
    lengths = open_trace("bundled:azure-conv-like:requests=200")
    load = scale.seventy_percent(lengths)
    assert load.per_instance_rps > 0
    trace = scale.poisson(load, instances=8, requests=400)
    assert len(trace) == 400
    assert trace.mean_rate_rps == pytest.approx(8 * load.per_instance_rps, rel=0.2)
    assert np.isin(trace.prompt_tokens, lengths.prompt_tokens).all()


def test_the_million_reports_its_own_memory(capsys: pytest.CaptureFixture[str]) -> None:
    million.main(2.0, requests=200)
    answer = json.loads(capsys.readouterr().out)
    assert answer["cpu_s"] > 0
    assert answer["peak_rss_bytes"] > 10e6
    assert "Poisson" in answer["note"]


def test_every_policy_of_the_three_kinds_is_measured() -> None:
    found = {case.name.split(",")[0] for case in policies.cases()}
    for kind in ("dispatch", "batch", "partition"):
        assert {f"{kind} {name}" for name in BUILTIN[kind]} <= found


def test_a_policys_figure_states_the_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEMIFLOW_TRACES", str(tmp_path))
    monkeypatch.setenv("SEMIFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr(policies, "measure", lambda _, trace: Sample(len(trace) / 2500, 0.5))
    (figure,) = policies.run_policies(quick=True, only="dispatch round_robin")
    assert (round(figure.value), figure.floor, figure.reached) == (2500, 3000.0, "missed")
    assert figure.note == "1000 requests of bundled:azure-conv-like (synthetic: azure_2023_conv is not at hand)"


def test_a_name_that_no_case_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "policies", "--only", "round robin"]) == 2
    assert "no case has 'round robin' in its name; there are: " in capsys.readouterr().err


def test_another_version_is_measured_in_turns_with_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def loops(root: Path, words: tuple[str, ...] = ()) -> float:
        asked.append("head" if root == base.HERE else "base")
        return 2.0 if root == base.HERE else 1.0

    monkeypatch.setattr(base, "run_loops", loops)
    monkeypatch.setattr(base, "start_loops", loops)
    monkeypatch.setattr(base, "checkout", lambda _: nullcontext(Path("/base")))
    figures = base.run_against("v1", quick=False)
    assert asked[:4] == ["base", "head", "head", "base"]
    assert [(figure.value, figure.reached) for figure in figures] == [(0.5, "missed")] * 5


def test_a_version_that_does_not_exist_is_refused() -> None:
    if not (base.HERE / ".git").exists():
        pytest.skip("not a checkout")
    with pytest.raises(ConfigError, match="--base needs a commit of a semiflow checkout"), base.checkout("no-such-ref"):
        pass
