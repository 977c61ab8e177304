"""What runs beside vLLM, with an engine that is a toy and a clock that is made up."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.validation import record_in_vllm as script


class Time:
    """Stands still but for what sleeps and what is added."""

    def __init__(self) -> None:
        self.at_s = 1000.0

    def monotonic(self) -> float:
        return self.at_s

    def sleep(self, seconds: float) -> None:
        self.at_s += seconds


class ToyEngine:
    """Prefills a prompt in one step, then a token a step for everybody; a step takes a second."""

    def __init__(self, time: Time) -> None:
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=4))
        pool = SimpleNamespace(get_num_free_blocks=lambda: 7)
        self.scheduler = SimpleNamespace(running=[], waiting=[], requests={}, schedule=self._schedule)
        self.scheduler.kv_cache_manager = SimpleNamespace(block_pool=pool)
        self.scheduler.update_from_output = self._update
        self.engine_core = SimpleNamespace(engine_core=SimpleNamespace(scheduler=self.scheduler))
        self._time = time
        self.most_inside = 0

    def has_unfinished_requests(self) -> bool:
        return bool(self.scheduler.running)

    def add_request(self, name: str, prompt: dict[str, list[int]], wanted: dict[str, Any]) -> None:
        prompt_tokens = len(prompt["prompt_token_ids"])
        request = SimpleNamespace(num_prompt_tokens=prompt_tokens, num_computed_tokens=0, left=wanted["max_tokens"])
        times = dict.fromkeys(("queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts"), self._time.at_s)
        request.metrics = SimpleNamespace(**times, num_generation_tokens=wanted["max_tokens"])
        self.scheduler.requests[name] = request
        self.scheduler.running.append(name)
        self.most_inside = max(self.most_inside, len(self.scheduler.running))

    def step(self) -> list[Any]:
        step = self.scheduler.schedule()
        self._time.sleep(1.0)
        done = self.scheduler.update_from_output(step, None)
        told = [(name, self.scheduler.requests.pop(name).metrics) for name in done]
        return [SimpleNamespace(finished=True, request_id=name, metrics=metrics) for name, metrics in told]

    def _schedule(self) -> Any:
        tokens = {}
        for name in self.scheduler.running:
            request = self.scheduler.requests[name]
            tokens[name] = request.num_prompt_tokens if request.num_computed_tokens == 0 else 1
            request.num_computed_tokens += tokens[name]
        return SimpleNamespace(num_scheduled_tokens=tokens, preempted_req_ids=None)

    def _update(self, step: Any, _output: None) -> list[str]:
        for name in step.num_scheduled_tokens:
            self.scheduler.requests[name].left -= 1
            self.scheduler.requests[name].metrics.last_token_ts = self._time.at_s
        done = [name for name in step.num_scheduled_tokens if self.scheduler.requests[name].left == 0]
        self.scheduler.running[:] = [name for name in self.scheduler.running if name not in done]
        return done


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made_up = Time()
    monkeypatch.setattr(script, "time", made_up)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=lambda **wanted: wanted))
    return made_up


@pytest.fixture
def engine(time: Time) -> ToyEngine:
    return ToyEngine(time)


def test_requests_are_sent_when_due_and_steps_are_told_by_content(time: Time, engine: ToyEngine) -> None:
    recorder = script.Recorder(engine, 0)
    script.serve(recorder, [(0.0, 5, 3), (1.5, 8, 1), (9.0, 4, 1)], lambda: None, script.Report("run"))
    found = recorder.take()
    assert [row["arrival_ts"] for row in found["requests"]] == [1000.0, 1001.5, 1009.0]
    assert [row["queued_ts"] for row in found["requests"]] == [1000.0, 1002.0, 1009.0]  # between two steps
    assert [(row["chunks"], row["contexts"]) for row in found["steps"]] == [
        ([(5, 0)], []), ([], [6]), ([(8, 0)], [7]), ([(4, 0)], []),
    ]  # fmt: skip
    assert [row["left"] for row in found["steps"]] == [1, 1, 0, 0]
    assert recorder.take() == {"requests": [], "steps": []}


def test_the_clock_stands_still_in_a_pause(time: Time, engine: ToyEngine) -> None:
    recorder = script.Recorder(engine, 0)
    between = iter(range(100))

    def pause() -> None:
        if next(between) == 1:
            recorder.clock.pause(lambda: time.sleep(50.0))

    script.serve(recorder, [(0.0, 5, 4), (2.5, 3, 1)], pause, script.Report("run"))
    found = recorder.take()
    assert [row["done_s"] for row in found["steps"]] == [1001.0, 1002.0, 1003.0, 1004.0]
    assert [(row["arrival_ts"], row["last_token_ts"]) for row in found["requests"]] == [
        (1000.0, 1004.0), (1002.5, 1004.0),
    ]  # fmt: skip
    assert time.at_s == 1054.0


def test_measuring_keeps_up_to_the_most_sequences_inside_and_ends_without_any(time: Time, engine: ToyEngine) -> None:
    recorder = script.Recorder(engine, 0)
    task = {"seed": 1, "lengths": [(6, 4), (9, 2)]}
    script.measure(recorder, task, 60.0, lambda: True)
    sizes = {len(row["contexts"]) for row in recorder.take()["steps"]}
    assert engine.most_inside == 4
    assert {0, 1, 2} <= sizes
    assert not recorder.busy()


def test_measuring_in_turns_ends_at_once_when_told(time: Time, engine: ToyEngine) -> None:
    recorder = script.Recorder(engine, 0)
    answers = iter([True, True, False])
    script.measure(recorder, {"seed": 1, "lengths": [(6, 40)]}, float("inf"), lambda: next(answers))
    assert len(recorder.take()["steps"]) == 2


@pytest.mark.parametrize(("most", "levels"), [(1, [1]), (4, [1, 2, 3, 4]), (20, [1, 2, 3, 4, 6, 8, 12, 16, 20])])
def test_levels_go_up_to_the_most_sequences(most: int, levels: list[int]) -> None:
    assert script.levels_up_to(most) == levels
