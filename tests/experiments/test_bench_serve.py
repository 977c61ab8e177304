"""``semiflow bench serve``: its arithmetic on made-up measurements, its client, and its command; no Ray."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.bench.figures import Figure
from experiments.cli import run
from reference_impl.events import EventLog
from reference_impl.metrics import read

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("psutil", "ray", "torch")),
    reason="the extra serve is not installed",
)
if importlib.util.find_spec("psutil") is not None:
    from experiments.bench import serve, serve_processes, serve_streams, serve_tokens, serve_ttft, serve_weights
    from experiments.bench.serve_child import child
    from experiments.bench.serve_client import Stream, begin, finish
    from experiments.bench.serve_memory import Memory, Sample, growth_note, growth_per_minute, lasting
    from experiments.bench.serve_processes import Process
    from experiments.bench.serve_window import Window, delays_s, grid

MB = 1_000_000


def log_of_two(path: Path) -> None:
    """Request 0 on instance 1, then request 1 on instance 0, whose prompt takes two iterations."""
    with EventLog(path, {"schema_version": 1}) as log:
        log.arrive += [(1.001, 0, 64), (2.001, 1, 64)]
        log.dispatch += [(1.003, 0, 1, None), (2.002, 1, 0, None)]
        log.admit += [(1.004, 0, 1, "mixed", 0), (2.003, 1, 0, "mixed", 0)]
        log.prefilled += [(1.015, 0, 1, "mixed", 1), (2.025, 1, 0, "mixed", 1)]
        log.run += [
            (1.015, 1, "mixed", 64, 0, 1.005, 1, None, None, None, 4),
            (1.020, 1, "mixed", 0, 1, 1.016, 1, None, None, None, 4),
            (2.014, 0, "mixed", 32, 0, 2.004, 1, None, None, None, 4),
            (2.025, 0, "mixed", 32, 0, 2.015, 1, None, None, None, 4),
        ]


# ------------------------------------------------------------------------------------------------------- first token


def test_the_time_to_a_first_token_is_told_apart_along_its_way(tmp_path: Path) -> None:
    log_of_two(tmp_path / "events.parquet")
    parts = serve_ttft.parts_of(read(tmp_path / "events.parquet"), 0, sent_s=1.0, first_s=1.018)
    assert parts == pytest.approx((0.001, 0.002, 0.001, 0.001, 0.010, 0.003))
    assert parts.overhead == pytest.approx(0.008)


def test_a_prompt_in_two_iterations_counts_as_engine_from_the_first_ones_start(tmp_path: Path) -> None:
    log_of_two(tmp_path / "events.parquet")
    parts = serve_ttft.parts_of(read(tmp_path / "events.parquet"), 1, sent_s=2.0, first_s=2.030)
    assert parts.forward == pytest.approx(2.025 - 2.004)
    assert parts.overhead == pytest.approx(0.009)


@pytest.mark.parametrize(("slow_ms", "reached"), [(14.0, "floor"), (16.0, "missed")])
def test_the_overheads_median_is_held_against_15_ms(slow_ms: float, reached: str) -> None:
    parts = [serve_ttft.Parts(0.0, 0.0, 0.0, 0.0, 0.1, slow_ms / 1e3) for _ in range(5)]
    parts[0] = parts[0]._replace(to_door=1.0)
    figures = serve_ttft.figures_of(parts)
    assert figures[0].value == pytest.approx(slow_ms)
    assert figures[0].reached == reached
    assert figures[1].value > 500
    assert "forward 100.0" in figures[0].note


# --------------------------------------------------------------------------------------------------- streamed tokens


def window(cpu_s: float, worker_s: float = 5.0) -> Window:
    return Window(10.0, 32, 16_000, {"front-door": cpu_s, serve_processes.WORKER: worker_s}, 160)


def test_a_token_costs_what_all_but_the_workers_spent() -> None:
    assert window(1.6).cpu_token_s == pytest.approx(1e-4)
    assert window(1.6, worker_s=99.0).cpu_token_s == pytest.approx(1e-4)
    assert window(1.6).period_s == pytest.approx(0.02)


@pytest.mark.parametrize(("ours_s", "reached"), [(1.29, "floor"), (1.31, "missed")])
def test_cost_and_delay_are_ratios_of_neighbours(ours_s: float, reached: str) -> None:
    """The second round met a machine half as fast: both sides took twice as long."""
    windows = {
        "semiflow": [window(ours_s), window(2 * ours_s)],
        "proxy": [window(1.0), window(2.0)],
        "direct": [window(0.5), window(1.0)],
    }
    figures = {figure.name: figure for figure in serve_tokens.figures_of(windows, _delays(ours_s))}
    for what in ("CPU per", "delay of a"):
        proxy = figures[f"serve: {what} streamed token, a no-op behind Serve's proxy = 1"]
        direct = figures[f"serve: {what} streamed token, a no-op on Serve's direct ingress = 1"]
        assert proxy.value == pytest.approx(ours_s)
        assert proxy.reached == reached
        assert direct.value == pytest.approx(2 * ours_s)
        assert direct.reached is None
    assert "front-door" in figures["serve: CPU per streamed token"].note


def _delays(ours_s: float) -> dict[str, float]:
    return {"semiflow": ours_s / 1e3, "proxy": 1 / 1e3, "direct": 0.5 / 1e3}


def test_a_token_is_delayed_since_the_last_tick() -> None:
    ticks = np.array([3.0, 1.0, 2.0])
    assert delays_s([0.5, 1.25, 2.0, 3.5], ticks) == pytest.approx([0.25, 0.0, 0.5])


def test_the_grid_has_a_tick_before_the_first_moment() -> None:
    assert grid([1.03, 1.07], 0.02) == pytest.approx([1.02, 1.04, 1.06])
    assert grid([], 0.02).size == 0


# ------------------------------------------------------------------------------------------------- the client, streams


def streams_of(port: int, *max_tokens: int) -> list[Stream]:
    async def run_all() -> list[Stream]:
        begun = [await begin(port, "/v1/completions", {"max_tokens": count, "prompt": []}) for count in max_tokens]
        return [await finish(stream, 10) for stream in begun]

    return asyncio.run(run_all())


def test_the_client_counts_tokens_as_the_usage_says(serving: Callable[..., Any]) -> None:
    async def answer(exchange: Any) -> None:
        await exchange.tokens()
        exchange.writer.close()

    server = serving(answer, trial_is_good=False)
    (stream,) = streams_of(server.port, 7)
    assert stream.error is None
    assert stream.tokens == 7
    assert stream.sent_s < stream.times_s[0]


def test_without_usage_each_event_is_a_token_and_done_is_none(serving: Callable[..., Any]) -> None:
    async def answer(exchange: Any) -> None:
        first, second = exchange.chunk("a"), exchange.chunk("b", "length")
        await exchange.stream(first[:-1], first[-1:], second + exchange.event("[DONE]"))
        exchange.writer.close()

    (stream,) = streams_of(serving(answer, trial_is_good=False).port, 2)
    assert stream.error is None
    assert stream.tokens == 2


def test_the_size_of_an_event_is_told(serving: Callable[..., Any]) -> None:
    async def answer(exchange: Any) -> None:
        sizes.append(len(exchange.chunk("a")))
        await exchange.stream(exchange.chunk("a"), exchange.chunk("b") + exchange.event("[DONE]"))
        exchange.writer.close()

    sizes: list[int] = []
    (stream,) = streams_of(serving(answer, trial_is_good=False).port, 2)
    assert [stream.event_bytes] == sizes


def test_an_answer_that_breaks_off_is_an_error(serving: Callable[..., Any]) -> None:
    async def answer(exchange: Any) -> None:
        await exchange.stream(exchange.chunk("a"))
        exchange.writer.close()

    (stream,) = streams_of(serving(answer, trial_is_good=False).port, 2)
    assert stream.error is not None
    assert "ended after 1 tokens without [DONE]" in stream.error


def test_a_refusal_is_an_error(serving: Callable[..., Any]) -> None:
    async def refuse(exchange: Any) -> None:
        await exchange.whole(503, {"error": {"message": "full"}})
        exchange.writer.close()

    (stream,) = streams_of(serving(refuse, trial_is_good=False).port, 2)
    assert stream.error is not None
    assert "503" in stream.error


def test_a_slot_goes_on_after_an_error_and_says_how_many_there_were(serving: Callable[..., Any]) -> None:
    async def answer(exchange: Any) -> None:
        served.append(exchange)
        if len(served) == 2:
            await exchange.whole(503, {})
        else:
            await exchange.tokens()
        exchange.writer.close()

    served: list[Any] = []
    slot = serve_streams.Slot(0, serving(answer, trial_is_good=False).port, max_tokens=5)

    async def until_three() -> None:
        task = asyncio.create_task(slot.run(until_s=1e12))
        async with asyncio.timeout(10):
            while slot.requests < 4:
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(until_three())
    assert len(slot.errors) == 1
    assert "503" in slot.errors[0]
    assert slot.tokens >= 1 + 5


@pytest.mark.parametrize(("shares", "index"), [([5, 5, 5, 5], 1.0), ([8, 0, 0, 0], 0.25), ([0, 0], 1.0)])
def test_jains_index(shares: list[int], index: float) -> None:
    assert serve_streams.jain(np.array(shares)) == pytest.approx(index)


@pytest.mark.parametrize(("slowest", "reached"), [(80, "floor"), (79, "missed")])
def test_progress_is_fair_where_the_slowest_is_near_the_median(slowest: int, reached: str) -> None:
    progress = np.array([slowest, 100, 100, 100, 120])
    figures = serve_streams.figures_of([], 5, progress, 10.0, samples_of(0.0))
    assert figures[2].reached == reached
    assert figures[0].reached == "floor"


def test_one_error_is_one_too_many() -> None:
    figures = serve_streams.figures_of(["TimeoutError: "], 5, np.array([1, 1]), 10.0, samples_of(0.0))
    assert figures[0].reached == "missed"
    assert "TimeoutError" in figures[0].note


# ------------------------------------------------------------------------------------------------------------- memory


def samples_of(mb_per_minute: float, count: int = 7) -> list[Sample]:
    """Every 10 s: one process that grows, one that does not, one that comes late, and one of Ray's."""

    def memory(number: int) -> dict[int, Memory]:
        grown = int((100 + mb_per_minute * number / 6) * MB)
        there = {1: Memory("front-door", grown, grown + MB), 2: Memory("manager", 50 * MB, 60 * MB)}
        there[4] = Memory("Ray", int((30 + 1.5 * number) * MB), 50 * MB)
        return there | ({3: Memory("job-executor", 999 * MB, 999 * MB)} if number > 2 else {})

    return [Sample(10.0 * number, memory(number)) for number in range(count)]


