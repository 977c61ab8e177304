"""What goes wrong ends with the right exit code and in one line, wherever it happens: 1 is the gate's alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import run

ENTRY = "from experiments.cli import main; main()"
ROOT = str(Path(__file__).parents[2])
FEW = ("--trace", "bundled:sharegpt-like", "--max-requests", "12")
POLICY = """
from dataclasses import dataclass
from policies.api import Dispatch

@dataclass
class Mine:
    kind, name = "dispatch", "mine"

    def dispatch(self, request, cluster):
        {action}
"""
JUDGE = """
base: {workload: {trace: "bundled:sharegpt-like", max_requests: 12}, slo: {ttft_s: 1.0}}
variants: {old: {}, new: {policies: {dispatch: "acting:Mine"}}}
seeds: [0, 1]
pairing: {kind: arrivals}
"""


def semiflow(folder: Path, *arguments: str, start: str = ENTRY, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in ``folder`` as a process of its own."""
    code = f"import sys; sys.path.append({ROOT!r}); {start}"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def mistake(answer: subprocess.CompletedProcess[str]) -> str:
    """The one line of a user's mistake."""
    errors = [line for line in answer.stderr.splitlines() if not line.startswith("note: ")]
    assert (answer.returncode, len(errors)) == (2, 1), answer.stderr
    assert errors[0].startswith("error: ")
    return errors[0]


@pytest.mark.parametrize("action", ["raise KeyError('no queue')", "raise SystemExit(0)", "return Dispatch(99)"])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_policy_that_fails_in_a_comparison_is_one_line(action: str, processes: str, tmp_path: Path) -> None:
    (tmp_path / "acting.py").write_text(POLICY.format(action=action), encoding="utf-8")
    (tmp_path / "judge.yaml").write_text(JUDGE, encoding="utf-8")
    line = mistake(semiflow(tmp_path, "compare", "judge.yaml", "--gate", "--processes", processes))
    assert "new, default, seed " in line
    assert "'mine'" in line


@pytest.mark.parametrize("source", ["raise SystemExit(0)", "1 / 0"])
@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_a_policy_module_that_fails_at_import_is_one_line(source: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "acting.py").write_text(f"\n{source}\n", encoding="utf-8")
    (tmp_path / "judge.yaml").write_text(JUDGE, encoding="utf-8")
    arguments = ("judge.yaml",) if command == "compare" else (*FEW, "--dispatch", "acting:Mine")
    line = mistake(semiflow(tmp_path, command, *arguments))
    assert "importing acting failed: " in line
    assert "acting.py:2)" in line
    assert not (tmp_path / "judge").exists()


def test_an_interrupt_while_modules_are_imported_has_no_traceback(tmp_path: Path) -> None:
    interrupt = (
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'experiments.cli.app':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    answer = semiflow(tmp_path, "policies", start=f"\n{interrupt}{ENTRY}")
    assert (answer.returncode, answer.stderr) == (
        130,
        "error: interrupted; no half-written result stands in its place\n",
    )


def test_a_defect_of_ours_is_not_the_gates_exit_code(tmp_path: Path) -> None:
    start = f"import experiments.cli as cli; cli.run = lambda _: 1 // 0; {ENTRY}"
    answer = semiflow(tmp_path, "policies", start=start)
    assert answer.returncode == 70
    assert "ZeroDivisionError" in answer.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("simulate", "--help"), ("workloads", "synth", "--help")])
def test_help_needs_no_utf8(arguments: tuple[str, ...], tmp_path: Path) -> None:
    answer = semiflow(tmp_path, *arguments, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Usage: semiflow" in answer.stdout


@pytest.mark.parametrize("arguments", [(), ("workloads",)])
def test_a_command_alone_shows_its_help_and_no_empty_error(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert "Usage: semiflow" in captured.out
    assert captured.err == ""


def test_many_requests_that_are_too_long_are_hinted_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--trace", "bundled:longbench-like", "--max-requests", "20"]) == 0
    hint = capsys.readouterr().err
    assert "over 4096 tokens (prompt and output)" in hint
    assert "--max-total-tokens 4096 clips prompts" in hint


def test_dropped_rows_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["2023-11-16 18:15:51,5,5", "2023-11-16 18:15:52,0,5", "2023-11-16 18:15:53,5,5"]
    (tmp_path / "a.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]), encoding="utf-8")
    assert run(["simulate", "--trace", str(tmp_path / "a.csv"), "--invalid", "drop", "--json"]) == 0
    captured = capsys.readouterr()
    assert "note: 1 of 3 rows of a were invalid and dropped" in captured.err
    assert '"completed": 2,' in captured.out


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--rate", "5"), "capacity sets the rate itself: leave out --rate and --rate-scale"),
        (("--rate-scale", "5"), "capacity sets the rate itself: leave out --rate and --rate-scale"),
        (("--to", "inf"), "--from 0.5 --to inf: allowed: 0 < lowest <= highest <= 1e+06"),
        (("--from", "nan"), "--from nan --to 1000: allowed: 0 < lowest"),
    ],
)
def test_a_rate_that_capacity_cannot_honour_is_refused(
    flags: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["capacity", *FEW, "--slo", "ttft=1.0", *flags]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--json", "none/v.json"), "--json none/v.json: there is no folder none; make it"),
        (("--json", "."), "--json .: cannot be written"),
        (("--junit", "nowhere/j.xml"), "--junit nowhere/j.xml: there is no folder nowhere"),
        (("--markdown", "."), "--markdown .: cannot be written"),
        (("--min-effect", "-1%"), "--min-effect: '-1%' is not allowed; allowed: 0 or more, in the metric's unit, or"),
        (("--baseline", "odl"), "baseline: 'odl' is not there; did you mean 'old'?"),
        (("--out", "judge.yaml"), "judge.yaml is no folder that can be written to"),
    ],
)
def test_where_a_comparison_goes_is_looked_at_first(
    flags: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge.yaml").write_text(JUDGE.replace("acting:Mine", "random"), encoding="utf-8")
    assert run(["compare", "judge.yaml", *flags]) == 2
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["judge.yaml"]


def test_a_gate_over_one_seed_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = JUDGE.replace("acting:Mine", "random").replace("[0, 1]", "[0]")
    (tmp_path / "judge.yaml").write_text(text, encoding="utf-8")
    assert run(["compare", "judge.yaml", "--gate"]) == 2
    assert "a gate needs two seeds or more" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["judge.yaml"]


def test_a_broken_package_costs_the_list_of_policies_only_a_warning(tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[semiflow.policies]\nmine = broken_one:Mine\n", encoding="utf-8")
    (tmp_path / "broken_one.py").write_text("raise SystemExit(1)\n", encoding="utf-8")
    answer = semiflow(tmp_path, "policies", "--json", start=f"sys.path.append({str(tmp_path)!r}); {ENTRY}")
    assert answer.returncode == 0
    assert answer.stderr.startswith("warning: policy mine of package broken (broken_one:Mine) cannot be used: ")
    listed = json.loads(answer.stdout)
    assert {"round_robin", "mine"} <= {entry["name"] for entry in listed}
    assert "SystemExit: 1" in listed[-1]["error"]


def test_a_comparison_does_not_go_into_the_folder_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.parquet").touch()
    (tmp_path / "judge.yaml").write_text(JUDGE.replace("acting:Mine", "random"), encoding="utf-8")
    assert run(["compare", str(tmp_path / "judge.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "run: holds a run, which is kept as it is; choose another folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["events.parquet"]
