"""Configurations in YAML: strict, round-tripping, with errors that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.config_file import load, parse, to_yaml


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, RunConfig)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_saved_configuration_loads_equal() -> None:
    config = parse(
        RunConfig,
        {
            "workload": {"trace": "x.parquet", "window_s": [0, 60.5], "max_requests": 10},
            "fleet": {"groups": [{"count": 2, "role": "prefill"}, {"count": 6, "role": "decode"}]},
            "slo": {"ttft_s": 1},
        },
        source="test",
    )
    assert parse(RunConfig, yaml.safe_load(to_yaml(config)), source="test") == config


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("", encoding="utf-8")
    assert load(path, RunConfig) == RunConfig()


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 3


def test_a_misspelt_key_names_the_nearest_one(tmp_path: Path) -> None:
    message = refusal(tmp_path, "workload: {rate_scal: 8}")
    assert message.startswith(
        "unknown key 'workload.rate_scal' (value 8); did you mean 'rate_scale'? allowed: closed_loop, "
    )


def test_a_misspelt_key_within_a_list_names_its_place(tmp_path: Path) -> None:
    message = refusal(tmp_path, "fleet: {groups: [{coun: 2, role: colocated}]}")
    assert message.startswith("unknown key 'fleet.groups[0].coun' (value 2); did you mean 'count'? allowed: count, ")


def test_a_key_like_nothing_lists_what_is_allowed(tmp_path: Path) -> None:
    message = refusal(tmp_path, "zzz: 1")
    assert "did you mean" not in message
    assert "allowed: contention, fleet, host, link, policies, seed, serve, slo, workload" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "fleet: {groups: [{count: 2, role: prefil}, {count: 2, role: decode}]}",
            "fleet.groups[0].role: 'prefil' is not",
        ),
        ("fleet: {groups: []}", "fleet.groups: [] is not allowed; allowed: 1 or more entries"),
        ("fleet: {groups: [{count: 2, role: prefill}]}", "fleet: prefill instances need decode instances"),
        ("workload: 3", "workload: 3 is not allowed; allowed: keys and values"),
        ("workload: {rate_scale: -1}", "workload.rate_scale: -1 is not allowed; allowed: numbers above 0"),
        ("workload: {rate_scale: .nan}", "workload.rate_scale: nan is not allowed; allowed: finite numbers"),
        ("workload: {rate_scale: 2, rate_rps: 3}", "workload: rate_scale and rate_rps exclude each other"),
        ("workload: {window_s: [9, 1]}", "workload: window_s must end after it starts, got [9"),
        ("seed: '0'", "seed: '0' is not allowed; allowed: whole numbers"),
        ("slo: {}", "slo: an SLO needs ttft_s, tpot_s or both"),
        ("policies: {partition: semi_pd}", "policies.partition 'semi_pd' needs an instance of role semi_pd"),
        ("[1, 2]", "expected keys and values at the top, found [1, 2]"),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    assert refusal(tmp_path, text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nseed: 2", ", line 2, column 1: not valid YAML: key 'seed' stands twice"),
        ("seed: [", ", line 1, column 8: not valid YAML: "),
        ("{[1]: 2}", ", line 1, column 2: not valid YAML: key [1] is no text"),
        ("seed: 2024-99-99", ": not valid YAML: month must be in 1..12"),
    ],
)
def test_broken_yaml_names_file_and_place(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, RunConfig)
    assert str(caught.value).startswith(f"{path}{expected}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=f"{path}: cannot be read: No such file"):
        load(path, RunConfig)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"seed: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path, RunConfig)


def test_building_a_configuration_touches_nothing_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("opened a file")

    monkeypatch.setattr("builtins.open", refuse)
    config = parse(RunConfig, {"workload": {"trace": "no-such-file"}, "fleet": {"hardware": "none"}}, source="test")
    assert config.workload.trace == "no-such-file"
