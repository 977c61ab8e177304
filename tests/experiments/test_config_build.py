"""From names in a configuration to a trace and a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config import ConfigError, RunConfig, WorkloadConfig
from experiments.config_build import build_cluster, build_trace
from experiments.config_file import parse

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


@pytest.mark.skipif("SEMIFLOW_CALIBRATION" not in os.environ, reason="SEMIFLOW_CALIBRATION is not set")
def test_a_profile_of_another_model_is_refused() -> None:
    profile = str(Path(os.environ["SEMIFLOW_CALIBRATION"]) / PROFILE)
    with pytest.raises(ConfigError, match=r"but fleet\.model is llama-2-7b; set the model to llama-3\.1-8b"):
        build_cluster(run_config(fleet={"hardware_profile": profile, "hardware": "rtx-pro-6000"}))
    fitting = run_config(fleet={"hardware_profile": profile, "hardware": "rtx-pro-6000", "model": "llama-3.1-8b"})
    assert "profiled" in build_cluster(fitting).instances[0].latency.name
