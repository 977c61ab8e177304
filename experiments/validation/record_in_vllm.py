"""Run by an interpreter that has vLLM: a real engine with its model, given requests, and what it says of itself.

``python record_in_vllm.py`` reads one line of JSON from stdin, the task that ``recording.py`` beside it makes, and
writes a file for each of its phases to the task's folder. Lines of stdout that begin with ``MARK`` are for the caller.
Imports nothing of ours. The engine runs in this process, so that its scheduler can be listened to and its steps can be
timed; written for vLLM 0.19 to 0.32.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "semiflow "
_VISIT_S, _TURN_S = 1.5, 0.4
_YOUR_TURN = "your turn"
_BY_MONOTONIC = ("queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts", "planned_s", "done_s")
_FIRST_TOKEN, _TOKENS = 5, 997
"""Token ids lie in this range, which every vocabulary has."""


class Steps:
    """Listens to the engine's scheduler: what each step holds, and when it was planned and its tokens were known."""

    def __init__(self, scheduler: Any) -> None:
        self.rows: list[dict[str, Any]] = []
        self._under_way: deque[dict[str, Any]] = deque()
        self._scheduler = scheduler
        self._pool = scheduler.kv_cache_manager.block_pool
        self._schedule, self._update = scheduler.schedule, scheduler.update_from_output
        scheduler.schedule, scheduler.update_from_output = self.schedule, self.update_from_output

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        planned_s = time.monotonic()
        step = self._schedule(*args, **kwargs)
        row = {"planned_s": planned_s, **self._content(step), **self._state(step)}
        self._under_way.append(row)
        return step

    def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self._update(*args, **kwargs)
        row = self._under_way.popleft()
        row["done_s"] = row["real_s"] = time.monotonic()
        row["left"] = len(self._scheduler.running) + len(self._scheduler.waiting)
        if row["chunks"] or row["contexts"]:
            self.rows.append(row)
        return outputs

    def _content(self, step: Any) -> dict[str, Any]:
        """Chunks as (new tokens, tokens before them); of each decode the KV tokens that it reads."""
        chunks, contexts = [], []
        for name, new in step.num_scheduled_tokens.items():
            request = self._scheduler.requests[name]
            before = request.num_computed_tokens - new
            if new == 1 and before >= request.num_prompt_tokens:
                contexts.append(before + 1)
            else:
                chunks.append((new, before))
        return {"chunks": chunks, "contexts": contexts}

    def _state(self, step: Any) -> dict[str, Any]:
        """vLLM's own counts when the step has been planned."""
        return {
            "running": len(self._scheduler.running),
            "waiting": len(self._scheduler.waiting),
            "free_blocks": self._pool.get_num_free_blocks(),
            "preempted": len(step.preempted_req_ids or ()),
        }


class Clock:
    """``time.monotonic`` without the pauses in which the engine had to stand still."""

    def __init__(self) -> None:
        self._ends_s: list[float] = []
        self._paused_s = [0.0]

    def pause(self, wait: Callable[[], object]) -> None:
        start_s = time.monotonic()
        wait()
        self._ends_s.append(time.monotonic())
        self._paused_s.append(self._paused_s[-1] + self._ends_s[-1] - start_s)

    def now_s(self) -> float:
        return time.monotonic() - self._paused_s[-1]

    def at_s(self, moment_s: float) -> float:
        """What this clock showed at a moment of ``time.monotonic`` that lay in no pause."""
        return moment_s - self._paused_s[bisect_left(self._ends_s, moment_s)]


class Turns:
    """A second process with an engine of its own, which measures while ours stands still: a turn each."""

    def __init__(self, task: dict[str, Any], clock: Clock) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True)
        self._say(json.dumps({**task, "phases": [task["warm_up"], ["turns", None]]}))
        self._clock, self._began_s = clock, time.monotonic()
        self._hear()

    def __call__(self) -> None:
        """Between two steps: hand over where our turn has been long enough."""
        if time.monotonic() - self._began_s >= _TURN_S:
            self._clock.pause(self._theirs)
            self._began_s = time.monotonic()

    def end(self) -> None:
        self._say("end")
        self._process.wait()

    def _theirs(self) -> None:
        self._say("go")
        self._hear()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == f"{_YOUR_TURN}\n":
                return
        raise RuntimeError("the engine that measures has ended; see its error above")


