"""From names in a configuration to a trace and a cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config import RunConfig, WorkloadConfig
from experiments.config_base import ConfigError
from experiments.config_build import build_cluster, build_trace, check_traffic
from experiments.config_file import parse
from reference_impl.core.fleet_events import ChangeRole, Fail, Recover, Slow
from reference_impl.latency import ProfileError
from workloads.errors import TraceError
from workloads.storage import save
from workloads.trace import Trace

PROFILE = Path("vllm_runs") / "rtxpro6000_llama-3.1-8b"


def workload(**content: Any) -> WorkloadConfig:
    return parse(WorkloadConfig, content, source="test")


def run_config(**content: Any) -> RunConfig:
    return parse(RunConfig, content, source="test")


def test_a_bundled_workload_is_drawn_by_the_seed() -> None:
    traces = [build_trace(workload(trace="bundled:sharegpt-like", max_requests=50), seed) for seed in (1, 2, 1)]
    assert not np.array_equal(traces[0].prompt_tokens, traces[1].prompt_tokens)
    assert np.array_equal(traces[0].prompt_tokens, traces[2].prompt_tokens)


def test_a_bundled_workload_has_as_many_requests_as_are_asked_for() -> None:
    assert len(build_trace(workload(trace="bundled:sharegpt-like", max_requests=2500), 0)) == 2500


def test_what_a_bundled_workloads_text_says_wins() -> None:
    named = workload(trace="bundled:sharegpt-like:requests=40,seed=9", max_requests=50)
    first, second = build_trace(named, 1), build_trace(named, 2)
    assert len(first) == 40
    assert np.array_equal(first.prompt_tokens, second.prompt_tokens)


def test_a_synthetic_workload_from_its_description() -> None:
    spec = {
        "requests": 30,
        "arrivals": "poisson:rate_rps=5",
        "prompt": "fixed:tokens_each=7",
        "output": "fixed:tokens_each=3",
    }
    trace = build_trace(workload(synthetic=spec), 0)
    assert len(trace) == 30
    assert set(trace.prompt_tokens.tolist()) == {7}


def test_transformations_come_in_the_stated_order() -> None:
    """Clipping last; the rate of the requests that are left; both in the trace's own account of itself."""
    given = workload(trace="bundled:longbench-like", max_requests=200, rate_rps=3.0, max_total_tokens=2048)
    trace = build_trace(given, 0)
    assert int((trace.prompt_tokens + trace.output_tokens).max()) <= 2048
    assert trace.mean_rate_rps == pytest.approx(3.0, rel=0.25)
    history = trace.metadata["transformations"]
    assert history.index("retime_poisson") < history.index("clip_total_tokens")


def test_every_instance_has_its_groups_role() -> None:
    groups = [{"count": 1, "role": "prefill"}, {"count": 2, "role": "decode"}]
    cluster = build_cluster(run_config(fleet={"groups": groups, "tp": 2, "kv_blocks": 77}))
    assert [instance.role for instance in cluster.instances] == ["prefill", "decode", "decode"]
    assert {(instance.devices, instance.kv_blocks) for instance in cluster.instances} == {(2, 77)}


def test_a_link_by_name_with_one_figure_replaced() -> None:
    link = build_cluster(run_config(link={"kind": "ib-400g", "latency_s": 0.5})).link
    assert (link.bandwidth_bytes_per_s, link.latency_s) == (50e9, 0.5)


def test_contention_reaches_the_lanes() -> None:
    contention = {"gamma_prefill": 0.0, "gamma_decode": 1.0}
    fleet = {"groups": [{"count": 1, "role": "semi_pd"}]}
    (instance,) = build_cluster(run_config(fleet=fleet, contention=contention)).instances
    alone = instance.contention.rate("decode", 50, 50, False)
    assert instance.contention.rate("decode", 50, 50, True) == pytest.approx(alone / 2)


