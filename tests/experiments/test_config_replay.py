"""A replay's configuration: strict, complete, and able to start from a deployment's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.config_base import ConfigError
from experiments.config_file import parse, to_yaml
from experiments.config_replay import ClientConfig, ReplayConfig, load_replay
from experiments.replay import replay_settings


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    client = ClientConfig(url="https://host/v1", vocab=(5, 900), cores=(0, 2), extra_body={"top_k": 1})
    config = ReplayConfig(client=client, seed=4)
    assert load_replay(write(tmp_path, to_yaml(config))) == config


def test_a_deployments_file_gives_traffic_and_address(tmp_path: Path) -> None:
    text = "workload: {rate_rps: 3.0}\nfleet: {model: tiny}\nserve: {port: 8100}\nslo: {ttft_s: 1.0}\nseed: 7\n"
    config = load_replay(write(tmp_path, text))
    assert config.client.url == "http://127.0.0.1:8100"
    assert (config.workload.rate_rps, config.slo and config.slo.ttft_s, config.seed) == (3.0, 1.0, 7)


def test_a_deployment_on_all_addresses_is_asked_on_this_host(tmp_path: Path) -> None:
    text = "serve: {host: '::', port: 9, auth: {open_to_all: true}}\n"
    assert load_replay(write(tmp_path, text)).client.url == "http://[::1]:9"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"client": {"url": "localhost:8000"}}, "is no server's address; write it as http://HOST:PORT"),
        ({"client": {"url": "ftp://host"}}, "is no server's address"),
        ({"client": {"url": "http://host:port"}}, "client.url: "),
        ({"client": {"url": "http://user:secret@host"}}, "use --api-key-env"),
        ({"client": {"url": "http://host?x=1"}}, "is no server's address"),
        ({"client": {"vocab": [9, 3]}}, "vocab must end after it starts, got [9, 3]"),
        ({"client": {"tokenizer": "t.json"}}, "give --prompts text or chat"),
        ({"client": {"cores": []}}, "client.cores: [] is not allowed"),
        ({"client": {"label_headers": {"tenant": "X Y"}}}, "client.label_headers.tenant: "),
        ({"client": {"timeout": 3}}, "did you mean 'timeout_s'?"),
        ({"clients": {}}, "did you mean 'client'?"),
    ],
)
def test_a_mistake_is_named(content: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(ReplayConfig, content, source=None)
    assert expected in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_key_comes_from_the_environment_and_is_written_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    client = ClientConfig(api_key_env="A_KEY")
    with pytest.raises(ConfigError, match="--api-key-env A_KEY: this environment variable is not set or empty"):
        replay_settings(client, 0)
    monkeypatch.setenv("A_KEY", " sk-1\n")
    assert replay_settings(client, 0).api_key == "sk-1"
    assert "sk-1" not in to_yaml(ReplayConfig(client=client))


def test_prompts_follow_the_runs_seed_unless_they_have_their_own() -> None:
    assert replay_settings(ClientConfig(), 5).prompt_seed == 5
    assert replay_settings(ClientConfig(prompt_seed=9), 5).prompt_seed == 9
