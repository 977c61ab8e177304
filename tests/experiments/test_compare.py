"""Comparing variants: pairing, resuming, verdicts, the gate. The runner is a formula, so every answer is known."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cases.model import Case, Outcome
from experiments.compare import Comparison, compare, describe, gate
from experiments.compare_config import CompareConfig, expand, merge
from experiments.config_base import ConfigError
from experiments.config_file import parse

ROOT = Path(__file__).parents[2]
SLO = {"slo": {"ttft_s": 1.0}}
TWO = {"old": {"policies": {"dispatch": "round_robin"}}, "new": {"policies": {"dispatch": "random"}}}
OWNER = """
import pathlib, sys
from experiments.cases.scratch import scratch_folder
with scratch_folder(pathlib.Path(sys.argv[1])) as own:
    (own / "case-1").mkdir()
    print(own, flush=True)
    input()
"""
Figures = Callable[[Case], Mapping[str, float]]


def _config(**changes: Any) -> CompareConfig:
    return parse(CompareConfig, {"base": SLO, "variants": TWO, "seeds": [0, 1, 2, 3, 4], **changes}, "test.yaml")


def _runner(figures: Figures) -> Callable[[Case], Outcome]:
    return lambda case: Outcome(metrics=figures(case))


def _better_by(effect: float) -> Figures:
    """Seeds differ a lot, variants by ``effect`` in every seed (and a little noise): only pairing can tell."""
    return lambda case: {
        "attainment": 0.5 + 0.08 * case.seed + (case.variant == "new") * (effect + 0.001 * (-1) ** case.seed)
    }


def _compare(figures: Figures, **changes: Any) -> Comparison:
    return compare(_config(**changes), runner=_runner(figures))


def test_pairing_sees_an_effect_that_is_small_beside_the_spread_of_the_seeds() -> None:
    (judgement,) = _compare(_better_by(0.03)).judgements
    assert judgement.verdict == "better"
    assert judgement.difference is not None
    assert judgement.difference.mean == pytest.approx(0.0302)
    assert (judgement.variant, judgement.baseline, judgement.difference.seeds) == ("new", "old", 5)


def test_an_effect_below_the_threshold_is_no_difference() -> None:
    (judgement,) = _compare(_better_by(0.001)).judgements
    assert judgement.verdict == "no difference"


def test_lower_latency_is_better_and_the_threshold_may_be_relative() -> None:
    def figures(case: Case) -> Mapping[str, float]:
        return {"ttft_p99_ms": 1000.0 - 100 * (case.variant == "new") + case.seed}

    metrics = {"ttft_p99_ms": {"min_effect": 0.05, "relative": True}}
    (judgement,) = _compare(figures, metrics=metrics).judgements
    assert judgement.verdict == "better"
    assert judgement.min_effect == pytest.approx(0.05 * 1002)


def test_every_workload_rate_and_variant_is_judged() -> None:
    found = _compare(
        _better_by(0.1),
        workloads={"a": {}, "b": {"workload": {"trace": "bundled:other"}}},
        rates=[1, 2, 4],
        rate_key="rate_scale",
        variants={**TWO, "third": {}},
    )
    assert len(found.judgements) == 2 * 3 * 2
    assert len(found.cases) == 2 * 3 * 3 * 5


def test_seeds_without_the_metric_are_left_out_and_named() -> None:
    def figures(case: Case) -> Mapping[str, float]:
        return {} if case.seed == 3 and case.variant == "old" else _better_by(0.1)(case)

    (judgement,) = _compare(figures).judgements
    assert judgement.missing_seeds == (3,)
    assert judgement.difference is not None
    assert judgement.difference.seeds == 4


def test_a_metric_that_nobody_has_is_inconclusive() -> None:
    (judgement,) = _compare(lambda case: {}).judgements
    assert (judgement.verdict, judgement.difference, judgement.variant_mean) == ("inconclusive", None, None)
    assert "cannot be judged" in describe(judgement)


@pytest.mark.parametrize(
    ("rate_key", "said"), [("rate_rps", "default at 4 requests/s"), ("rate_scale", "default at 4 x the recorded rate")]
)
def test_a_verdict_says_what_its_rate_is(rate_key: str, said: str) -> None:
    (judgement,) = _compare(_better_by(0.1), rates=[4], rate_key=rate_key).judgements
    assert said in describe(judgement)


def test_the_gate_lists_regressions_of_its_metrics_only() -> None:
    def figures(case: Case) -> Mapping[str, float]:
        return {**_better_by(-0.1)(case), "goodput_rps": 1.0 + case.seed + 5 * (case.variant == "old")}

    metrics = {"attainment": {"min_effect": 0.01}, "goodput_rps": {}}
    assert [found.metric for found in gate(_compare(figures, metrics=metrics))] == ["attainment"]
    assert [found.metric for found in gate(_compare(figures, metrics=metrics, gate=["goodput_rps"]))] == ["goodput_rps"]
    assert gate(_compare(_better_by(0.1))) == []


def test_the_gate_passes_what_is_smaller_than_the_effect_that_counts() -> None:
    content = _config(metrics={"attainment": {}, "goodput_rps": {"better": "higher"}})
    metric = content.with_min_effect(0.05, relative=False).metrics["attainment"]
    assert (metric.min_effect, metric.relative, content.metrics["attainment"].min_effect) == (0.05, False, 0.0)
    for size, relative, regressions in ((0.02, False, 1), (0.04, False, 0), (0.04, True, 1), (0.05, True, 0)):
        config = _config().with_min_effect(size, relative)
        found = compare(config, runner=_runner(_better_by(-0.03)))
        assert len(gate(found)) == regressions, (size, relative)


def test_the_effect_is_stated_in_three_ways() -> None:
    (judgement,) = _compare(_better_by(-0.03)).judgements
    assert judgement.relative_difference == pytest.approx(-0.0298 / 0.66)
    assert judgement.paired_d == pytest.approx(-0.0298 / np.std([0.001 * (-1) ** seed for seed in range(5)], ddof=1))
    assert "-0.0298 (-4.52%)" in describe(judgement)


@pytest.mark.parametrize(
    ("overrides", "called"),
    [
        ({"policies": {"dispatch": "random", "batch": "vtc"}}, "random + vtc"),
        ({"policies": {"dispatch": "random"}, "seed": 1}, "new"),
        ({}, "new"),
    ],
)
def test_a_variant_is_called_by_its_policies_where_it_sets_nothing_else(overrides: dict[str, Any], called: str) -> None:
    assert _config(variants={"old": {}, "new": overrides}).policy_of("new") == called


def test_the_gate_fails_a_variant_that_lost_the_figure() -> None:
    def figures(case: Case) -> Mapping[str, float]:
        return {} if case.variant == "new" else _better_by(0.0)(case)

    assert len(gate(_compare(figures))) == 1


def test_the_gate_refuses_to_judge_one_seed_or_an_absent_metric() -> None:
    with pytest.raises(ConfigError, match="two seeds or more"):
        gate(_compare(_better_by(0.1), seeds=[0]))
    with pytest.raises(ConfigError, match="the baseline 'old' has no attainment"):
        gate(_compare(lambda case: {}))


def test_finished_cases_are_not_run_again(tmp_path: Path) -> None:
    ran: list[int] = []

    def runner(case: Case) -> Outcome:
        ran.append(case.seed)
        return Outcome(_better_by(0.1)(case))

    compare(_config(seeds=[0, 1]), tmp_path, runner=runner)
    assert len(ran) == 4
    compare(_config(seeds=[0, 1, 2]), tmp_path, runner=runner)
    assert ran[4:] == [2, 2]


def test_a_comparison_leaves_alone_what_another_one_works_in(tmp_path: Path) -> None:
    others = [tmp_path / ".scratch", tmp_path / ".scratch-of-another", tmp_path / f".scratch-{os.getppid()}"]
    for other in others:
        (other / "case-1").mkdir(parents=True)
    compare(_config(), tmp_path, runner=_runner(_better_by(0.1)))
    assert all((other / "case-1").is_dir() for other in others)


def test_a_comparison_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        compare(_config(), tmp_path, runner=_runner(_better_by(0.1)))
        assert (folder / "case-1").is_dir()
        process.kill()
    assert folder.is_dir()
    compare(_config(), tmp_path, runner=_runner(_better_by(0.1)))
    assert not list(tmp_path.glob(".scratch*"))


def test_an_interrupt_keeps_the_finished_cases(tmp_path: Path) -> None:
    def interrupted(case: Case) -> Outcome:
        if case.seed == 2:
            raise KeyboardInterrupt
        return Outcome(_better_by(0.1)(case))

    with pytest.raises(KeyboardInterrupt):
        compare(_config(), tmp_path, runner=interrupted)
    kept = sorted((tmp_path / "cases").iterdir())
    assert len(kept) == 2
    assert all(json.loads(path.read_text())["outcome"]["metrics"] for path in kept)
    assert not list(tmp_path.glob(".scratch*"))
    assert len(compare(_config(), tmp_path, runner=_runner(_better_by(0.1))).outcomes) == 10


def test_progress_counts_cases_and_starts_with_the_stored_ones(tmp_path: Path) -> None:
    compare(_config(seeds=[0]), tmp_path, runner=_runner(_better_by(0.1)))
    told: list[tuple[int, int]] = []
    compare(
        _config(seeds=[0, 1]),
        tmp_path,
        runner=_runner(_better_by(0.1)),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(2, 4), (3, 4), (4, 4)]


def test_the_json_holds_verdicts_and_cases() -> None:
    content = json.loads(json.dumps(_compare(_better_by(0.1)).to_json()))
    assert content["verdicts"][0]["verdict"] == "better"
    assert content["verdicts"][0]["difference"]["confidence"] == 0.95
    assert len(content["cases"]) == 10
    assert content["config"]["variants"] == TWO


def test_a_seed_draws_other_blocks_and_a_rate_scales_recorded_arrivals() -> None:
    case = expand(_config(rates=[2.0], rate_key="rate_scale", pairing={"kind": "blocks", "length_s": 30}))[-1]
    workload = case.config.workload
    assert (workload.rate_scale, workload.rate_rps, workload.resample_block_s) == (2.0, None, 30.0)
    assert (case.seed, case.config.seed) == (4, 4)


def test_windows_follow_each_other() -> None:
    cases = expand(_config(pairing={"kind": "windows", "length_s": 100}))
    assert [case.config.workload.window_s for case in cases[:2]] == [(0.0, 100.0), (100.0, 200.0)]


def test_both_variants_of_a_pair_see_the_same_traffic() -> None:
    cases = expand(_config(rates=[3.0], rate_key="rate_rps"))
    by_variant = {name: [c.config.workload for c in cases if c.variant == name] for name in TWO}
    assert by_variant["old"] == by_variant["new"]


def test_later_layers_win_and_keep_what_they_do_not_name() -> None:
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"d": [1]}, {"d": [2]}) == {"a": {"b": 3, "c": 2}, "d": [2]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baselin": "old"}, "unknown key 'baselin'.*did you mean 'baseline'"),
        ({"baseline": "odl"}, "baseline: 'odl' is not there; did you mean 'old'\\? allowed: old, new"),
        ({"gate": ["goodput_rps"]}, "gate: 'goodput_rps' is not there; allowed: attainment"),
        ({"variants": {"only": {}}}, "variants"),
        ({"seeds": [1, 1]}, "seeds: every value may stand once"),
        ({"metrics": {"lane_utilisation": {}}}, "say which way is better"),
        ({"rates": [0], "rate_key": "rate_rps"}, r"rates\[0\]"),
        ({"rates": [4]}, "rates: say what they set: `rate_key: rate_rps` .* or `rate_key: rate_scale`"),
        ({"sweep": {"label": "x", "values": {"a": 1, "b": 2}}}, "sweep.values: 'a' is not there; allowed: default"),
    ],
)
def test_a_wrong_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _config(**changes)


def test_a_typo_in_an_override_is_refused_before_anything_runs(tmp_path: Path) -> None:
    def forbidden(case: Case) -> Outcome:
        raise AssertionError

    config = _config(variants={**TWO, "third": {"policies": {"dispach": "random"}}})
    with pytest.raises(ConfigError, match=r"gate\.yaml: variant 'third'.*unknown key 'policies\.dispach'"):
        compare(config, tmp_path, runner=forbidden, source="gate.yaml")


def test_windows_and_a_window_of_ones_own_exclude_each_other() -> None:
    base = {**SLO, "workload": {"window_s": [0, 10]}}
    with pytest.raises(ConfigError, match="leave one of them out"):
        expand(_config(base=base, pairing={"kind": "windows"}))
