"""Simulate a benchmark at fixed concurrency: so many users, each of whom asks anew in the moment of the last token.

Users never stop asking while they are counted, where the sessions of a trace end; and no request travels, where a
host's comes after all that ends in its moment. So this drives one instance itself: the very core and batch policies of
both hosts, with the latency model's durations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance
    from reference_impl.core.iteration import Iteration
    from reference_impl.core.spec import InstanceSpec


@dataclass(frozen=True)
class Benchmark:
    """Fixed lengths at fixed concurrency. All users ask at once at the start; what they get in their first ``warm_up``
    requests is not counted, the next ``counted`` of each are."""

    concurrency: int
    prompt_tokens: int
    output_tokens: int
    warm_up: int = 2
    counted: int = 4


@dataclass
class Answers:
    """Of the counted requests, in the order in which they ended."""

    ttft_s: list[float] = field(default_factory=list)
    tpot_s: list[float] = field(default_factory=list)


def run_closed_loop(spec: InstanceSpec, benchmark: Benchmark) -> Answers:
    """The answers of ``benchmark`` on one colocated instance.

    Raises ConfigError where a request exceeds what the instance can hold, PolicyError as its batch policy does.
    """
    total = benchmark.prompt_tokens + benchmark.output_tokens
    if total > spec.max_request_tokens:
        raise ConfigError(f"its {total} tokens exceed the {spec.max_request_tokens} that the KV pool or context allows")
    return _Loop(spec, benchmark).run()


class _Loop:
    def __init__(self, spec: InstanceSpec, benchmark: Benchmark) -> None:
        from reference_impl.core.instance import Instance
        from reference_impl.events import EventLog
        from reference_impl.latency import ModelEstimate

        self._spec, self._benchmark = spec, benchmark
        self._log = EventLog(None)
        self._instance = Instance(0, spec, (spec.batch(0),), ModelEstimate(spec.latency), self._log, None)
        self._asked = 0
        self._asked_s: dict[int, float] = {}
        self._first_s: dict[int, float] = {}
        self._answers = Answers()

    def run(self) -> Answers:
        """Until the last counted request has ended."""
        benchmark, instance, now_s = self._benchmark, self._instance, 0.0
        lane = instance.lanes[0]
        wanted = benchmark.concurrency * benchmark.counted
        for _ in range(benchmark.concurrency):
            self._ask(now_s)
        while len(self._answers.tpot_s) < wanted:
            iteration = instance.plan(lane, now_s)
            assert iteration is not None, "users wait for an idle instance"
            now_s += self._duration_s(instance, iteration)
            for sequence in iteration.ended:
                self._first_s.setdefault(sequence.request_id, now_s)
            finished = self._finished(iteration)
            instance.complete(iteration, finished, now_s)
            instance.dropped.clear()
            self._log.take()
            for request_id in finished:
                self._answer(request_id, now_s)
                self._ask(now_s)
        return self._answers

    def _ask(self, now_s: float) -> None:
        from policies.api import RequestView
        from reference_impl.core.sequence import Sequence

        self._asked_s[self._asked] = now_s
        self._instance.enqueue(Sequence(RequestView(self._asked, now_s, self._benchmark.prompt_tokens)))
        self._asked += 1

    def _duration_s(self, instance: Instance, iteration: Iteration) -> float:
        """Of the iteration and, where the latency model tells them at once, its repeats up to the next last token."""
        model = self._spec.latency
        piece = model.piece(iteration.work) if iteration.holds else None
        if piece is None:
            return model.iteration_s(iteration.work)
        limit = piece.iterations - 1
        if iteration.decodes:
            furthest = max(sequence.generated_tokens for sequence in iteration.lane.decodes)
            limit = min(limit, self._benchmark.output_tokens - furthest)
        extra = instance.repeats(iteration, limit) if limit > 0 else 0
        if extra:
            instance.repeat(iteration, extra)
        return (1 + extra) * piece.first_s + piece.growth_s * extra * (extra + 1) / 2

    def _finished(self, iteration: Iteration) -> list[int]:
        last = self._benchmark.output_tokens
        decodes = iteration.lane.decodes if iteration.decodes else ()
        found = [sequence.request_id for sequence in decodes if sequence.generated_tokens >= last]
        return found + [sequence.request_id for sequence in iteration.ended if sequence.tokens_out + 1 >= last]

    def _answer(self, request_id: int, now_s: float) -> None:
        """Count the request unless it belongs to the warm-up."""
        asked_s, first_s = self._asked_s.pop(request_id), self._first_s.pop(request_id)
        if request_id < self._benchmark.concurrency * self._benchmark.warm_up:
            return
        self._answers.ttft_s.append(first_s - asked_s)
        if self._benchmark.output_tokens > 1:
            self._answers.tpot_s.append((now_s - first_s) / (self._benchmark.output_tokens - 1))