def test_what_the_host_delays_and_plans_reaches_the_cluster() -> None:
    host = {"plan_ahead": True, "dispatch_delay_s": 0.25, "report_delay_s": 0.5}
    cluster = build_cluster(run_config(host=host))
    assert (cluster.plan_ahead, cluster.dispatch_delay_s, cluster.report_delay_s) == (True, 0.25, 0.5)
    assert not build_cluster(run_config()).plan_ahead


@pytest.mark.skipif("SEMIFLOW_CALIBRATION" not in os.environ, reason="SEMIFLOW_CALIBRATION is not set")
def test_a_profile_of_another_model_is_refused() -> None:
    profile = str(Path(os.environ["SEMIFLOW_CALIBRATION"]) / PROFILE)
    with pytest.raises(ConfigError, match=r"but fleet\.model is llama-2-7b; set the model to llama-3\.1-8b"):
        build_cluster(run_config(fleet={"hardware_profile": profile, "hardware": "rtx-pro-6000"}))
    fitting = run_config(fleet={"hardware_profile": profile, "hardware": "rtx-pro-6000", "model": "llama-3.1-8b"})
    assert "profiled" in build_cluster(fitting).instances[0].latency.name


@pytest.mark.skipif("SEMIFLOW_CALIBRATION" not in os.environ, reason="SEMIFLOW_CALIBRATION is not set")
def test_a_profile_brings_its_hardware_and_refuses_another() -> None:
    profile = str(Path(os.environ["SEMIFLOW_CALIBRATION"]) / PROFILE)
    fleet = {"hardware_profile": profile, "model": "llama-3.1-8b"}
    named = build_cluster(run_config(fleet={**fleet, "hardware": "rtx-pro-6000"})).instances[0]
    assert build_cluster(run_config(fleet=fleet)).instances[0].kv_blocks == named.kv_blocks
    with pytest.raises(ConfigError, match=r"was measured on RTXPRO6000, but fleet\.hardware is a100-80g; leave"):
        build_cluster(run_config(fleet={**fleet, "hardware": "a100-80g"}))


def test_a_profile_of_no_named_hardware_asks_for_it(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "batch_size,total_prefill_tokens,total_kv_read_tokens,latency_ms\n1,0,100,10\n1,100,100,10\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"give the hardware \(--hardware\) or the number of blocks"):
        build_cluster(run_config(fleet={"hardware_profile": str(table)}))
    for given in ({"kv_blocks": 77}, {"hardware": "h100"}):
        assert build_cluster(run_config(fleet={"hardware_profile": str(table), **given})).instances[0].kv_blocks >= 77


def test_blocks_too_short_for_the_trace_are_refused(tmp_path: Path) -> None:
    slow = workload(trace="bundled:sharegpt-like", max_requests=10, rate_rps=0.001)
    save(build_trace(slow, 0), tmp_path / "slow.parquet")
    with pytest.raises(ConfigError, match=r"workload\.resample_block_s is 0\.001 s, over 1,000,000 blocks .* or more"):
        build_trace(workload(trace=str(tmp_path / "slow.parquet"), resample_block_s=0.001), 0)


def test_reports_too_frequent_for_the_trace_are_refused() -> None:
    config = run_config(
        workload={"max_requests": 10, "rate_rps": 0.001},
        fleet={"groups": [{"count": 8, "role": "colocated"}]},
        host={"report_period_s": 0.001},
    )
    trace, cluster = build_trace(config.workload, 0), build_cluster(config)
    with pytest.raises(ConfigError, match=r"host\.report_period_s is 0\.001 s, over 10,000,000 reports of 8 instances"):
        check_traffic(trace, cluster)


@pytest.mark.parametrize(("block_tokens", "caching"), [(8, True), (4, True), (16, False)])
def test_prefix_ids_stand_for_whole_kv_blocks(block_tokens: int, caching: bool) -> None:
    traffic = {
        "requests": 4,
        "arrivals": "poisson:rate_rps=1",
        "prompt": "fixed:tokens_each=9",
        "output": "fixed:tokens_each=2",
        "prefix": {"groups": 2, "tokens": 64, "block_tokens": 8},
    }
    fleet = {"block_tokens": block_tokens, "prefix_caching": caching}
    config = run_config(workload={"synthetic": traffic}, fleet=fleet)
    check_traffic(build_trace(config.workload, 0), build_cluster(config))
    wrong = run_config(workload={"synthetic": traffic}, fleet={"block_tokens": 3 * block_tokens})
    with pytest.raises(ConfigError, match=f"stands for 8 prompt tokens, a KV block for {3 * block_tokens}; allowed:"):
        check_traffic(build_trace(wrong.workload, 0), build_cluster(wrong))


def test_arrivals_that_last_for_years_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"last .* s; allowed: at most 1e\+07 s; raise the rate"):
        build_trace(workload(max_requests=10, rate_rps=1e-9), 0)


