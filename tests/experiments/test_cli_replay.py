"""``semiflow replay`` and ``semiflow record`` on the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import run
from experiments.cli.replay_flags import REPLAY_FLAGS, resolve
from experiments.config_base import ConfigError
from workloads.catalog import open_trace

Serving = Callable[..., Any]
FEW = ("--max-requests", "6", "--rate", "200", "--max-total-tokens", "200")
TRACE = "bundled:sharegpt-like"
NOT_IGNORED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
ENTRY = "from experiments.cli import main; main()"
DEADLINE_S = 60.0


def given(**flags: Any) -> dict[str, Any]:
    return {"trace": TRACE, "config": None, **{flag.parameter: None for flag in REPLAY_FLAGS}, **flags}


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").strip()


def test_a_replay_prints_figures_and_keeps_its_folder(
    serving: Serving, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert run(["replay", TRACE, "--url", serving().url, *FEW, "--slo", "ttft=9", "--out", out]) == 0
    captured = capsys.readouterr()
    assert "attainment_client" in captured.out
    assert "times on the client's clock" in captured.out
    assert f"run: {out}" in captured.out
    saved = str(tmp_path / "run" / "config.yaml")
    assert run(["replay", "--config", saved, "--url", serving().url, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["folder"], answer["metrics"]["completed"]) == (None, 6)
    assert answer["manifest"]["trace"]["name"] == TRACE


def test_the_flags_of_the_workload_are_simulates(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    server = serving()
    assert run(["replay", TRACE, "--url", server.url, *FEW, "--seed", "3", "--json"]) == 0
    capsys.readouterr()
    asked = sorted(len(exchange.json()["prompt"]) for exchange in server.posts)
    trace = open_trace(f"{TRACE}:requests=6,seed=3").clip_total_tokens(200)
    assert asked == sorted(trace.prompt_tokens.tolist())


def test_what_went_wrong_is_told(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    async def busy(exchange: Any) -> None:
        await exchange.whole(429, {"error": {"message": "slow down"}})

    arguments = ["--max-concurrency", "2", "--lag-bound", "1e-9", "--json"]
    assert run(["replay", TRACE, "--url", serving(busy).url, *FEW, *arguments]) == 0
    notes = capsys.readouterr().err
    assert "note: 6 of 6 requests ended in http_429: slow down" in notes
    assert "note: not open loop: at most 2 requests at once" in notes
    assert "the client itself was late" not in notes


def test_a_late_client_is_warned_of(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", TRACE, "--url", serving().url, *FEW, "--lag-bound", "1e-9", "--json"]) == 0
    assert "warning: the client itself was late: " in capsys.readouterr().err


def test_answers_of_another_length_are_told(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    async def short(exchange: Any) -> None:
        usage = {"prompt_tokens": 1_000, "completion_tokens": 5}
        end = exchange.event({"choices": [], "usage": usage})
        await exchange.stream(exchange.chunk("a"), exchange.chunk("b", "stop"), end)

    arguments = ["--prompts", "text", "--usage", "final", "--json"]
    assert run(["replay", TRACE, "--url", serving(short).url, *FEW, *arguments]) == 0
    notes = capsys.readouterr().err
    assert "note: 6 prompts had another length than the trace's" in notes
    assert "approximate: one common English word for each token" in notes
    assert "note: 6 answers had another length than the trace's" in notes
    assert "note: 6 answers did not say how many tokens each chunk holds" in notes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["replay", "--url", "http://127.0.0.1:1"], "which trace?"),
        (["replay", TRACE, "--url", "http://127.0.0.1:1"], "no connection"),
        (["replay", TRACE, "--url", "nowhere"], "--url: 'nowhere' is no server's address"),
        (["replay", "no-such-trace"], "'no-such-trace' is neither a file nor a named trace"),
        (["replay", TRACE, "--prompts", "images"], "--prompts: 'images' is not allowed"),
        (["replay", TRACE, "--vocab", "1000"], "--vocab: '1000' is not FIRST:END, e.g. 1000:30000"),
        (["replay", TRACE, "--vocab", "9:3"], "vocab must end after it starts"),
        (["replay", TRACE, "--extra-body", "[1]"], "--extra-body: '[1]' is no JSON object"),
        (["replay", TRACE, "--client-cores", "3-1"], "--client-cores: '3-1' is not a list of cores"),
        (["replay", TRACE, "--client-cores", "0-99999"], "is not a list of cores"),
        (
            ["replay", TRACE, "--api-key-env", "NOT_SET_AT_ALL"],
            "--api-key-env NOT_SET_AT_ALL: this environment variable",
        ),
        (["replay", TRACE, "--timeout", "0"], "--timeout: 0.0 is not allowed"),
        (["replay", TRACE, "--max-concurrency", "0"], "--max-concurrency: 0 is not allowed"),
        (["replay", TRACE, "--config", "none.yaml"], "none.yaml: cannot be read"),
        (["record", "nowhere", "--out", "t.parquet"], "nowhere: holds neither requests.jsonl nor events.parquet"),
        (["record", "nowhere", "--out", "t.csv"], "--out t.csv: traces are written as parquet"),
        (["record", "nowhere", "--out", "t.parquet", "--unfinished", "all"], "--unfinished 'all' is not allowed"),
        (["record", "nowhere", "--out", "t.parquet", "--invalid", "no"], "invalid='no'"),
    ],
)
def test_a_users_mistake_is_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in failing(capsys, *arguments)


@pytest.mark.parametrize(
    ("settings", "arguments", "expected"),
    [
        ({"models_status": 401, "models": {"error": {"message": "no key"}}}, [], "401: no key; give the environment"),
        ({}, ["--model", "huge"], "no model 'huge'; allowed: tiny (--model)"),
        ({"models": {"data": [{"id": "a"}]}}, [], "give the ids of ordinary tokens, for instance --vocab 1000:30000"),
    ],
)
def test_a_server_that_refuses_is_one_line(
    settings: Any, arguments: list[str], expected: str, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in failing(capsys, "replay", TRACE, "--url", serving(**settings).url, *arguments)


def test_an_unknown_model_is_one_line_and_leaves_nothing(
    serving: Serving, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def unknown(exchange: Any) -> None:
        await exchange.whole(404, {"error": {"message": "The model `tiny` does not exist."}})

    url = serving(unknown, trial_is_good=False).url
    message = failing(capsys, "replay", TRACE, "--url", url, "--out", str(tmp_path / "run"))
    assert "a trial request to /v1/completions failed: 404: The model `tiny` does not exist.; check --url" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_there_is(number: int, serving: Serving, tmp_path: Path) -> None:
    begun = threading.Event()

    async def answer(exchange: Any) -> None:
        await exchange.tokens()
        if len(server.posts) >= 10:
            begun.set()

    server = serving(answer)
    command = [TRACE, "--url", server.url, "--max-requests", "5000", "--rate", "50", "--max-total-tokens", "30"]
    arguments = [sys.executable, "-c", NOT_IGNORED + ENTRY, "replay", *command, "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        arguments, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert begun.wait(DEADLINE_S), "the replay did not start"
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("error: interrupted; ")
    assert f"what came until then is in {tmp_path / 'run'}" in err
    assert "ttft_mean_ms_client" in out
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert manifest["interrupted"]
    assert metrics["arrived"] + manifest["not_due"] == 5000
    assert metrics["arrived"] >= 10
    assert 0 < metrics["completed"] < 5000


def test_record_writes_a_trace(serving: Serving, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, trace = str(tmp_path / "run"), str(tmp_path / "t.parquet")
    shared = "bundled:shared-prefix"
    assert run(["replay", shared, "--url", serving().url, "--max-requests", "4", "--rate", "100", "--out", out]) == 0
    assert run(["record", out, "--out", trace]) == 0
    assert f"{trace}: 4 requests over " in capsys.readouterr().out
    assert sorted(map(len, open_trace(trace).prefix_ids or ())) == sorted(
        map(len, open_trace(f"{shared}:requests=4,seed=0").prefix_ids or ())
    )
    assert "exists already" in failing(capsys, "record", out, "--out", trace)
    assert run(["record", out, "--out", trace, "--force"]) == 0


def test_every_flag_reaches_its_key() -> None:
    config = resolve(
        given(
            url="http://host:1/v1",
            model="m",
            vocab="5:90",
            client_cores="0,2-3",
            extra_body='{"a": 1}',
            ignore_eos=False,
            tenant_header="X-T",
            slo="ttft=1",
            window="0,60",
            max_concurrency=7,
        )
    )
    client = config.client
    assert (client.url, client.model, client.vocab, client.cores) == ("http://host:1/v1", "m", (5, 90), (0, 2, 3))
    assert (client.extra_body, client.ignore_eos, client.label_headers.tenant) == ({"a": 1}, False, "X-T")
    assert (config.slo and config.slo.ttft_s, config.workload.window_s, client.max_concurrency) == (1.0, (0, 60), 7)


def test_a_trace_given_beside_a_file_wins(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("workload: {trace: 'bundled:shared-prefix', rate_rps: 2.0}\n", encoding="utf-8")
    assert resolve(given(trace=None, config=path)).workload.trace == "bundled:shared-prefix"
    assert resolve(given(config=path)).workload.trace == TRACE
    with pytest.raises(ConfigError, match="which trace"):
        resolve(given(trace=None))


@pytest.mark.parametrize("command", ["replay", "record"])
def test_the_commands_have_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"Usage: semiflow {command}" in capsys.readouterr().out


def test_the_command_line_starts_without_the_client() -> None:
    code = "import sys; from experiments.cli.app import command_line; command_line([]); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    assert not {"aiohttp", "asyncio", "workloads.client.replay"} & set(loaded.split())


def test_sessions_can_be_replayed_in_closed_loop(
    serving: Serving, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = [
        {"t": 0.0, "type": "n", "in": 8, "out": 2, "hash_ids": [1, 2], "think_time": think_s}
        for think_s in (0.0, 0.05, 0.05)
    ]
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"id": "s", "block_size": 4, "requests": requests}))
    assert run(["replay", str(path), "--url", serving().url, "--closed-loop", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert "not open loop" not in captured.err
    assert (told["metrics"]["completed"], told["manifest"]["turns_after_rejection"]) == (3, 0)
    assert told["metrics"]["makespan_s_client"] >= 0.1
    assert not told["manifest"]["open_loop"]
