"""Flags and YAML end in one configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.cli.flags import FLAGS, resolve
from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.config_file import to_yaml


def given(**flags: Any) -> RunConfig:
    nothing: dict[str, Any] = dict.fromkeys(["config", "role", *(flag.parameter for flag in FLAGS)])
    return resolve({**nothing, **flags})


def test_no_flag_is_the_default_configuration() -> None:
    assert given() == RunConfig()


def test_the_example_of_the_issue_resolves() -> None:
    config = given(
        trace="azure_2023_conv",
        instances="8",
        role="colocated",
        hardware="a100-80g",
        model="llama-2-7b",
        dispatch="least_loaded:metric=tokens",
        batch="chunked_prefill:chunk_tokens=512",
        slo="ttft=1.0,tpot=0.1",
        rate_scale=8.0,
        max_requests=10000,
        seed=0,
    )
    assert config.workload.trace == "azure_2023_conv"
    assert config.workload.rate_scale == 8.0
    assert [group.model_dump(exclude_none=True) for group in config.fleet.groups] == [{"count": 8, "role": "colocated"}]
    assert config.policies.batch == "chunked_prefill:chunk_tokens=512"
    assert config.slo is not None
    assert (config.slo.ttft_s, config.slo.tpot_s) == (1.0, 0.1)


def test_a_mix_of_roles() -> None:
    groups = given(instances="2:prefill,6:decode").fleet.groups
    assert [(group.count, group.role) for group in groups] == [(2, "prefill"), (6, "decode")]


def test_role_belongs_to_instances() -> None:
    config = given(instances="4", role="semi_pd", partition="semi_pd")
    assert config.fleet.groups[0].role == "semi_pd"
    assert config.fleet.instances == 4


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(to_yaml(given(seed=3, kv_blocks=100)), encoding="utf-8")
    config = given(config=path, kv_blocks=200)
    assert (config.seed, config.fleet.kv_blocks) == (3, 200)


def test_targets_of_slo_classes_follow_the_general_ones() -> None:
    slo = given(slo="ttft=1.0,tpot=0.1/interactive:ttft=0.3/batch:tpot=1").slo
    assert slo is not None
    assert slo.logged() == {
        "ttft_s": 1.0,
        "tpot_s": 0.1,
        "classes": {"interactive": {"ttft_s": 0.3, "tpot_s": None}, "batch": {"ttft_s": None, "tpot_s": 1.0}},
    }


def test_every_flag_sets_a_key_that_exists() -> None:
    for flag in FLAGS:
        value: Any = RunConfig()
        for part in flag.key.split("."):
            assert part in type(value).model_fields, flag.name
            value = getattr(value, part)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"instances": "8x"}, "--instances: '8x' is not N or N:ROLE,N:ROLE"),
        ({"instances": "2:prefil,6:decode"}, "--instances: 'prefil' is not allowed; allowed: 'colocated'"),
        ({"instances": "0"}, "--instances: 0 is not allowed; allowed: 1 or more"),
        ({"instances": "2:prefill"}, "fleet: prefill instances need decode instances"),
        (
            {"instances": "2:prefill,6:decode", "role": "semi_pd"},
            "--role semi_pd: the instances have their roles already",
        ),
        ({"slo": "ttf=1"}, "--slo: 'ttf=1' is not allowed; write ttft=NUMBER,tpot=NUMBER"),
        ({"slo": "ttft=fast"}, "--slo: 'fast' is not a number"),
        ({"slo": "ttft=1,ttft=2"}, "--slo: ttft stands twice"),
        ({"slo": "ttft=-1"}, "--slo: -1.0 is not allowed; allowed: numbers above 0"),
        ({"slo": "ttft=nan"}, "--slo: nan is not allowed"),
        ({"slo": "ttft=1/fast:tpot=0"}, "--slo: 0.0 is not allowed; allowed: numbers above 0"),
        ({"slo": "ttft=1/fast"}, "--slo: 'fast' is not allowed; write /CLASS:ttft=S,tpot=S"),
        ({"slo": "ttft=1/a:ttft=1/a:ttft=2"}, "--slo: 'a:ttft=2' is not allowed; write /CLASS:ttft=S,tpot=S, each"),
        ({"price": 0.0}, "--price: 0.0 is not allowed; allowed: numbers above 0"),
        ({"window": "5"}, "--window: '5' is not START,END in seconds"),
        ({"rate_scale": -1.0}, "--rate-scale: -1.0 is not allowed; allowed: numbers above 0"),
        ({"invalid": "ignore"}, "--invalid: 'ignore' is not allowed; allowed: 'error' or 'drop'"),
        ({"role": "foo"}, "--role: 'foo' is not allowed; allowed: colocated, prefill, decode, semi_pd"),
        ({"instances": "100000"}, "--instances: 100000 is not allowed; allowed: at most 10000"),
        ({"instances": "6000,6000"}, "fleet: 12000 instances are not allowed; allowed: at most 10000"),
        ({"rate": float("nan")}, "--rate: nan is not allowed; allowed: finite numbers"),
        ({"rate": 2e6}, "--rate: 2000000.0 is not allowed; allowed: at most 1000000"),
        ({"rate_scale": float("inf")}, "--rate-scale: inf is not allowed; allowed: finite numbers"),
        ({"kv_blocks": 10**12}, "--kv-blocks: 1000000000000 is not allowed; allowed: at most 1000000000"),
        ({"max_total_tokens": 10**12}, "--max-total-tokens: 1000000000000 is not allowed; allowed: at most 2147483647"),
        ({"resample_block": 1e-9}, "--resample-block: 1e-09 is not allowed; allowed: 0.001 or more"),
        ({"report_period": 1e-9}, "--report-period: 1e-09 is not allowed; allowed: 0.001 or more"),
        ({"window": "0,inf"}, "--window: inf is not allowed; allowed: finite numbers"),
        ({"contention": "decode=101"}, "--contention: 101.0 is not allowed; allowed: at most 100"),
        ({"link": "bandwidth=1e30"}, "--link: 1e+30 is not allowed; allowed: at most"),
        ({"link": "latency=nan"}, "--link: nan is not allowed; allowed: finite numbers"),
        ({"memory_fraction": float("nan")}, "--memory-fraction: nan is not allowed"),
        ({"max_batch_tokens": 1}, "fleet: max_sequences 256 is over max_batch_tokens 1, but"),
        ({"partition": "semi_pd"}, "policies.partition 'semi_pd' needs an instance of role semi_pd"),
    ],
)
def test_what_is_not_allowed_names_the_flag(flags: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        given(**flags)
    assert str(caught.value).startswith(expected)
