"""Parts of a live-like host on a made-up clock: requests, odd policies, instances whose every KV position is watched.

A position is written into a memory of blocks when a forward starts and read back when it ends, so a block that is
handed out while somebody still uses it is found.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from policies.api import BatchPlan, Chunk, LaneView, RequestView
from policies.registry import PolicySpec
from reference_impl.core.instance import LANES, Instance
from reference_impl.core.iteration import Iteration
from reference_impl.core.lane import Lane
from reference_impl.core.sequence import Sequence
from reference_impl.core.spec import InstanceSpec
from reference_impl.events import EventLog
from reference_impl.latency.estimate import ModelEstimate

BLOCK_TOKENS, PREFIX_TOKENS = 4, 8


class Odd:
    """Any legal plan, at random: partial chunks, skips, preemptions, iterations without decodes, nothing at all."""

    kind = "batch"
    name = "odd"

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def plan(self, lane: LaneView) -> BatchPlan:
        rng = self.rng
        decodes = [*lane.decodes, *lane.paused]
        running = [*decodes, *lane.prefilling]
        skip = frozenset(s.request_id for s in decodes if rng.random() < 0.3) if rng.random() < 0.3 else frozenset()
        preempt = (rng.choice(running).request_id,) if running and rng.random() < 0.08 else ()
        chunks = () if preempt else tuple(self._chunks(lane, lane.max_batch_tokens - len(decodes)))
        return BatchPlan(chunks, rng.random() < 0.9, skip - set(preempt), preempt)

    def _chunks(self, lane: LaneView, tokens: int) -> Iterator[Chunk]:
        room = lane.free_blocks - lane.decode_blocks - len(lane.paused)
        seats = lane.max_sequences - lane.running_sequences
        for sequence, admits in [*((s, 0) for s in lane.prefilling), *((s, 1) for s in lane.waiting)]:
            if self.rng.random() < 0.3 or admits > seats or tokens < 1:
                continue
            size = self.rng.randint(1, min(lane.uncomputed_tokens(sequence), tokens))
            need = lane.blocks_needed(sequence, size)
            if need <= room:
                room, tokens, seats = room - need, tokens - size, seats - admits
                yield Chunk(sequence.request_id, size)


@dataclass
class Job:
    """A request as its client knows it."""

    request: RequestView
    tokens: int
    """After so many it ends."""
    limit: int
    """What the host knows of that: an end before it comes as a surprise."""
    times_s: list[float] = field(default_factory=list)
    over: str | None = None
    kept: int = 0
    """Tokens that it had when it was last dispatched."""
    sent_s: float = 0.0
    """When that was."""
    station: Station | None = None
    """Where it finished."""


@dataclass
class Row:
    """What a forward does for one sequence."""

    job: Job
    start: int
    stop: int
    """Positions whose KV it writes."""
    blocks: list[int]
    yields: bool


@dataclass
class Flight:
    """An iteration on its way."""

    iteration: Iteration
    rows: list[Row]
    start_s: float
    end_s: float


class Station:
    """An instance, its lanes' workers, and its memory."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.memory: dict[tuple[int, int], object] = {}
        self.free_at_s = dict.fromkeys(instance.lanes, 0.0)
        self.told_s = dict.fromkeys(instance.lanes, 0.0)
        self.flights: dict[Lane, deque[Flight]] = {lane: deque() for lane in instance.lanes}
        self.failed = False

    @property
    def log(self) -> EventLog:
        return self.instance.log

    def touch(self, rows: list[Row], *, write: bool) -> None:
        """Write the new positions, or read all of them back."""
        for row in rows:
            for position in range(row.start if write else 0, row.stop):
                place = row.blocks[position // BLOCK_TOKENS], position % BLOCK_TOKENS
                if write:
                    self.memory[place] = content(row.job.request, position)
                else:
                    assert self.memory[place] == content(row.job.request, position), f"block {place[0]} was overwritten"


def content(request: RequestView, position: int) -> object:
    """What stands at a position: shared in a prefix block of the prompt, else the request's own."""
    whole = position // PREFIX_TOKENS
    if (whole + 1) * PREFIX_TOKENS <= request.prompt_tokens and whole < len(request.prefix_ids):
        return request.prefix_ids[whole], position
    return -1 - request.request_id, position


@pytest.fixture
def new_job() -> Callable[..., Job]:
    """Build a request: id, prompt, what it will get, what its host knows of that, prefix ids."""

    def build(number: int, prompt: int, tokens: int, limit: int | None = None, ids: tuple[int, ...] = ()) -> Job:
        request = RequestView(number, 0.0, prompt, ids, PREFIX_TOKENS if ids else 0)
        return Job(request, tokens, limit or tokens)

    return build


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """Build what a forward does for a job, from a sequence right after its plan."""

    def build(instance: Instance, job: Job, sequence: Sequence, tokens: int, *, yields: bool) -> Row:
        stop = sequence.context_tokens
        return Row(job, stop - tokens, stop, instance.name_blocks(sequence), yields)

    return build


@pytest.fixture
def make_flight() -> type[Flight]:
    """The class."""
    return Flight


@pytest.fixture
def make_station(deploy: Callable[..., Any]) -> Callable[..., Station]:
    """Build a station: role, the policies' name or ``odd``, id, a random generator, fields of the instance's spec."""

    def build(role: Any, batch: str, number: int, rng: random.Random, **given: Any) -> Station:
        fields = {"kv_blocks": 60, "block_tokens": BLOCK_TOKENS, "max_batch_tokens": 96, "max_sequences": 8, **given}
        spec: InstanceSpec = deploy(role if role == "semi_pd" else "colocated", **fields).instances[0]
        spec = replace(spec, role=role)
        factory: Callable[[int], Any] = Odd if batch == "odd" else PolicySpec.parse(batch, "batch")
        policies = tuple(factory(rng.randrange(1 << 30)) for _ in LANES[spec.role])
        estimate = ModelEstimate(spec.latency)
        return Station(Instance(number, spec, policies, estimate, EventLog(None), PREFIX_TOKENS))

    return build
