"""Replay a trace against a live server: open loop, or with turns that wait for the answers before them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from workloads.client.answer import Answer
from workloads.client.ask import Ask, Form
from workloads.client.asks import IdPrompts, Prepared, Prompts, TextPrompts, asks, warmup_asks
from workloads.client.clock import WallClock
from workloads.client.errors import ReplayError
from workloads.client.lag import Lag, lag
from workloads.client.load import Load, LoadRules
from workloads.client.process import allow_connections, pinned, stopped_by_signals
from workloads.client.record import Record
from workloads.client.server import ServedModel, find_model, try_out
from workloads.client.settings import ReplaySettings
from workloads.client.turns import Due, Turns
from workloads.client.wire import HttpWire, Wire
from workloads.client.words import common_words, words_of
from workloads.trace import Trace

Progress = Callable[[int, int, str], None]
"""Called now and then with (how much is done, how much in all, what is being done)."""
_WARMUP_CONCURRENCY = 8
_TRIAL = 2**32
"""Number of the trial request's prompt: no warm-up request has it."""
_HEAD_START_S = 0.1
"""From the last preparation to the first request, so that it is not late."""


@dataclass(frozen=True)
class Replayed:
    """What came of a replay."""

    trace: Trace
    """As it was replayed: arrivals from 0 on, too long requests clipped where that was chosen."""
    records: list[Record]
    """Of every request that was due, in the order of the trace; those that were refused included."""
    model: ServedModel
    epoch_s: float
    """Time 0 of the records on ``time.monotonic()``."""
    lengths: str
    """How exact the prompts' lengths are, in words."""
    cpu_s: float
    """CPU time of this process from the first request to the last answer."""
    interrupted: bool

    @property
    def lag(self) -> Lag | None:
        """How late the client sent."""
        return lag(self.records)

    @property
    def tokens(self) -> int:
        """Output tokens that came."""
        return sum(record.answer.tokens for record in self.records)


def replay(trace: Trace, settings: ReplaySettings, progress: Progress | None = None) -> Replayed:
    """Send every request of ``trace`` when it is due, the first one at once.

    Raises ReplayError before the first one, and TraceError where the trace does not fit a closed loop.

    SIGINT and SIGTERM end it early with what there is (``interrupted``), if this is the main thread.
    """
    allow_connections()
    with pinned(settings.cores):
        return asyncio.run(_Replay(trace, settings, progress or (lambda *_: None)).run())


class _Replay:
    def __init__(self, trace: Trace, settings: ReplaySettings, progress: Progress) -> None:
        first_s = float(trace.arrival_s[0])
        self._trace = trace.shift(-first_s) if first_s > 0.0 else trace
        self._settings = settings
        self._progress = progress
        self._clock = WallClock()

    async def run(self) -> Replayed:
        settings = self._settings
        async with HttpWire(settings.base_url, settings.api_key, self._clock.now_s) as wire:
            model = await find_model(wire, settings.url, settings.model)
            form = Form(model.name, settings.prompts, settings.ignore_eos, settings.usage, settings.extra_body)
            if settings.too_long == "clip" and model.max_model_tokens is not None:
                self._trace = self._trace.clip_total_tokens(model.max_model_tokens)
            refused = _too_long(self._trace, model.max_model_tokens)
            turns = Turns(self._trace, refused, settings.closed_loop)
            prompts, lengths = _prompts(self._trace, settings, model)
            if settings.trial:
                prompt = prompts.warmup(_TRIAL, 1)
                await try_out(wire, settings.url, form, prompt, self._clock, settings.timeout_s)
            await self._warm_up(wire, form, prompts)
            load = await self._load(wire, form, prompts, turns)
        records = [*load.records, *_refusals(self._trace, turns.refused, model, load)]
        records.sort(key=lambda record: record.row)
        return Replayed(self._trace, records, model, self._clock.epoch_s, lengths, load.cpu_s, load.stopped)

    async def _warm_up(self, wire: Wire, form: Form, prompts: Prompts) -> None:
        settings = self._settings
        if not settings.warmup_requests:
            return
        rules = LoadRules(form.path, form.kind, settings.timeout_s, max_concurrency=_WARMUP_CONCURRENCY)
        load = Load(wire, self._clock, rules)
        await load.run(warmup_asks(self._trace, settings.warmup_requests, form, prompts))
        failures = [record for record in load.records if record.outcome != "finished"]
        if len(failures) == len(load.records):
            first = failures[0]
            raise ReplayError(f"{settings.url}: no warm-up request finished: {first.error}: {first.message}")

    async def _load(self, wire: Wire, form: Form, prompts: Prompts, turns: Turns) -> Load:
        """Send everything. What waits for an answer is made while its client thinks."""
        settings, trace = self._settings, self._trace
        due = turns.first()
        ready = Prepared(asks(trace, due, form, prompts, settings.labels))
        ready.fill(lambda made: self._progress(made, len(due), "preparing"))
        rules = LoadRules(
            form.path, form.kind, settings.timeout_s, settings.max_concurrency, settings.retries, settings.keep_texts
        )

        def follow(record: Record, ended_s: float) -> Iterator[Ask]:
            return asks(trace, turns.after(record.row, ended_s), form, prompts, settings.labels)

        total = len(trace) - turns.refusals
        load = Load(wire, self._clock, rules, lambda done: self._progress(done, total, "replaying"), follow)
        gc.collect()
        gc.freeze()  # what is prepared is not looked through again in the midst of the replay
        try:
            with stopped_by_signals(load.stop):
                self._clock.start(_HEAD_START_S)
                await load.run(iter(ready))
        finally:
            gc.unfreeze()
        return load


def _prompts(trace: Trace, settings: ReplaySettings, model: ServedModel) -> tuple[Prompts, str]:
    """The prompts in the form that was chosen, and how exact their lengths are."""
    if settings.prompts == "tokens":
        vocabulary = settings.vocabulary or model.vocabulary
        if vocabulary is None:
            raise ReplayError(
                f"{settings.url}: /v1/models does not say how large the vocabulary of {model.name} is; give the ids of "
                "ordinary tokens, for instance --vocab 1000:30000, or ask with --prompts text"
            )
        return IdPrompts(trace, vocabulary, settings.prompt_seed), "exact: token ids"
    if settings.tokenizer is None:
        words, lengths = common_words(), "approximate: one common English word for each token"
    else:
        words, lengths = words_of(settings.tokenizer), "words that the given tokenizer encodes as one token each"
    template = "; the chat template comes on top" if settings.prompts == "chat" else ""
    return TextPrompts(trace, words, settings.prompt_seed), lengths + template


def _too_long(trace: Trace, limit: int | None) -> list[int]:
    """Rows of requests that the server has no room for."""
    if limit is None:
        return []
    total = trace.prompt_tokens.astype("int64") + trace.output_tokens
    rows: list[int] = (total > limit).nonzero()[0].tolist()
    return rows


def _refusals(trace: Trace, refused: list[Due], model: ServedModel, load: Load) -> Iterator[Record]:
    """Records of the requests that were not sent, as far as the replay came."""
    until_s = load.records[-1].scheduled_s if load.stopped and load.records else float("inf")
    for at_s, row in refused:
        prompt, output = int(trace.prompt_tokens[row]), int(trace.output_tokens[row])
        record = Record(row, at_s, prompt, output, Answer(load.rules.kind))
        record.end("rejected", "too_long", f"{prompt + output} tokens, the server takes {model.max_model_tokens}")
        if record.scheduled_s <= until_s:
            yield record
