"""Listing, looking at and generating traffic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli import run
from workloads.synthetic.arrivals import ARRIVALS
from workloads.synthetic.build import keys
from workloads.synthetic.lengths import LENGTHS
from workloads.synthetic.prefixes import SharedPrefix


def test_the_list_has_bundled_and_public_workloads(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["workloads", "list", "--json"]) == 0
    listed = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert {"bundled:sharegpt-like", "azure_2023_conv", "mooncake_conversation"} <= listed


def test_a_trace_that_is_not_here_says_where_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEMIFLOW_TRACES", str(tmp_path))
    monkeypatch.setenv("SEMIFLOW_CACHE", str(tmp_path))
    assert run(["workloads", "list"]) == 0
    assert "not here; CC-BY-4.0, https://" in capsys.readouterr().out


def test_show_states_size_and_lengths(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["workloads", "show", "bundled:longbench-like", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["requests"] == 1000
    assert facts["prompt_tokens"]["mean"] > 5000


def test_what_synth_writes_can_be_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "made.parquet")
    lengths = ["--prompt", "fixed:tokens_each=100", "--output", "lognormal:mean_tokens=20,sigma=0.5"]
    command = ["workloads", "synth", "--requests", "25", "--arrivals", "gamma:rate_rps=4,cv=2", *lengths, "--out", file]
    assert run(command) == 0
    assert run(["workloads", "show", file]) == 0
    assert "requests             25" in capsys.readouterr().out
    assert run(["simulate", "--trace", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["completed"] == 25


def test_equal_descriptions_and_seeds_give_equal_files(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        assert run(["workloads", "synth", "--seed", "3", "--requests", "20", "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_synth_writes_parquet_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["workloads", "synth", "--out", str(tmp_path / "x.csv")]) == 2
    assert "workloads are written as parquet; name it x.parquet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_help_of_synth_shows_every_kind_with_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["workloads", "synth", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for kinds in (ARRIVALS, LENGTHS):
        for kind, part in kinds.items():
            assert f"{kind}:{keys(part)}" in shown
    assert "--arrivals replayed:trace=..; optional: rate_factor=1.0" in shown
    assert f"--prefix {keys(SharedPrefix)}" in shown


def test_synth_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "made.parquet").write_bytes(b"mine")
    assert run(["workloads", "synth", "--out", str(tmp_path / "made.parquet")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "made.parquet").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", "azure_2023_con"], "azure_2023_conv"),
        (["show", "bundled:longbench-like", "--invalid", "maybe"], "write error or drop"),
        (["synth", "--arrivals", "poison:rate_rps=4"], "poisson"),
        (["synth", "--prompt", "lognormal:mean=5"], "mean_tokens"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "x.parquet")] if arguments[0] == "synth" else []
    assert run(["workloads", *arguments, *out]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_blocks_of_no_tokens_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out.jsonl")
    assert run(["workloads", "convert", "bundled:sharegpt-like", out, "--block-tokens", "0"]) == 2
    assert "--block-tokens" in capsys.readouterr().err
