"""``semiflow serve`` as its user sees it: policies of one's own, scaling, an interruption, the folder of the run."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from experiments.config_serve import ServeConfig

POLICIES = """
import random
from dataclasses import dataclass, field
from typing import ClassVar

from policies.api import Dispatch, PolicyKind, ScalePlan


@dataclass
class Last:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "last"
    rng: random.Random = field(init=False, repr=False)

    def dispatch(self, request, cluster):
        return Dispatch(cluster.instances[-1].instance_id, reason="the last one")


@dataclass
class Grow:
    kind: ClassVar[PolicyKind] = "scaling"
    name: ClassVar[str] = "grow"
    interval_s: ClassVar[float | None] = 0.2
    rng: random.Random = field(init=False, repr=False)
    grown: bool = field(default=False, init=False)

    def scale(self, fleet):
        self.grown = self.grown or fleet.arrival_rate_rps > 0
        return ScalePlan({"colocated": 2 if self.grown else 1}, reason="somebody came")
"""
CONFIG = """
fleet: {model: tiny, kv_blocks: 128, max_sequences: 16, max_batch_tokens: 256, groups: [{count: 1, role: colocated}]}
policies: {dispatch: "my_policies:Last", batch: prefill_first, scaling: "my_policies:Grow"}
serve: {port: PORT}
"""
COMMAND = [sys.executable, "-c", "from experiments.cli import main; main()", "serve"]


def until(fact: Callable[[], Any], seconds: float = 90) -> None:
    end_s = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end_s, "it did not come true"
        threading.Event().wait(0.05)


@pytest.fixture
def folder(tmp_path: Path, free_port: int) -> Path:
    (tmp_path / "my_policies.py").write_text(POLICIES, encoding="utf-8")
    (tmp_path / "live.yaml").write_text(CONFIG.replace("PORT", str(free_port)), encoding="utf-8")
    return tmp_path


@pytest.fixture
def served(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with (folder / "err.txt").open("w") as err:
        process = subprocess.Popen(
            [*COMMAND, "live.yaml", "--out", "run"], cwd=folder, stdout=subprocess.PIPE, stderr=err, text=True
        )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def refused(folder: Path, *arguments: str) -> str:
    answer = subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.count("\n") == 1
    return answer.stderr


def test_check_starts_nothing(folder: Path) -> None:
    answer = subprocess.run([*COMMAND, "live.yaml", "--check"], cwd=folder, capture_output=True, text=True, check=True)
    assert answer.stdout == "live.yaml: good to serve\n"
    assert answer.stderr == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("my_policies:Last", "my_policies:Lost", "my_policies"),
        ("model: tiny", "model: nobody/knows", "model 'nobody/knows' is neither a bundled model nor a folder"),
        ("serve: {", "serve: {prefix_block_tokens: 5, ", "serve.prefix_block_tokens is 5, a KV block has 16 tokens"),
        ("batch: prefill_first", "predictor: oracle", "policies.predictor oracle knows the future"),
        ("role: colocated", "role: semi_pd", None),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line(folder: Path, old: str, new: str, message: str | None) -> None:
    path = folder / "live.yaml"
    path.write_text(path.read_text().replace(old, new), encoding="utf-8")
    if message is None:
        subprocess.run([*COMMAND, "live.yaml", "--check"], cwd=folder, check=True, capture_output=True)
    else:
        assert message in refused(folder, "live.yaml", "--check")


def test_several_front_doors_need_a_port_each() -> None:
    assert ServeConfig(port=65_533, front_doors=2).front_doors == 2
    with pytest.raises(ValueError, match=r"serve\.port 65534 leaves no ports for 2 front doors; give one up to 65533"):
        ServeConfig(port=65_534, front_doors=2)


def test_a_scaling_policy_without_a_pace_is_one_line(folder: Path) -> None:
    path = folder / "my_policies.py"
    path.write_text(path.read_text().replace("] = 0.2", '] = "2 s"').replace("ClassVar[float | None]", "ClassVar"))
    error = refused(folder, "live.yaml", "--check")
    assert "policies.scaling my_policies:Grow: interval_s is '2 s'; allowed: seconds above 0, or None" in error


def test_a_port_that_is_taken_is_one_line(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = refused(folder, "live.yaml", "--port", str(port))
    assert f"127.0.0.1:{port} cannot be listened at: Address already in use; choose another port" in error


def test_own_policies_scale_and_dispatch_and_an_interruption_leaves_a_whole_run(
    served: subprocess.Popen[str], folder: Path
) -> None:
    assert served.stdout is not None
    first, curl = served.stdout.readline(), served.stdout.readline()
    found = re.search(r"serving tiny at (http://127.0.0.1:\d+)/v1, ready after", first)
    assert found, f"{first}{(folder / 'err.txt').read_text()}"
    url = found[1]
    assert curl.startswith(f"curl -N {url}/v1/chat/completions ")
    body = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0}
    assert httpx.post(f"{url}/v1/completions", json=body, timeout=30).status_code == 200
    until(lambda: httpx.get(f"{url}/health").json()["instances_ready"] == 2)
    with httpx.Client(timeout=60) as client:
        long = {**body, "max_tokens": 400, "stream": True, "ignore_eos": True}
        with client.stream("POST", f"{url}/v1/completions", json=long) as answer:
            lines = answer.iter_lines()
            next(lines)
            served.send_signal(signal.SIGTERM)
            *_, last = (line for line in lines if line)
    assert last == "data: [DONE]"
    out, _ = served.communicate(timeout=60)
    assert (served.returncode, out) == (0, "run: run\n")
    lines_of = [json.loads(line) for line in (folder / "run" / "requests.jsonl").read_text().splitlines()]
    assert [(line["instances"], line["outcome"]) for line in lines_of] == [([0], "finished"), ([1], "finished")]
    assert json.loads((folder / "run" / "metrics.json").read_text())["completed"] == 2
    assert "instance 1 (colocated) is ready after" in (folder / "err.txt").read_text()
    assert not [name for name in os.listdir(folder) if name.startswith(".run")]
