"""Anchors: the arithmetic of their claims on made-up rows, their files, and small parts of their measurements."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.anchors import ANCHORS
from experiments.anchors.anchor import Claim, keep
from experiments.anchors.distserve import DISTSERVE, their_bisection
from experiments.anchors.splitwise import CASES, SPLITWISE
from experiments.anchors.splitwise_clusters import A100, DESIGNS, H100, Cluster, run_config
from experiments.anchors.splitwise_sizing import smallest
from experiments.anchors.splitwise_targets import keeps_targets, slowdowns
from experiments.cases.answers import Answers
from experiments.cli import run
from experiments.config_base import ConfigError
from experiments.figures.study import Row, check_free

NEEDS_TABLE = pytest.mark.skipif("SEMIFLOW_CALIBRATION" not in os.environ, reason="SEMIFLOW_CALIBRATION is not set")


NAMES = ("Baseline-A100", "Baseline-H100", "Splitwise-AA", "Splitwise-HH", "Splitwise-HA", "Splitwise-HHcap")


def splitwise_rows(rates: dict[str, float]) -> list[Row]:
    sized = ("iso-throughput", "conv", "sequences")
    at_their_highest = [(case, each, rates[each.name]) for case in CASES for each in DESIGNS[case[:2]]]
    at_one_rate = [(sized, each, 70.0) for each in DESIGNS["iso-power", "conv"]]
    return [
        {
            "design": design,
            "trace": trace,
            "decode_lookup": lookup,
            "cluster": cluster.name,
            "prompt_machines": cluster.prompts,
            "token_machines": cluster.tokens,
            "rate_rps": rate,
            "monotone": "True",
            "cost": cluster.cost,
            "power": cluster.power,
        }
        for (design, trace, lookup), cluster, rate in [*at_their_highest, *at_one_rate]
    ]


def test_clusters_are_equal_in_power_or_cost() -> None:
    for (design, _), clusters in DESIGNS.items():
        amounts = [each.power if design == "iso-power" else each.cost for each in clusters]
        assert min(amounts) > 0.93 * max(amounts)


def test_orderings_need_more_than_the_tolerance_of_the_search() -> None:
    found = SPLITWISE.claims(splitwise_rows(dict(zip(NAMES, (50.0, 80.0, 107.5, 90.0, 81.0, 109.65), strict=True))))
    conv = [claim for claim in found if claim.statement.startswith("equal power, conversation: ")]
    assert [round(claim.value, 4) for claim in conv] == [2.15, 1.0125, 1.02, 1.0125]
    assert [claim.verdict for claim in conv] == ["reproduced", "not reproduced", "reproduced", "not reproduced"]


def test_the_smallest_clusters_are_held_against_the_smallest_h100_baseline() -> None:
    rows = splitwise_rows(dict.fromkeys(NAMES, 50.0))
    bigger = [{**row, "cost": 999.0, "power": 9999.0} for row in rows if row["design"] == "iso-throughput"]
    found = {claim.statement: claim for claim in SPLITWISE.claims([*rows, *bigger])}
    power = found["equal throughput, conversation: power of Splitwise-HHcap over Baseline-H100"]
    cost = found["equal throughput, conversation: cost of Splitwise-AA over Baseline-H100"]
    assert power.value == pytest.approx((25 * 44.0 + 21 * 30.8) / (40 * 44.0))
    assert cost.value == pytest.approx(70 * 2.21 / (40 * 4.76))
    assert (power.verdict, cost.verdict) == ("not reproduced", "reproduced")


def test_no_pool_of_a_smallest_cluster_can_be_smaller() -> None:
    def carries(cluster: Cluster) -> bool:
        return 2 * cluster.prompts + 3 * cluster.tokens >= 20 and cluster.prompts >= 3

    found = smallest(Cluster("split", 1, H100, 1), carries)
    assert [(each.prompts, each.tokens) for each in found] == [(3, 5), (4, 4), (6, 3), (7, 2), (9, 1)]
    assert [each.prompts for each in smallest(Cluster("baseline", 1, H100), carries)] == [10]
    assert smallest(Cluster("split", 1, H100, 1), lambda _cluster: False) == []


def test_a_claim_without_a_range_is_only_told() -> None:
    assert Claim("x", "-", 1.0).verdict == "told"
    assert Claim("x", "-", 1.0, high=0.9).verdict == "not reproduced"


@NEEDS_TABLE
def test_a_lone_request_on_an_a100_has_no_slowdown() -> None:
    lone = run_config(Cluster("one", 1, A100), "bundled:math-500-like:requests=9,seed=0", 0.01, 100.0, "sequences", 0)
    assert lone.workload.synthetic is not None
    assert lone.workload.synthetic["requests"] == 1
    assert keeps_targets(lone)


@NEEDS_TABLE
def test_slowdowns_are_relative_to_the_same_request_alone() -> None:
    class Requests:
        """Two requests of 128 tokens; the second one took twice as long in all."""

        prompt_tokens = np.array([128, 128])
        output_tokens = np.array([11, 11])
        ttft_s = np.array([0.0797, 0.1594])
        e2e_s = np.array([0.0797 + 0.476, 2 * (0.0797 + 0.476)])

    found = slowdowns(Requests())  # type: ignore[arg-type]
    assert found["e2e"] == pytest.approx([1.0, 2.0], rel=0.01)
    assert found["ttft"] == pytest.approx([1.0, 2.0], rel=0.01)
    assert found["tbt"] == pytest.approx([10 / 11, 20 / 11], rel=0.01)


@NEEDS_TABLE
def test_groups_have_their_own_devices() -> None:
    from experiments.config_build import build_cluster

    made = build_cluster(run_config(Cluster("two", 1, H100, 1, A100), "azure_2023_conv", 1.0, 1.0, "context", 0))
    assert [each.latency.name for each in made.instances] == [
        "splitwise(bloom-176b, h100-80gb, tp=8)",
        "splitwise(bloom-176b, a100-80gb, tp=8)",
    ]


def test_distserves_own_bisection_ends_on_its_grid() -> None:
    assert their_bisection(0, Answers()) * 32 % 5 == 0


def test_the_claims_of_distserve_come_from_its_rows() -> None:
    lengths = "bundled:distserve-sharegpt-like"
    best = "1 prefill (tp 2 pp 1) + 1 decode (tp 1 pp 1)"
    rows: list[Row] = [
        {"kind": kind, "lengths": of, "fleet": fleet, "devices": 3, "rps_per_device": rate, "met_both": 0.9, "seed": ""}
        for kind, of, fleet, rate in [
            *[("mix", lengths, best, 1.6), ("mix", lengths, "another", 1.2), ("mix, jointly", lengths, best, 1.5)],
            *[("mix", "bundled:sharegpt-like", "another", 5.0)],
            *[("protocol", lengths, best, rate) for rate in (1.25, 1.5625, 1.875, 2.5)],
        ]
    ]
    found = DISTSERVE.claims(rows)
    assert [claim.value for claim in found] == [1.0, 1.6, 1.5, 1.71875, 0.5, 5.0]
    assert [claim.verdict for claim in found][:4] == ["reproduced", "reproduced", "reproduced", "not reproduced"]
    assert DISTSERVE.draw(rows).axes


def test_an_anchors_files_are_data_picture_and_manifest(tmp_path: Path) -> None:
    rows = splitwise_rows(dict.fromkeys(NAMES, 50.0))
    keep(SPLITWISE, rows, tmp_path, (0, 1))
    told = json.loads((tmp_path / "splitwise.json").read_text(encoding="utf-8"))
    assert told["command"] == "semiflow anchor splitwise --seeds 2"
    assert {claim["verdict"] for claim in told["claims"]} == {"reproduced", "not reproduced", "told"}
    assert (tmp_path / "splitwise.csv").read_text(encoding="utf-8").count("\n") == 1 + len(rows)
    assert (tmp_path / "splitwise.png").stat().st_size > 10_000
    with pytest.raises(ConfigError, match="exists already"):
        check_free("splitwise", tmp_path, force=False)
    check_free("splitwise", tmp_path, force=True)


def test_the_command_measures_and_prints_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = splitwise_rows(dict.fromkeys(NAMES, 50.0))
    monkeypatch.setitem(ANCHORS, "splitwise", replace(SPLITWISE, measure=lambda _seeds, _progress, _answers: rows))
    assert run(["anchor", "splitwise", "--out", str(tmp_path)]) == 0
    assert (
        "not reproduced  equal power, conversation: rate of Splitwise-AA over Baseline-A100" in capsys.readouterr().out
    )
    assert run(["anchor", "vidur", "--out", str(tmp_path)]) == 2
    assert "no anchor 'vidur'; allowed: distserve, splitwise" in capsys.readouterr().err
