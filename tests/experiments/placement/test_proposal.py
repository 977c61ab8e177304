"""The search on the simulator: phases alone against arithmetic, the optimum of a made-up cost model, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cli import run
from experiments.config import FleetConfig, RunConfig, SloConfig, WorkloadConfig
from experiments.config_base import ConfigError
from experiments.config_build import build_trace
from experiments.config_file import load
from experiments.placement.mixes import Mix, Parallelism
from experiments.placement.phases import alone, measure, together, with_setting
from experiments.placement.proposal import Search, propose

BEST = Mix(1, Parallelism(2), 1, Parallelism(1))
SLO = SloConfig(ttft_s=0.2, tpot_s=0.02)


def fits(prefill_ms: dict[str, float], decode_ms: dict[str, float]) -> dict[str, Any]:
    """A prefill, and a decode iteration (0.3 ms more for each sequence), take so long at each degree."""
    return {
        "facebook/opt-13b": {
            tp: {
                "decoding_large_small_bs_threshold": 95,
                "prefill": [prefill_ms[tp], 1e-6, 0.0],
                "decoding_smallbs": [decode_ms[tp], 0.0, 0.3],
                "decoding_largebs": [decode_ms[tp], 0.0, 0.3],
            }
            for tp in prefill_ms
        }
    }


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Prefill gains from a second device more than twofold, decode nothing."""
    path = tmp_path / "fits.json"
    path.write_text(json.dumps(fits({"1": 150.0, "2": 40.0}, {"1": 10.0, "2": 10.0})), encoding="utf-8")
    workload = WorkloadConfig(trace="bundled:math-500-like", max_requests=100)
    return RunConfig(workload=workload, fleet=FleetConfig(model="opt-13b", hardware_profile=str(path)), slo=SLO)


def test_prefill_alone_equals_a_queue_that_takes_all_that_wait(config: RunConfig) -> None:
    asked = with_setting(config, alone("prefill", Parallelism(2)), 12.0, 0)
    arrivals = build_trace(asked.workload, 0).arrival_s
    at, free_s, in_time = 0, 0.0, 0
    while at < len(arrivals):
        begin_s = max(free_s, arrivals[at])
        end = int(np.searchsorted(arrivals, begin_s, "right"))
        free_s = begin_s + 0.040
        in_time += int((free_s - arrivals[at:end] <= 0.2).sum())
        at = end
    assert measure(asked, "prefill").ttft == pytest.approx(in_time / len(arrivals), abs=1e-3)


def test_decode_alone_waits_for_no_prompt(config: RunConfig) -> None:
    shares = measure(with_setting(config, alone("decode", Parallelism(1)), 5.0, 0), "decode")
    assert (shares.ttft, shares.tpot) == (1.0, 1.0)


def test_the_optimum_of_a_made_up_cost_model_is_found(config: RunConfig) -> None:
    labels: list[str] = []
    found = propose(config, Search(3, tolerance=0.2, max_pp=1, whole=2), lambda _runs, label: labels.append(label))
    assert found.best == BEST
    assert found.prefill_rps[Parallelism(2)] > 3 * found.prefill_rps[Parallelism(1)]
    assert set(found.impossible) == set(), "3 does not divide the heads, so it is no candidate"
    assert found.mixes[0][1].rps_per_device == max(whole.rps_per_device for _, whole in found.mixes)
    assert {"prefill tp 1 pp 1", "decode tp 2 pp 1", "1 colocated (tp 2 pp 1)"} <= set(labels)


def test_stages_are_searched_where_they_divide_the_layers(config: RunConfig) -> None:
    few = config.model_copy(update={"workload": config.workload.model_copy(update={"max_requests": 10})})
    found = propose(few, Search(3, tolerance=0.5, whole=1))
    assert set(found.prefill_rps) == {Parallelism(1), Parallelism(2), Parallelism(1, 2)}, "3 does not divide 40 layers"


def test_equal_seeds_give_equal_shares(config: RunConfig) -> None:
    one, again, other = (measure(with_setting(config, together(BEST), 14.0, seed), "both") for seed in (3, 3, 4))
    assert one == again != other


def test_targets_that_nothing_meets_are_said(config: RunConfig) -> None:
    hard = config.model_copy(update={"slo": SloConfig(ttft_s=0.01, tpot_s=0.02)})
    with pytest.raises(ConfigError, match=r"no mix of 3 devices meets the targets even at 0\.05"):
        propose(hard, Search(3, tolerance=0.4, max_pp=1))


def test_both_targets_are_needed(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="needs both targets"):
        propose(config.model_copy(update={"slo": SloConfig(ttft_s=0.2)}), Search(2))


def test_each_group_of_a_mix_has_its_own_degree(config: RunConfig) -> None:
    made = with_setting(config, together(Mix(2, Parallelism(2), 3, Parallelism(1, 2))), 1.0, 7)
    assert [(group.count, group.role, group.tp, group.pp) for group in made.fleet.groups] == [
        (2, "prefill", 2, 1),
        (3, "decode", 1, 2),
    ]
    assert (made.seed, made.workload.rate_rps) == (7, 1.0)


def test_the_command_keeps_a_proposal_and_a_mix_that_can_be_simulated(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", "opt-13b", "--hardware-profile", str(config.fleet.hardware_profile)]
    flags += ["--trace", config.workload.trace, "--max-requests", "80", "--slo", "ttft=0.2,tpot=0.02"]
    out = tmp_path / "proposal"
    asked = [
        "propose",
        "distserve",
        *flags,
        "--devices",
        "3",
        "--max-pp",
        "1",
        "--tolerance",
        "0.4",
        "--whole",
        "1",
        "--carry",
        "30",
    ]
    assert run([*asked, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "best mix: 1 prefill (tp 2 pp 1) + 1 decode (tp 1 pp 1)" in printed
    assert "to carry the rate:" in printed
    kept = json.loads((out / "proposal.json").read_text(encoding="utf-8"))
    best = kept["proposal"]["mixes"][0]
    assert [best[key] for key in ("prefill_tp", "prefill_pp", "decode_tp", "decode_pp")] == [2, 1, 1, 1]
    assert kept["cost_models"]["distserve(facebook/opt-13b, tp=2)"]
    assert load(out / "mix.yaml", RunConfig).fleet.groups[0].tp == 2
    assert run(["simulate", "--config", str(out / "mix.yaml"), "--json"]) == 0
    assert run([*asked, "--out", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err