def test_growth_is_the_slope_of_our_processes_that_were_there_throughout() -> None:
    samples = samples_of(3.0)
    assert lasting(samples, of_ray=False) == [1, 2]
    assert lasting(samples, of_ray=True) == [4]
    assert growth_per_minute(samples, [1, 2]) == pytest.approx(3.0 * MB)
    assert growth_per_minute(samples, [2]) == pytest.approx(0.0)
    note = growth_note(samples)
    assert "150.0 to 153.0 MB" in note
    assert "most: front-door, +3.00 MB/min" in note
    assert "Ray's own 1: +9.00" in note


@pytest.mark.parametrize(("growth", "reached"), [(0.9, "floor"), (1.1, "missed")])
def test_memory_must_not_grow(growth: float, reached: str) -> None:
    figures = serve_streams.figures_of([], 5, np.array([1, 1]), 10.0, samples_of(growth))
    assert figures[1].value == pytest.approx(growth)
    assert figures[1].reached == reached


def test_one_look_shows_no_growth() -> None:
    assert growth_per_minute(samples_of(3.0, count=1), [1, 2]) == 0.0


def test_copies_of_the_weights_are_their_pages_over_the_files(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(4000))
    mapped = [(str(file), 1100)] * 4
    figure = serve_weights.figure_of(mapped, 2e6)
    assert figure.value == pytest.approx(1.1)
    assert figure.reached == "floor"
    assert serve_weights.is_weights(str(file))
    assert not serve_weights.is_weights("/dev/shm/semiflow-1-kv")


