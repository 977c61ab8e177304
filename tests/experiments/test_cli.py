"""What the command line does: exit codes, one line per mistake, nothing half-written, JSON alone on stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import run

FEW = ("--trace", "bundled:sharegpt-like", "--max-requests", "12")
ENTRY = "from experiments.cli import main; main()"
NOT_IGNORED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
"""A process started in the background of a script (``nohup pytest &``) inherits SIGINT as ignored, which is right."""


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail as a user's mistake; returns its one line."""
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").strip()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("semiflow 0.")


@pytest.mark.parametrize("command", ["simulate", "compare", "capacity", "demo", "policies", "workloads", "bench"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "Usage: semiflow" in capsys.readouterr().out


def test_simulate_prints_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", *FEW, "--slo", "ttft=1.0,tpot=0.1", "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["folder"] is None
    assert answer["metrics"]["completed"] == 12
    assert all(line.startswith("note: ") for line in captured.err.splitlines())


def test_simulate_leaves_a_whole_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", *FEW, "--out", str(tmp_path / "run")]) == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("config.yaml", "events.parquet", "manifest.json", "metrics.json", "vllm_bench.json")
    ]
    assert "ttft_mean_ms" in capsys.readouterr().out


def test_the_saved_configuration_gives_the_same_events(tmp_path: Path) -> None:
    assert run(["simulate", *FEW, "--instances", "2", "--rate", "5", "--seed", "7", "--out", str(tmp_path / "a")]) == 0
    saved = str(tmp_path / "a" / "config.yaml")
    assert run(["simulate", "--config", saved, "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a" / "events.parquet").read_bytes() == (tmp_path / "b" / "events.parquet").read_bytes()


def test_policies_of_a_kind_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policies", "dispatch", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {policy["kind"] for policy in listed} == {"dispatch"}
    assert {"round_robin", "least_loaded"} <= {policy["name"] for policy in listed}


@pytest.mark.parametrize(
    ("command", "names", "fact"),
    [
        ("hardware", {"a800", "h800", "l40s", "ascend-910b"}, "link_bytes_per_s"),
        ("models", {"llama-3.1-405b", "deepseek-v3", "qwen-72b", "tiny"}, "active_parameters"),
    ],
)
def test_what_runs_can_be_of_is_listed(
    command: str, names: set[str], fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command]) == 0
    text = capsys.readouterr().out
    assert run([command, "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert names <= set(listed)
    assert all(name in text and entry["source"] and entry[fact] for name, entry in listed.items())


def test_policies_of_all_kinds_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policies"]) == 0
    text = capsys.readouterr().out
    assert "chunk_tokens" in text
    assert "semi_pd" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["policies", "dispach"], "'dispach' is no kind of policy; allowed: dispatch, batch"),
        (["simulat"], "No such command 'simulat'"),
        (["simulate", "--instance", "8"], "No such option: --instance"),
        (["simulate", "--seed", "x"], "Invalid value for '--seed': "),
        (["simulate", "--trace", "none.csv"], "none.csv: "),
        (["simulate", "--trace", "bundled:sharegpt"], "sharegpt-like"),
        (["simulate", *FEW, "--dispatch", "least_load"], "unknown dispatch policy 'least_load'; did you mean"),
        (
            ["simulate", *FEW, "--batch", "chunked_prefill:chunk=5"],
            "batch policy chunked_prefill has no parameter 'chunk'",
        ),
        (["simulate", *FEW, "--batch", "chunked_prefill:chunk_tokens=x"], "chunk_tokens=x is not allowed"),
        (["simulate", *FEW, "--dispatch", "no_such_module:X"], "no module named 'no_such_module'"),
        (["simulate", *FEW, "--hardware", "a100"], "a100-80g"),
        (["simulate", *FEW, "--model", "llama-3"], "llama-3-8b"),
        (["simulate", *FEW, "--tp", "7"], "7"),
        (["simulate", *FEW, "--link", "pigeon"], "unknown link 'pigeon'"),
        (["simulate", *FEW, "--model", "llama-3-70b"], "does not fit"),
        (["simulate", *FEW, "--slo", "ttft=0"], "--slo: 0.0 is not allowed"),
        (["simulate", "--config", "none.yaml"], "none.yaml: cannot be read: No such file"),
        (["compare", "none.yaml"], "none.yaml: "),
    ],
)
def test_a_users_mistake_is_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if arguments[0] == "simulate":
        arguments = [*arguments, "--out", str(tmp_path / "run")]
    assert expected in failing(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert "not empty" in failing(capsys, "simulate", *FEW, "--out", str(tmp_path))
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_policy_that_names_an_unknown_instance_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (
        "from dataclasses import dataclass\n"
        "from policies.api import Dispatch\n"
        "@dataclass\n"
        "class Wrong:\n"
        "    kind, name = 'dispatch', 'wrong'\n"
        "    def dispatch(self, request, cluster):\n"
        "        return Dispatch(99)\n"
    )
    (tmp_path / "wrong_policy.py").write_text(source, encoding="utf-8")
    sys.path.append(str(tmp_path))
    try:
        line = failing(capsys, "simulate", *FEW, "--dispatch", "wrong_policy:Wrong", "--out", str(tmp_path / "run"))
    finally:
        sys.path.remove(str(tmp_path))
    assert "99" in line
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reference_impl.events.EventLog.close", full)
    line = failing(capsys, "simulate", *FEW, "--out", str(tmp_path / "run"))
    assert line == "the disk is full (No space left on device); nothing half-written is left"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_exits_with_130_and_leaves_nothing(sent: signal.Signals, tmp_path: Path) -> None:
    """The policy sends the signal itself, so the moment is certain."""
    source = (
        "import os\n"
        "from dataclasses import dataclass\n"
        "from policies.api import Dispatch\n"
        "@dataclass\n"
        "class Interrupt:\n"
        "    kind, name = 'dispatch', 'interrupt'\n"
        "    def dispatch(self, request, cluster):\n"
        f"        os.kill(os.getpid(), {int(sent)})\n"
        "        return Dispatch(0)\n"
    )
    (tmp_path / "interrupting.py").write_text(source, encoding="utf-8")
    arguments = ["simulate", *FEW, "--dispatch", "interrupting:Interrupt", "--out", "run"]
    answer = subprocess.run(
        [sys.executable, "-c", NOT_IGNORED + ENTRY, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 130
    assert answer.stderr == "error: interrupted; no half-written result stands in its place\n"
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("interrupting.py", "__pycache__")] == []


def test_a_reader_that_leaves_is_told_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        command = [sys.executable, "-c", ENTRY, "policies"]
        answer = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (141, "")


def test_only_the_called_command_is_loaded() -> None:
    code = "import sys; from experiments.cli import run; run(['policies', '--help']); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    ).stdout
    own = {name for name in loaded.split() if name.startswith("experiments.cli.")}
    assert "experiments.cli.lists" in own
    assert not own & {"experiments.cli.judge", "experiments.cli.replay", "experiments.cli.workloads"}
