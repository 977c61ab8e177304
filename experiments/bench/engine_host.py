"""One engine instance in this process: core's state machine and a batch policy over the model, no network, no Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.bench.engine_load import BenchRequest
from policies.api import RequestView
from policies.registry import PolicySpec
from reference_impl.core.instance import Instance
from reference_impl.core.spec import InstanceSpec
from reference_impl.engine.api import EngineRequest, ForwardBatch, Outcome, SamplingParams
from reference_impl.engine.engine import Engine, EngineSettings
from reference_impl.engine.kv_cache import KvPool
from reference_impl.engine.local_executor import LocalExecutor
from reference_impl.engine.model_facts import read_facts
from reference_impl.engine.prefix_ids import prefix_ids
from reference_impl.engine.weights import ModelSource
from reference_impl.events import EventLog
from reference_impl.latency.api import Piece, Work
from reference_impl.latency.contention import ContentionModel
from reference_impl.latency.estimate import ModelEstimate

if TYPE_CHECKING:
    from reference_impl.engine.runner import Runner

BLOCK_TOKENS = 16


class HostSettings(NamedTuple):
    """How the instance batches."""

    kv_blocks: int
    batch: str = "chunked_prefill:chunk_tokens=512"
    max_sequences: int = 64
    plan_ahead: bool = False


class Served(NamedTuple):
    """What the instance gave, and what happened on the way."""

    tokens: list[tuple[int, ...]]
    """Per request."""
    cpu_s: float
    iterations: int
    preemptions: int
    hit_tokens: int
    """Prompt tokens found in the prefix cache."""
    unfinished_chunks: int
    """Chunks that did not end their prompt."""


class _NoCosts:
    """The latency model of a host that asks none: no bundled batch policy of these benchmarks predicts."""

    name, provenance, needs_spread = "none", "uncalibrated", False

    def iteration_s(self, work: Work) -> float:
        raise AssertionError(f"a batch policy asked how long {work} takes; allowed here: policies that do not predict")

    def piece(self, work: Work) -> Piece | None:
        del work
        return None


class _Counted:
    """A runner that is looked at."""

    def __init__(self, runner: Runner) -> None:
        self.admit, self.forget = runner.admit, runner.forget
        self._runner = runner
        self.iterations = 0
        self.unfinished_chunks = 0

    def run(self, batch: ForwardBatch) -> Outcome:
        self.iterations += 1
        self.unfinished_chunks += sum(not chunk.yields for chunk in batch.chunks)
        return self._runner.run(batch)


class Host:
    """Runs batches of requests on a new instance each; the model is loaded once."""

    def __init__(self, folder: Path, kv_blocks: int) -> None:
        from reference_impl.engine.runner import Runner

        self._facts = read_facts(folder)
        pool = KvPool.create(None, self._facts.kv_layout(BLOCK_TOKENS, "float32"), kv_blocks)
        self.runner: Runner = Runner(folder, ModelSource(str(folder)), pool)

    def serve(self, requests: Sequence[BenchRequest], settings: HostSettings) -> Served:
        """All requests are there at the start; greedy."""
        log = EventLog(None)
        instance = _instance(settings, self._facts.max_context_tokens, log)
        counted = _Counted(self.runner)
        own = EngineSettings(plan_ahead=settings.plan_ahead)
        engine = Engine(instance, [LocalExecutor(counted)], own, time.monotonic)
        tokens: list[list[int]] = [[] for _ in requests]
        unfinished = len(requests)
        started_s = time.process_time()
        for number, request in enumerate(requests):
            engine.submit(_request(number, request))
        while unfinished:
            engine.pump()
            engine.collect(0)
            step = engine.news.take(changed=False)
            if step is None:
                continue
            for output in step.outputs:
                tokens[output.request_id] += [sampled.token for sampled in output.tokens]
                unfinished -= output.finish is not None
            if step.failed:
                raise RuntimeError(f"request {step.failed[0].request_id} failed: {step.failed[0].reason}")
        spent_s = time.process_time() - started_s
        hit_tokens = sum(row[4] for row in log.admit)
        given = [tuple(one) for one in tokens]
        return Served(given, spent_s, counted.iterations, instance.preemptions, hit_tokens, counted.unfinished_chunks)


def _instance(settings: HostSettings, max_context_tokens: int, log: EventLog) -> Instance:
    costs = _NoCosts()
    policy = PolicySpec.parse(settings.batch, "batch")
    spec = InstanceSpec(
        role="colocated",
        latency=costs,
        contention=ContentionModel(),
        kv_blocks=settings.kv_blocks,
        kv_bytes_per_token=1.0,
        max_context_tokens=max_context_tokens,
        batch=policy.build,
        block_tokens=BLOCK_TOKENS,
        max_sequences=settings.max_sequences,
    )
    return Instance(0, spec, (policy.build(0),), ModelEstimate(costs), log, BLOCK_TOKENS)


def _request(number: int, request: BenchRequest) -> EngineRequest:
    prompt = request.prompt
    view = RequestView(number, 0.0, len(prompt), prefix_ids(prompt, BLOCK_TOKENS), BLOCK_TOKENS)
    return EngineRequest(view, prompt, SamplingParams(request.output_tokens, temperature=0.0, ignore_eos=True))