# ---------------------------------------------------------------------------------------------------------- processes


def test_processes_are_known_by_their_command_lines() -> None:
    launcher = ["python", "-m", "reference_impl.engine.launcher", "/tmp/x"]
    role = serve_processes.role_of
    assert role(launcher, ["python"]) == "launcher"
    assert role(launcher, launcher) == serve_processes.WORKER
    assert role(["ray::ServeReplica:12_ab:task-executor-colocated"], ["raylet"]) == "task-executor-colocated"
    assert role(["ray::ServeController.listen_for_change()"], []) == "Serve controller"
    assert role(["ray::ProxyActor"], []) == "Serve proxy"
    assert role(["/x/raylet", "--y"], []) == "Ray"


def test_cpu_time_is_counted_from_the_first_look_on() -> None:
    before = [Process(1, "Ray", 10.0, 0), Process(2, "front-door", 1.0, 0)]
    after = [Process(1, "Ray", 10.5, 0), Process(2, "front-door", 1.25, 0), Process(3, "front-door", 0.5, 0)]
    spent = serve_processes.cpu_by_role(before, after)
    assert spent == {"Ray": 0.5, "front-door": 0.75}
    assert serve_processes.without_workers(spent | {serve_processes.WORKER: 7.0}) == pytest.approx(1.25)


def test_a_tree_has_its_root_with_its_memory() -> None:
    (own,) = [process for process in serve_processes.tree(os.getpid()) if process.pid == os.getpid()]
    assert own.role == "host"
    assert own.own_bytes > MB
    assert serve_processes.pss_bytes(os.getpid()) > MB


def test_a_child_that_does_not_start_is_said_to() -> None:
    with pytest.raises(RuntimeError, match=r"this did not start"), child("this"):
        pass


# ------------------------------------------------------------------------------------------------------------ command


def test_the_command_measures_the_rows_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[tuple[str, bool]] = []

    def fake(name: str) -> Callable[[Path, bool, serve.Report], list[Figure]]:
        def measure(folder: Path, quick: bool, report: serve.Report) -> list[Figure]:
            assert folder.is_dir()
            measured.append((name, quick))
            return [Figure(name, 1.0, "s", "lower", None, 1, floor=2.0)]

        return measure

    monkeypatch.setattr(serve, "_ROWS", {row: (row, fake(row)) for row in serve.ROWS})
    assert run(["bench", "serve", "--quick", "--json", "--only", "weights", "--only", "ttft"]) == 0
    assert measured == [("ttft", True), ("weights", True)]
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert [(figure["name"], figure["reached"]) for figure in figures] == [("ttft", "floor"), ("weights", "floor")]


def test_a_row_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "serve", "--only", "tpot"]) == 2
    assert "there is no row 'tpot' (allowed: start, ttft, tokens, streams, weights)" in capsys.readouterr().err