def test_what_the_core_refuses_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise ValueError("kv_blocks is 0; allowed: 1 or more")

    monkeypatch.setattr("reference_impl.core.spec.InstanceSpec.__post_init__", refuse)
    with pytest.raises(ConfigError, match="kv_blocks is 0; allowed: 1 or more"):
        build_cluster(run_config())


def test_a_profile_of_a_live_engine_is_of_its_model_and_its_dtype(tmp_path: Path) -> None:
    fit = {"iteration_s": 0.01, "knots": [0], "token_s": [1e-4]}
    told = {"model": "llama-30m", "dtype": "float32", "provenance": "measured; no error told", "fit": fit}
    path = tmp_path / "here.json"
    path.write_text(json.dumps({"format": "semiflow-profile", "version": 1, **told}))
    fleet = {"hardware_profile": str(path), "kv_blocks": 100}
    instance = build_cluster(run_config(fleet={**fleet, "model": "llama-30m"})).instances[0]
    assert instance.latency.name == "measured(here, llama-30m)"
    assert instance.kv_bytes_per_token == 2 * 8 * 4 * 64 * 4, "keys and values, layers, KV heads, head_dim, float32"
    with pytest.raises(ConfigError, match="is of llama-30m, but"):
        build_cluster(run_config(fleet={**fleet, "model": "llama-3-8b"}))
    with pytest.raises(ConfigError, match=r"give the hardware \(--hardware\) or the number of blocks"):
        build_cluster(run_config(fleet={"hardware_profile": str(path), "model": "llama-30m"}))


def test_a_pipeline_is_as_many_virtual_engines_as_it_has_stages() -> None:
    """Policies see four of them; devices and KV add up to two instances' of 2 x 4 devices."""
    fleet = {"model": "llama-3-70b", "hardware": "h100", "tp": 2, "groups": [{"count": 2, "role": "colocated"}]}
    whole = build_cluster(run_config(fleet={**fleet, "tp": 4})).instances
    engines = build_cluster(run_config(fleet={**fleet, "pp": 2})).instances
    pipelines = [engine.pipeline for engine in engines]
    assert [pipeline.number for pipeline in pipelines if pipeline is not None] == [0, 0, 1, 1]
    assert [pipeline.shares for pipeline in pipelines if pipeline is not None] == [(0.5, 0.5)] * 4
    assert sum(engine.devices for engine in engines) == sum(instance.devices for instance in whole) == 8
    assert 2 * engines[0].kv_blocks == pytest.approx(whole[0].kv_blocks, rel=0.02)
    assert engines[0].latency.name == "pipelined(roofline(h100, llama-3-70b, tp=2, vllm), pp=2)"
    assert build_cluster(run_config(fleet={**fleet, "pp": 2, "kv_blocks": 101})).instances[0].kv_blocks == 50


