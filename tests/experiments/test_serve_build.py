"""From a configuration to a live deployment: what the simulator gets, on real workers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.serve_build import build_live
from policies.registry import PolicySpec
from reference_impl.core.spec import Slo
from reference_impl.serve.spec import LiveSpec


def built(record: Path | None = None, **sections: Any) -> LiveSpec:
    content: dict[str, Any] = {
        "fleet": {"model": "tiny", "kv_blocks": 64, "max_sequences": 8, "max_batch_tokens": 128},
        "policies": {"batch": "chunked_prefill:chunk_tokens=64"},
    }
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section} if isinstance(section, dict) else section
    return build_live(RunConfig.model_validate(content), record)


def test_instances_are_those_of_the_fleet() -> None:
    groups = [{"count": 1, "role": "prefill"}, {"count": 2, "role": "decode"}]
    spec = built(fleet={"groups": groups, "block_tokens": 8})
    assert [instance.role for instance in spec.instances] == ["prefill", "decode", "decode"]
    first = spec.instances[0]
    assert (first.kv_blocks, first.block_tokens, first.max_sequences, first.max_batch_tokens) == (64, 8, 8, 128)
    assert first.batch == PolicySpec.parse("chunked_prefill:chunk_tokens=64", "batch")
    assert spec.prefix_block_tokens == 8


def test_hardware_of_a_groups_own_is_for_the_simulator() -> None:
    with pytest.raises(ConfigError, match=r"fleet\.groups: .* of a group are for the simulator"):
        built(fleet={"groups": [{"count": 1, "role": "colocated", "kv_blocks": 32}]})


def test_what_all_processes_are_given_can_travel() -> None:
    spec = built()
    again = pickle.loads(pickle.dumps(spec))
    assert (again.run, again.instances[0].batch, again.http) == (spec.run, spec.instances[0].batch, spec.http)


def test_the_token_is_not_shown() -> None:
    spec = built()
    assert spec.token not in repr(spec)


def test_each_deployment_is_a_run_of_its_own() -> None:
    assert len({(built().run, built().folder, built().token) for _ in range(3)}) == 3


def test_settings_reach_their_part() -> None:
    spec = built(
        serve={
            "port": 8123,
            "front_doors": 2,
            "attempts": 7,
            "stall_timeout_s": 5.0,
            "handover": {"transport": "tcp", "granularity": "layer"},
            "limits": {"max_concurrent_requests": 9, "request_timeout_s": 3.0},
            "cpu_share": 0.5,
            "instance_cores": [1],
        },
        host={"report_period_s": 0.25, "report_delay_s": 0.5, "plan_ahead": True, "job_executors": 3},
        slo={"ttft_s": 1.0},
        seed=5,
    )
    assert (spec.port, spec.front_doors, spec.job_executors, spec.max_failures, spec.seed) == (8123, 2, 3, 6, 5)
    assert (spec.report_period_s, spec.report_delay_s, spec.slo) == (0.25, 0.5, Slo(1.0, None))
    assert (spec.task.plan_ahead, spec.task.stall_timeout_s) == (True, 5.0)
    assert (spec.task.handover.transport, spec.task.handover.granularity) == ("tcp", "layer")
    assert (spec.http.max_concurrent, spec.http.request_timeout_s) == (9, 3.0)
    assert spec.engine is not None
    assert (spec.engine.cores, spec.engine.share, spec.engine.source.path) == ((1,), 0.5, "tiny")


def test_the_number_of_blocks_follows_from_concurrency_and_memory() -> None:
    spec = built(fleet={"kv_blocks": None, "max_sequences": 2})
    context = spec.instances[0].max_context_tokens
    assert 1 <= spec.instances[0].kv_blocks <= 2 * -(-context // 16)


def test_the_context_is_what_an_instance_can_hold() -> None:
    assert built(fleet={"kv_blocks": 4}).http.context_tokens == 4 * 16 + 1


def test_without_a_folder_nothing_is_recorded(tmp_path: Path) -> None:
    assert built().record is None
    assert not built().logs
    kept = built(tmp_path, serve={"record": {"decisions": "all"}})
    assert kept.record is not None
    assert (kept.logs, kept.record.decisions, kept.record.folder) == (True, "all", tmp_path)
    assert not built(tmp_path, serve={"record": {"events": False}}).logs


def test_a_scaling_policy_that_is_asked_once_leaves_the_fleet_as_it_is() -> None:
    assert not built().scales


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"policies": {"predictor": "oracle"}}, "knows the future"),
        (
            {"fleet": {"events": [{"kind": "fail", "at_s": 1.0, "instance": 0}]}},
            "is for the simulator: live, end a worker's process",
        ),
        ({"fleet": {"convertible": True}}, "fleet.convertible True is for the simulator"),
        ({"fleet": {"kv_blocks": 10**9}}, r"fleet.kv_blocks 1000000000 for each of 1 instances.* has room for"),
        ({"serve": {"prefix_block_tokens": 24}}, "serve.prefix_block_tokens is 24, a KV block has 16 tokens"),
        (
            {"fleet": {"groups": [{"count": 1, "role": "semi_pd"}]}, "policies": {"partition": "semi_pd"}},
            "is not carried out live in this version; allowed: none",
        ),
        (
            {"fleet": {"kv_blocks": 64}, "serve": {"device": "cuda", "cpu_share": 0.5}},
            r"serve.cpu_share 0\.5 is for device cpu, the device is cuda",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(**sections)
