"""The deployment on Ray Serve with a real model: one cluster for the whole module."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIStatusError, OpenAI

from experiments.config import RunConfig
from experiments.serve import live_deployment
from experiments.serve_build import build_live
from reference_impl.engine.shared_files import shared_folder
from reference_impl.metrics import read
from reference_impl.serve.launch import Running, is_complete
from reference_impl.serve.spec import LiveSpec

ROLES = ("prefill", "decode", "semi_pd")
KILLS = 20
CONFIG: dict[str, Any] = {
    "fleet": {
        "model": "tiny",
        "groups": [{"count": 1, "role": role} for role in ROLES],
        "kv_blocks": 256,
        "max_sequences": 32,
        "max_batch_tokens": 512,
    },
    "policies": {"dispatch": "round_robin", "batch": "prefill_first"},
    "host": {"job_executors": 2},
    "serve": {"attempts": 20, "record": {"decisions": "dispatch"}},
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live") / "run"


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the deployment reported."""
    return []


@dataclass
class Deployed:
    """A deployment that a test may end before the module does."""

    running: Running
    end: Callable[[], None]


def patient(config: RunConfig, folder: Path | None) -> LiveSpec:
    """A busy machine may take longer to start processes than a deployment lets requests wait."""
    spec = build_live(config, folder)
    return replace(spec, timing=replace(spec.timing, absence_s=120.0))


@pytest.fixture(scope="module")
def deployed(run_folder: Path, said: list[str], free_port: int) -> Iterator[Deployed]:
    serve = {**CONFIG["serve"], "port": free_port}
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.02")
        patch.setattr("experiments.serve.build_live", patient)
        config = RunConfig.model_validate({**CONFIG, "serve": serve})
        running = stack.enter_context(live_deployment(config, run_folder, said.append))
        yield Deployed(running, stack.close)


@pytest.fixture(scope="module")
def live(deployed: Deployed) -> Running:
    return deployed.running


@pytest.fixture(scope="module")
def client(live: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0, timeout=180) as found:
        yield found


def complete(client: OpenAI, prompt: list[int], max_tokens: int) -> list[int]:
    """Token ids of a greedy, streamed completion."""
    tokens: list[int] = []
    body = {"return_token_ids": True, "ignore_eos": True}
    for chunk in client.completions.create(
        model="tiny", prompt=prompt, max_tokens=max_tokens, temperature=0, stream=True, extra_body=body
    ):
        tokens += [token for choice in chunk.choices for token in choice.model_dump()["token_ids"] or ()]
    return tokens


def test_it_says_how_it_comes_up(live: Running, said: list[str]) -> None:
    assert said[0] == "starting Ray"
    assert "starting 1 front door, 2 job executors, 3 instances" in said
    ready = [line.split(" is ready")[0] for line in said if " is ready after " in line]
    assert {"front door 0", "job executor 1", "instance 0 (prefill)", "instance 2 (semi_pd)"} <= set(ready)