@pytest.mark.parametrize(
    ("fleet", "message"),
    [
        ({"pp": 2, "groups": [{"count": 1, "role": "semi_pd"}]}, "pp 2 is not modelled for semi_pd instances"),
        (
            {"groups": [{"count": 1, "role": "colocated"}, {"count": 1, "role": "semi_pd", "pp": 2}]},
            r"groups\[1\]\.pp 2 is not modelled for semi_pd instances",
        ),
        ({"pp": 4, "kv_blocks": 3}, "kv_blocks 3 leaves none for some of pp 4; raise kv_blocks"),
        (
            {"groups": [{"count": 1, "role": "colocated", "pp": 4, "kv_blocks": 3}]},
            r"kv_blocks 3 leaves none for some of groups\[0\]\.pp 4",
        ),
        (
            {"groups": [{"count": 1, "role": "colocated", "pp": 33}]},
            "pipeline parallelism 33 of llama-2-7b's 32 layers",
        ),
        (
            {"groups": [{"count": 1, "role": "colocated"}, {"count": 1000, "role": "colocated", "pp": 64}]},
            "1001 instances of pp 1 and 64 are not allowed",
        ),
        (
            {
                "groups": [{"count": 1, "role": "colocated"}, {"count": 1, "role": "colocated", "pp": 2}],
                "events": [{"kind": "fail", "at_s": 1.0, "instance": 0}],
            },
            r"not modelled for pipelines.*; set fleet\.pp and that of each group to 1",
        ),
        ({"pp": 2, "pp_link": "token-ring"}, "unknown link 'token-ring'; choose one of nvlink3"),
        ({"pp": 33}, "pipeline parallelism 33 of llama-2-7b's 32 layers"),
        ({"pp": 64, "groups": [{"count": 1000, "role": "colocated"}]}, "1000 instances of pp 64 are not allowed"),
        ({"expert_parallel": True}, "llama-2-7b has no experts to be parallel"),
    ],
)
def test_parallelism_that_cannot_be_is_refused(fleet: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_cluster(run_config(fleet=fleet))


def test_a_pipeline_of_measured_iterations_needs_its_link(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "batch_size,total_prefill_tokens,total_kv_read_tokens,latency_ms\n1,0,100,10\n1,100,100,10\n", encoding="utf-8"
    )
    fleet = {"hardware_profile": str(table), "kv_blocks": 100, "pp": 2}
    with pytest.raises(ConfigError, match=r"give the hardware \(--hardware\) or the link \(--pp-link\)"):
        build_cluster(run_config(fleet=fleet))
    instance = build_cluster(run_config(fleet={**fleet, "pp_link": "pcie4"})).instances[0]
    assert "pp=2" in instance.latency.name
    with pytest.raises(ConfigError, match=r"expert_parallel is for the roofline; .* was measured as it is"):
        build_cluster(run_config(fleet={**fleet, "expert_parallel": True}))


def test_an_engine_without_a_pipeline_was_not_measured_with_one(tmp_path: Path) -> None:
    fit = {"iteration_s": 0.01, "knots": [0], "token_s": [1e-4]}
    told = {"model": "tiny", "dtype": "float32", "provenance": "measured; no error told", "fit": fit}
    path = tmp_path / "here.json"
    path.write_text(json.dumps({"format": "semiflow-profile", "version": 1, **told}))
    with pytest.raises(ConfigError, match="is of semiflow's engine, which has no pipeline; set pp to 1"):
        build_cluster(run_config(fleet={"hardware_profile": str(path), "kv_blocks": 9, "pp": 2, "model": "tiny"}))


def test_a_shipped_profile_costs_any_dense_model() -> None:
    fleet = {"hardware_profile": "h100", "model": "llama-3.1-8b", "tp": 2}
    (instance,) = build_cluster(run_config(fleet=fleet)).instances
    assert instance.latency.name == "operators(h100, llama-3.1-8b, tp=2, bf16, vllm)"
    assert "extrapolated" in instance.latency.provenance
    quantised = build_cluster(run_config(fleet={**fleet, "hardware_profile": "h100:fp8"})).instances[0]
    assert quantised.kv_blocks > instance.kv_blocks
    assert quantised.kv_bytes_per_token == instance.kv_bytes_per_token
    halved = build_cluster(run_config(fleet={**fleet, "hardware_profile": "h100:fp8", "backend": "trtllm"}))
    assert halved.instances[0].kv_bytes_per_token == instance.kv_bytes_per_token / 2


def test_a_shipped_profile_refuses_another_device_and_an_unknown_backend() -> None:
    with pytest.raises(ConfigError, match=r"hardware_profile h100 is of h100, but fleet\.hardware is h200; leave"):
        build_cluster(run_config(fleet={"hardware_profile": "h100", "hardware": "h200"}))
    with pytest.raises(ProfileError, match=r"backend 'vllm-v0' has no constant"):
        build_cluster(run_config(fleet={"hardware_profile": "h100", "backend": "vllm-v0"}))


def sessions(path: Path) -> str:
    """Three sessions of two turns, 10 s apart, saved as a trace."""
    lengths = np.full(6, 8, np.int32), np.full(6, 2, np.int32)
    arrivals = np.array([0.0, 5.0, 10.0, 15.0, 20.0, 25.0])
    turns: dict[str, Any] = {"parent_row": np.array([-1, 0, -1, 2, -1, 4]), "think_s": np.array([0.0, 2.0] * 3)}
    save(Trace("chats", arrivals, *lengths, turn=np.array([0, 1] * 3), **turns), path)
    return str(path)


@pytest.mark.parametrize(
    ("given", "arrivals"),
    [
        ({"max_requests": 5}, [0.0, 5.0, 10.0, 15.0]),
        ({"window_s": [10.0, 21.0]}, [0.0, 5.0, 10.0, 15.0]),
        ({"rate_scale": 2.0, "max_requests": 2}, [0.0, 2.5]),
    ],
)
def test_a_closed_loop_keeps_sessions_whole(tmp_path: Path, given: dict[str, Any], arrivals: list[float]) -> None:
    trace = build_trace(workload(trace=sessions(tmp_path / "t.parquet"), closed_loop=True, **given), 0)
    assert trace.arrival_s.tolist() == arrivals
    assert trace.think_s is not None
    assert set(trace.think_s.tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate_rps": 3.0}, "closed_loop and rate_rps exclude each other"),
        ({"resample_block_s": 3.0}, "closed_loop and resample_block_s exclude each other"),
        ({"synthetic": {"requests": 3}}, "closed_loop needs sessions with think times, which synthetic has none of"),
    ],
)
def test_what_would_part_sessions_is_refused_in_a_closed_loop(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        workload(closed_loop=True, **given)


def test_a_closed_loop_without_sessions_is_refused() -> None:
    with pytest.raises(TraceError, match="no column parent_row"):
        build_trace(workload(trace="bundled:sharegpt-like", max_requests=20, closed_loop=True), 0)


def test_each_job_executor_has_a_policy_of_its_own() -> None:
    cluster = build_cluster(run_config(policies={"dispatch": "random"}, host={"job_executors": 3}))
    policies = [cluster.dispatch, *cluster.other_executors]
    assert len({id(policy) for policy in policies}) == 3
    assert len({policy.rng.random() for policy in policies}) == 3


def test_a_schedule_of_fleet_events_and_the_rules_of_scaling_reach_the_cluster() -> None:
    events = [
        {"kind": "fail", "at_s": 10, "instance": 0},
        {"kind": "recover", "at_s": 20.5, "instance": 0, "startup_s": 3},
        {"kind": "slow", "at_s": 1, "instance": 1, "factor": 2.5},
        {"kind": "role", "at_s": 30, "instance": 1, "role": "decode"},
    ]
    fleet = {
        "groups": [{"count": 2, "role": "colocated"}],
        "events": events,
        "startup_s": 30,
        "max_instances": 4,
        "convertible": True,
    }
    cluster = build_cluster(run_config(fleet=fleet))
    assert cluster.events == (Fail(10, 0), Recover(20.5, 0, 3), Slow(1, 1, 2.5), ChangeRole(30, 1, "decode"))
    assert (cluster.startup_s, cluster.max_instances, cluster.convertible) == (30, 4, True)


@pytest.mark.parametrize(
    ("fleet", "message"),
    [
        ({"events": [{"kind": "explode", "at_s": 1, "instance": 0}]}, "explode"),
        ({"events": [{"kind": "fail", "at_s": 1, "instance": 0, "factor": 2}]}, "unknown key .*factor"),
        ({"events": [{"kind": "slow", "at_s": 1, "instance": 0, "factor": 0}]}, "factor: 0 is not allowed"),
        (
            {"events": [{"kind": "fail", "at_s": 1, "instance": 1}]},
            "names instance 1; allowed: a configured one, 0 to 0",
        ),
        ({"groups": [{"count": 3, "role": "colocated"}], "max_instances": 2}, "max_instances is 2, below"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused_in_one_line(fleet: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        build_cluster(run_config(fleet=fleet))
    assert "\n" not in str(refusal.value)


def test_a_group_may_have_a_degree_hardware_and_memory_of_its_own() -> None:
    groups = [
        {"count": 1, "role": "prefill", "tp": 2, "kv_blocks": 77},
        {"count": 2, "role": "decode", "hardware": "h100"},
    ]
    made = build_cluster(run_config(fleet={"groups": groups, "model": "llama-3-8b"}))
    assert [each.devices for each in made.instances] == [2, 1, 1]
    assert made.instances[0].kv_blocks == 77
    assert "h100" in made.instances[1].latency.name
    assert made.instances[1].latency is made.instances[2].latency


def test_groups_have_pipelines_of_their_own() -> None:
    """Two of two stages, none, and the fleet's of four: each pipeline has its number and its part of the KV."""
    groups = [
        {"count": 2, "role": "prefill", "pp": 2},
        {"count": 1, "role": "decode", "pp": 1, "tp": 2},
        {"count": 1, "role": "decode", "kv_blocks": 101},
    ]
    made = build_cluster(run_config(fleet={"groups": groups, "pp": 4, "kv_blocks": 80})).instances
    pipelines = [each.pipeline for each in made]
    assert [None if pipeline is None else (pipeline.number, len(pipeline.shares)) for pipeline in pipelines] == [
        *[(0, 2), (0, 2), (1, 2), (1, 2), None],
        *[(2, 4)] * 4,
    ]
    assert [each.kv_blocks for each in made] == [40] * 4 + [80] + [25] * 4
    assert sum(each.devices for each in made) == 2 * 2 + 2 + 4


def test_a_published_profile_brings_its_device_and_its_memory() -> None:
    fleet = {"model": "opt-13b", "hardware_profile": "distserve-a100"}
    (instance,) = build_cluster(run_config(fleet=fleet)).instances
    assert (instance.latency.name, instance.kv_blocks) == ("distserve(facebook/opt-13b, tp=1)", 66_144 // 16)
    staged = build_cluster(run_config(fleet={**fleet, "pp": 2})).instances[0]
    assert staged.kv_blocks == 163_008 // 16 // 2
    assert "hops as published" in staged.latency.provenance
    linked = build_cluster(run_config(fleet={**fleet, "pp": 2, "pp_link": "pcie4"})).instances[0]
    assert "over pcie4" in linked.latency.provenance
    with pytest.raises(ConfigError, match=r"was measured on a100-80g, but fleet\.hardware is h100"):
        build_cluster(run_config(fleet={**fleet, "hardware": "h100"}))
