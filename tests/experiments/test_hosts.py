"""One configuration, two hosts: what only one of them can honour is refused by the other, never ignored."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.config_build import build_cluster
from experiments.hosts import SIMULATED_ONLY
from experiments.serve_build import build_live
from policies.registry import BUILTIN

BOTH = {
    "fleet.groups",
    "fleet.model",
    "fleet.hardware_profile",
    "fleet.kv_blocks",
    "fleet.block_tokens",
    "fleet.max_sequences",
    "fleet.max_batch_tokens",
    "fleet.prefix_caching",
    "fleet.price_per_device_hour",
    "fleet.max_instances",
    "host.report_period_s",
    "host.report_delay_s",
    "host.plan_ahead",
    "host.job_executors",
}
ASSUMED = {
    "fleet.backend",
    "contention.gamma_prefill",
    "contention.gamma_decode",
    "link.kind",
    "link.bandwidth_bytes_per_s",
    "link.latency_s",
}
"""What a deployment is like, in figures that the simulator needs."""
OTHER_VALUES: dict[str, Any] = {
    "fleet.hardware": "h100",
    "fleet.tp": 2,
    "fleet.pp": 2,
    "fleet.pp_link": "pcie4",
    "fleet.expert_parallel": True,
    "fleet.memory_fraction": 0.5,
    "fleet.events": [{"kind": "fail", "at_s": 1.0, "instance": 0}],
    "fleet.startup_s": 5.0,
    "fleet.convertible": True,
    "host.partition_switch_s": 0.1,
    "host.dispatch_delay_s": 0.1,
}
SHARED_DEVICE = {"fleet": {"groups": ({"count": 1, "role": "semi_pd"},)}}
LIVE_REFUSES = {
    **{("partition", name): "is not carried out live" for name in BUILTIN["partition"] if name != "none"},
    ("prediction", "oracle"): "knows the future; allowed live",
    ("prediction", "bucketed_oracle"): "knows the future; allowed live",
}
SECTIONS = ("fleet", "contention", "link", "host")
SECTION_KEYS = {"prediction": "predictor"}


def config(**sections: Any) -> RunConfig:
    fleet = {"model": "tiny", "kv_blocks": 64, "max_sequences": 8, "max_batch_tokens": 128}
    return RunConfig.model_validate({**sections, "fleet": {**fleet, **sections.get("fleet", {})}})


def test_every_setting_is_honoured_by_both_refused_by_one_or_a_figure_of_the_deployment() -> None:
    sections: dict[str, BaseModel] = {name: getattr(RunConfig(), name) for name in SECTIONS}
    keys = [f"{section}.{key}" for section, model in sections.items() for key in type(model).model_fields]
    assert sorted(keys) == sorted([*BOTH, *ASSUMED, *SIMULATED_ONLY])


@pytest.mark.parametrize("key", SIMULATED_ONLY)
def test_a_deployment_refuses_what_only_the_simulator_honours(key: str) -> None:
    section, name = key.split(".")
    with pytest.raises(ConfigError, match=rf"{key} .* is for the simulator: .*; allowed live: .*\(leave it out\)"):
        build_live(config(**{section: {name: OTHER_VALUES[key]}}), None)


@pytest.mark.parametrize("own", [{"tp": 2}, {"pp": 2}, {"hardware": "h100"}])
def test_a_deployment_refuses_a_group_with_a_setting_of_its_own(own: dict[str, Any]) -> None:
    groups = ({"count": 1, "role": "colocated"}, {"count": 1, "role": "colocated", **own})
    with pytest.raises(ConfigError, match=rf"fleet\.groups: .*{next(iter(own))}.* of a group are for the simulator"):
        build_live(config(fleet={"groups": groups}), None)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in BUILTIN.items() for name in table])
def test_a_built_in_policy_runs_in_both_hosts_or_is_refused_by_name(kind: Any, name: str) -> None:
    """In the simulator: all of them."""
    fleet = SHARED_DEVICE if kind == "partition" else {}
    given = config(**fleet, policies={SECTION_KEYS.get(kind, kind): name})
    assert build_cluster(given.model_copy(update={"fleet": given.fleet.model_copy(update={"hardware": "h100"})}))
    refusal = LIVE_REFUSES.get((kind, name))
    if refusal is None:
        assert build_live(given, None).instances
    else:
        with pytest.raises(ConfigError, match=rf"policies\..* {name} {refusal}"):
            build_live(given, None)