def test_a_chat_is_answered_whole_and_streamed_alike(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Say something."}]
    chosen: Any = {"model": "tiny", "messages": messages, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**chosen)
    parts = client.chat.completions.create(**chosen, stream=True)
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert whole.choices[0].message.content == text
    assert whole.usage is not None
    assert 1 <= whole.usage.completion_tokens <= 12


def test_every_instance_gives_the_same_tokens(client: OpenAI) -> None:
    prompt = list(range(10, 60))
    answers = {tuple(complete(client, prompt, 10)) for _ in range(4)}
    assert len(answers) == 1
    assert len(answers.pop()) == 10


def test_health_and_metrics_know_the_deployment(live: Running) -> None:
    health = httpx.get(f"{live.url}/health").json()
    assert (health["status"], health["instances_ready"]) == ("ok", 3)
    metrics = httpx.get(f"{live.url}/metrics").text
    assert 'semiflow:event_log_up{model_name="tiny"} 1.0' in metrics


def test_mistakes_are_the_clients(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as error:
        client.completions.create(model="tiny", prompt=[5] * 5000, max_tokens=10)
    assert error.value.status_code == 400


class Load:
    """Clients that ask one after the other until told to stop; what they got."""

    def __init__(self, client: OpenAI, clients: int, expected: dict[int, list[int]]) -> None:
        self._client = client
        self._expected = expected
        self._stop = threading.Event()
        self.good = 0
        self.errors: list[str] = []
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a client waits for ever"

    def wait(self, answers: int) -> None:
        """Until so many more good answers have come."""
        enough = self.good + answers
        until(lambda: self.good >= enough)

    def _ask(self, seed: int) -> None:
        rng = random.Random(seed)
        while not self._stop.is_set():
            key = rng.choice(list(self._expected))
            try:
                tokens = complete(self._client, prompt_of(key), len(self._expected[key]))
            except Exception as error:  # noqa: BLE001 - counted, and judged at the end
                self.errors.append(f"{type(error).__name__}: {error}")
                continue
            if tokens == self._expected[key]:
                self.good += 1
            else:
                self.wrong.append(f"{key}: {tokens} for {self._expected[key]}")


def prompt_of(key: int) -> list[int]:
    return [3 + (key * 7 + place) % 500 for place in range(8 + 5 * key)]


def processes(live: Running) -> set[int]:
    """All that were killed here may be among."""
    status = live.status
    return {status.manager_pid, *(member.pid for member in status.members), *children(live.launcher_pid)}


def is_whole(live: Running, gone: set[int]) -> bool:
    """Everybody is there, and none of those that were killed."""
    return is_complete(live.spec, live.status) and not gone & processes(live)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(fact: Callable[[], object], seconds: float = 60) -> None:
    end_s = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end_s, "it did not come true"
        threading.Event().wait(0.05)


def victims(live: Running, wave: int) -> list[tuple[str, int]]:
    """Four processes to kill: a worker, an instance, and two of the others, by turns."""
    status = live.status
    pids = {(member.kind, member.seat): member.pid for member in status.members}
    launcher = live.launcher_pid
    workers = children(launcher)
    others = [
        ("job executor", pids["job_executor", wave % 2]),
        ("cluster manager", status.manager_pid),
        ("front door", pids["front_door", 0]),
    ]
    first, second = others[wave % 3], others[(wave + 1) % 3]
    return [
        ("worker", workers[wave % len(workers)]),
        ("instance", pids["task_executor", wave % 3]),
        first,
        second,
    ]


def test_killed_processes_are_replaced_and_every_request_ends_once(live: Running, client: OpenAI) -> None:
    expected = {key: complete(client, prompt_of(key), 6 + 4 * key) for key in range(6)}
    front_doors_killed = 0
    killed: set[int] = set()
    with Load(client, 4, expected) as load:
        for wave in range(KILLS // 4):
            gone: set[int] = set()
            for name, pid in victims(live, wave):
                load.wait(1)
                os.kill(pid, signal.SIGKILL)
                gone.add(pid)
                front_doors_killed += name == "front door"
            until(partial(is_whole, live, gone))
            killed |= gone
            load.wait(8)
    assert len(killed) == KILLS
    assert not load.wrong
    broken = [
        error for error in load.errors if "APIConnectionError" not in error and "RemoteProtocolError" not in error
    ]
    assert not broken, "only a killed front door may cost its clients their answers"
    assert bool(load.errors) <= bool(front_doors_killed)
    until(lambda: all(use == 0 for use in kv_use(live)), 10)


def test_an_instance_that_hangs_is_given_up_and_replaced(live: Running, client: OpenAI) -> None:
    expected = {key: complete(client, prompt_of(key), 8) for key in range(4)}
    hanging = {member.pid for member in live.status.members if member.role == "semi_pd"}
    with Load(client, 4, expected) as load:
        load.wait(2)
        for pid in hanging:
            os.kill(pid, signal.SIGSTOP)
        until(partial(is_whole, live, hanging))
        load.wait(8)
    assert (load.wrong, load.errors) == ([], [])


def test_a_launcher_that_died_is_replaced(live: Running, client: OpenAI) -> None:
    launcher = live.launcher_pid
    workers = children(launcher)
    os.kill(launcher, signal.SIGKILL)
    while live.launcher_pid == launcher:
        live.wait(0.05)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert len(complete(client, prompt_of(1), 8)) == 8
    until(lambda: len(children(live.launcher_pid)) == len(workers))


def kv_use(live: Running) -> list[float]:
    lines = httpx.get(f"{live.url}/metrics").text.splitlines()
    return [float(line.split()[-1]) for line in lines if line.startswith("semiflow:kv_cache_usage_perc{")]


def test_the_folder_of_the_run_is_whole_and_nothing_is_left(deployed: Deployed, run_folder: Path) -> None:
    live = deployed.running
    run = live.spec.run
    assert list(shared_folder().glob(f"semiflow-{run}-*"))
    deployed.end()
    assert json.loads((run_folder / "metrics.json").read_text())["completed"] > 20
    assert {path.name for path in run_folder.iterdir()} >= {"config.yaml", "manifest.json", "requests.jsonl"}
    assert len(read(run_folder / "events.parquet").rows["arrive"]) > 20
    assert list(run_folder.glob("decisions-je*.jsonl"))
    assert not list(shared_folder().glob(f"semiflow-{run}*"))
    assert not live.spec.folder.exists()