class Recorder:
    """Sends requests to the engine and keeps what it says of them."""

    def __init__(self, engine: Any, seed: int) -> None:
        self.most_sequences: int = engine.vllm_config.scheduler_config.max_num_seqs
        self.clock = Clock()
        self._engine = engine
        self._luck = random.Random(seed)
        self._sent = 0
        self.steps = Steps(engine.engine_core.engine_core.scheduler)
        self.requests: list[dict[str, Any]] = []
        self._arrivals: dict[str, tuple[float, int]] = {}

    def send(self, prompt_tokens: int, output_tokens: int, arrival_s: float) -> None:
        from vllm import SamplingParams

        name = str(self._sent)
        prompt = [_FIRST_TOKEN + self._luck.randrange(_TOKENS) for _ in range(prompt_tokens)]
        wanted = SamplingParams(max_tokens=output_tokens, ignore_eos=True, temperature=0.0, detokenize=False)
        self._arrivals[name] = arrival_s, prompt_tokens
        self._sent += 1
        self._engine.add_request(name, {"prompt_token_ids": prompt}, wanted)

    def step(self) -> int:
        """One step of the engine; how many requests it finished."""
        done = [output for output in self._engine.step() if output.finished]
        self.requests += map(self._told, done)
        return len(done)

    def busy(self) -> bool:
        return bool(self._engine.has_unfinished_requests())

    def take(self) -> dict[str, Any]:
        """Requests and steps since the last time, by our clock."""
        found = {"requests": self.requests, "steps": self.steps.rows}
        for row in (*self.requests, *self.steps.rows):
            row |= {key: self.clock.at_s(row[key]) for key in _BY_MONOTONIC if key in row}
        self.requests, self.steps.rows = [], []
        return found

    def _told(self, output: Any) -> dict[str, Any]:
        stats = output.metrics
        arrival_s, prompt_tokens = self._arrivals.pop(output.request_id)
        return {
            "request_id": output.request_id,
            "input_toks": prompt_tokens,
            "output_toks": stats.num_generation_tokens,
            "arrival_ts": arrival_s,
            **{key: getattr(stats, key) for key in _BY_MONOTONIC if key.endswith("_ts")},
            "preemptions": getattr(stats, "num_preemptions", None),
        }


def serve(
    recorder: Recorder, requests: list[tuple[float, int, int]], between: Callable[[], object], report: Report
) -> None:
    """Send each request when it is due, between two steps where the engine is at work; until all are done."""
    due, clock = deque(requests), recorder.clock
    start_s, done = clock.now_s(), 0
    while due or recorder.busy():
        while due and start_s + due[0][0] <= clock.now_s():
            at_s, prompt_tokens, output_tokens = due.popleft()
            recorder.send(prompt_tokens, output_tokens, start_s + at_s)
        if recorder.busy():
            done += recorder.step()
            between()
        elif due:
            time.sleep(max(0.0, start_s + due[0][0] - clock.now_s()))
        report(done, len(requests))


