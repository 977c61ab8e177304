"""Converting, fetching and drawing traffic from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.cli import run
from workloads import catalog
from workloads.catalog import open_trace

NANOFLOW = "TIMESTAMP,ContextTokens,GeneratedTokens\nXXX,42,285\nXXX,19,82\nXXX,7,7\n"


@pytest.fixture
def lengths(tmp_path: Path) -> str:
    (tmp_path / "l.csv").write_text(NANOFLOW)
    return str(tmp_path / "l.csv")


def test_lengths_become_a_trace_that_can_be_simulated(
    lengths: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "t.parquet")
    assert run(["workloads", "convert", lengths, out, "--arrivals", "piecewise:steps=0:4/600:12"]) == 0
    assert "not recorded; piecewise" in capsys.readouterr().out
    assert run(["simulate", "--trace", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["completed"] == 3


def test_blocks_are_converted_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = "bundled:shared-prefix:requests=20", tmp_path / "t.jsonl"
    assert run(["workloads", "convert", source, str(out)]) == 2
    assert "prefix ids of 16 tokens (allowed: 512); convert them (--block-tokens 512)" in capsys.readouterr().err
    assert not out.exists()
    assert run(["workloads", "convert", source, str(out), "--block-tokens", "512"]) == 0
    capsys.readouterr()
    assert run(["workloads", "show", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["requests"], facts["prefix_block_tokens"]) == (20, 512)
    assert facts["prefix_hit_ratio"] > 0.0


def test_tenants_get_classes_and_what_mooncake_cannot_hold_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "v.csv"
    source.write_text("arrived_at,num_prefill_tokens,num_decode_tokens,tenant\n0,5,5,a\n1,5,5,b\n")
    classes = ["--slo-class", "a=chat", "--slo-class", "b=batch"]
    assert run(["workloads", "convert", str(source), str(tmp_path / "t.parquet"), *classes]) == 0
    assert open_trace(tmp_path / "t.parquet").slo_class == ("chat", "batch")
    assert run(["workloads", "convert", str(tmp_path / "t.parquet"), str(tmp_path / "t.jsonl")]) == 0
    assert "tenant, slo_class (Mooncake's format has no place for them)" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["png", "svg"])
@pytest.mark.parametrize("source", ["bundled:shared-prefix:requests=300", "bundled:math-500-like:requests=1"])
def test_show_draws_the_same_picture_twice(source: str, ending: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run(["workloads", "show", source, "--plot", str(tmp_path / f"{name}.{ending}")]) == 0
    first = (tmp_path / f"a.{ending}").read_bytes()
    assert len(first) > 5_000
    assert first == (tmp_path / f"b.{ending}").read_bytes()


def test_synth_takes_a_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "workloads",
        "synth",
        "--scenario",
        "D(100,1000)",
        "--requests",
        "5",
        "--out",
        str(tmp_path / "t.parquet"),
    ]
    assert run(command) == 0
    assert set(open_trace(tmp_path / "t.parquet").output_tokens.tolist()) == {1000}


def test_fetch_shows_the_terms_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEMIFLOW_CACHE", str(tmp_path))
    entry = replace(catalog.entry("mooncake_arxiv"), url="http://127.0.0.1:1/mooncake_trace.jsonl")
    monkeypatch.setattr(catalog, "entries", lambda: (entry,))
    assert run(["workloads", "fetch", "mooncake_arxiv"]) == 2
    captured = capsys.readouterr()
    assert "the source publishes no checksum" in captured.out
    assert "Apache-2.0" in captured.out
    assert captured.err.count("\n") == 1
    assert "refused" in captured.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["convert", "LENGTHS", "OUT.parquet"], "lengths without arrival times"),
        (["convert", "LENGTHS", "OUT.csv"], "ends with .parquet or .jsonl"),
        (["convert", "LENGTHS", "OUT.parquet", "--arrivals", "poison:rate_rps=4"], "diurnal, piecewise"),
        (["convert", "LENGTHS", "OUT.parquet", "--window", "5"], "write START:END"),
        (["convert", "LENGTHS", "OUT.parquet", "--session-rate", "-1"], "sessions per second: -1.0"),
        (["convert", "LENGTHS", "OUT.parquet", "--slo-class", "a"], "write TENANT=CLASS"),
        (["convert", "LENGTHS", "OUT.parquet", "--read-blocks", "0"], "prefix_block_tokens: 0"),
        (["convert", "bundled:sharegpt-like", "OUT.parquet", "--slo-class", "a=b"], "no tenants"),
        (["convert", "bundled:sharegpt-like", "no/OUT.parquet"], "there is no folder no"),
        (["show", "bundled:sharegpt-like", "--plot", "OUT.pdf"], ".png or .svg"),
        (["show", "bundled:sharegpt-like", "--plot", "no/OUT.png"], "there is no folder no"),
        (["synth", "--scenario", "D(1)", "--out", "OUT.parquet"], "D(in,out)"),
        (["synth", "--scenario", "D(1,2)", "--prompt", "fixed:tokens_each=1", "--out", "OUT.parquet"], "it, or both"),
        (["fetch", "azure_2023_con"], "no public trace is called 'azure_2023_con' (allowed: azure_2023_conv, "),
        (["fetch", "bundled:sharegpt-like"], "there is nothing to fetch"),
        (["fetch", "azure_2023_conv", "--invalid", "maybe"], "write error or drop"),
        (["fetch", "azure_2025_multimodal"], "requests with images"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    expected: str,
    lengths: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["workloads", *(argument.replace("LENGTHS", lengths) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["l.csv"]


SESSION = {
    "id": "s",
    "block_size": 4,
    "requests": [
        {"t": t, "type": "n", "in": 8, "out": 5, "hash_ids": [1, 2], "think_time": think}
        for t, think in ((0.0, 0.0), (1.0, 30.0), (2.0, 0.5))
    ],
}


def test_sessions_can_be_simulated_in_closed_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(SESSION))
    command = ["simulate", "--trace", str(path), "--block-tokens", "4", "--json"]
    makespans = []
    for loop in ("--open-loop", "--closed-loop"):
        assert run([*command, loop]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["metrics"]["completed"] == 3
        assert told["manifest"]["outcome"]["turns_after_rejection"] == 0
        makespans.append(told["metrics"]["makespan_s"])
    assert makespans[0] < 3.0
    assert makespans[1] > 30.5


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["simulate", "--closed-loop", "--trace", "bundled:shared-prefix"], "no column parent_row"),
        (["capacity", "--closed-loop", "--trace", "s.json", "--slo", "ttft=1"], "closed_loop and rate_rps exclude"),
        (["compare", "c.yaml"], "pairing.kind blocks would part turns from their sessions"),
    ],
)
def test_what_does_not_fit_a_closed_loop_is_one_line(
    command: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.json").write_text(json.dumps(SESSION))
    Path("c.yaml").write_text(
        "base: {workload: {trace: s.json, closed_loop: true}}\n"
        "variants: {a: {}, b: {policies: {dispatch: random}}}\n"
        "seeds: [0]\nbaseline: a\nmetrics: {attainment: {min_effect: 0.01}}\n"
    )
    assert run(command) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