def levels_up_to(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... and ``most`` itself."""
    powers = [1 << power for power in range(most.bit_length())]
    return sorted({level for power in powers for level in (power, power * 3 // 2) if level < most} | {most})


def measure(recorder: Recorder, task: dict[str, Any], seconds: float, between: Callable[[], bool]) -> None:
    """Keep a number of requests in the engine, another number every ``_VISIT_S``: steps of many sizes, none of which is
    measured at one time only. Ends after ``seconds``, when the last requests have finished, or at once when ``between``
    two steps says no."""
    levels = levels_up_to(recorder.most_sequences)
    luck, inside, level = random.Random(task["seed"]), 0, 0
    clock = recorder.clock
    start_s = change_s = clock.now_s()
    while (now_s := clock.now_s()) < start_s + seconds:
        if not between():
            return
        if now_s >= change_s:
            level, change_s = luck.choice(levels), now_s + _VISIT_S
        while inside < level:
            prompt_tokens, output_tokens = luck.choice(task["lengths"])
            recorder.send(prompt_tokens, output_tokens, now_s)
            inside += 1
        inside -= recorder.step()
    while recorder.busy():
        recorder.step()


class TheirTurns:
    """The other side of :class:`Turns`: measures while it may, until it is told to end."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._began_s, self._goes_on = clock, 0.0, True

    def __call__(self) -> bool:
        if time.monotonic() - self._began_s >= _TURN_S:
            self._clock.pause(self._wait)
            self._began_s = time.monotonic()
        return self._goes_on

    def _wait(self) -> None:
        sys.stdout.write(f"\n{_YOUR_TURN}\n")
        sys.stdout.flush()
        self._goes_on = sys.stdin.readline() == "go\n"


class Report:
    """Tells the caller how far the work is, twice a second."""

    def __init__(self, label: str) -> None:
        self._label, self._next_s = label, 0.0

    def __call__(self, done: float, total: float) -> None:
        if (now_s := time.monotonic()) >= self._next_s:
            self._next_s = now_s + 0.5
            tell({"doing": self._label, "done": done, "total": total})


def tell(content: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps(content)}\n")
    sys.stdout.flush()


def make_engine(task: dict[str, Any]) -> Any:
    from vllm import EngineArgs, LLMEngine

    return LLMEngine.from_engine_args(EngineArgs(**task["engine"]))


def resolved(engine: Any) -> dict[str, Any]:
    """Settings as vLLM took them, with the keys of LLMServingSim's ``meta.json``."""
    import vllm

    config = engine.vllm_config
    scheduler, cache, model = config.scheduler_config, config.cache_config, config.model_config
    return {
        "vllm_version": vllm.__version__,
        "device": config.device_config.device_type,
        "kv_cache": {
            "num_gpu_blocks": cache.num_gpu_blocks,
            "block_size": cache.block_size,
            "enable_prefix_caching": cache.enable_prefix_caching,
            "gpu_memory_utilization": cache.gpu_memory_utilization,
        },
        "resolved_config": {
            "scheduler_config": {
                "max_num_seqs": scheduler.max_num_seqs,
                "max_num_batched_tokens": scheduler.max_num_batched_tokens,
                "enable_chunked_prefill": scheduler.enable_chunked_prefill,
                "async_scheduling": scheduler.async_scheduling,
                "policy": scheduler.policy,
            },
            "model_config": {"max_model_len": model.max_model_len, "dtype": str(model.dtype).removeprefix("torch.")},
        },
    }


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def phase(recorder: Recorder, task: dict[str, Any], name: str, seconds: float | None) -> None:
    """``seconds`` of measuring; None: the run itself, or measuring in turns with it."""
    report = Report(f"{name} (vLLM)")
    if name == "turns":
        measure(recorder, task, float("inf"), TheirTurns(recorder.clock))
    elif seconds is not None:
        start_s = recorder.clock.now_s()

        def go_on() -> bool:
            report(recorder.clock.now_s() - start_s, seconds)
            return True

        measure(recorder, task, seconds, go_on)
    elif task["in_turns"]:
        turns = Turns(task, recorder.clock)
        serve(recorder, task["requests"], turns, report)
        turns.end()
    else:
        serve(recorder, task["requests"], lambda: None, report)


def main() -> None:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    task = json.loads(sys.stdin.readline())
    folder = Path(task["folder"])
    tell({"doing": "starting vLLM", "done": 0, "total": 1})
    engine = make_engine(task)
    recorder = Recorder(engine, task["seed"])
    tell({"engine": resolved(engine)})
    for name, seconds in task["phases"]:
        started_at = now()
        phase(recorder, task, name, seconds)
        found = {"started_at": started_at, "finished_at": now(), **recorder.take()}
        (folder / f".{name}.partial").write_text(json.dumps(found), encoding="utf-8")
        os.replace(folder / f".{name}.partial", folder / f"{name}.json")


if __name__ == "__main__":
    main()
