"""One serving instance: a state machine without a clock that both hosts drive.

``enqueue`` and ``expect``/``reserve``/``receive`` bring work, ``plan`` asks a lane's batch policy and reserves memory,
``repeat`` starts the same iteration again, ``complete`` applies an outcome; ``cancel`` and ``end`` take a request out.
Events go to the log as they happen.

A lane's next iteration may be planned while one is under way (``ahead.py``).  Then a plan sees what is certain to be
when that one completes, and what it changes is logged for that moment.  Blocks that an iteration under way uses are
never handed out before it completes, whoever gave them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.api import BatchPolicy, Estimate, InstanceState, InstanceView, LaneKind, Role
from reference_impl.core.ahead import foresee
from reference_impl.core.blocks import BlockPool
from reference_impl.core.caching import blocks_per_prefix_id, find_prefix
from reference_impl.core.completion import complete
from reference_impl.core.departure import give_back, leave_batch, leave_outbound, remove
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.inbound import Promise, arrive, reserve, withdraw
from reference_impl.core.integrity import check_integrity
from reference_impl.core.iteration import Foresight, Iteration, LaterRow, log_row
from reference_impl.core.lane import Lane
from reference_impl.core.moments import time_key
from reference_impl.core.plan import apply_plan
from reference_impl.core.prefix import PrefixIndex
from reference_impl.core.sequence import Sequence
from reference_impl.core.spec import InstanceSpec

if TYPE_CHECKING:
    from reference_impl.events import EventLog

LANES: dict[Role, tuple[LaneKind, ...]] = {
    "colocated": ("mixed",),
    "prefill": ("prefill",),
    "decode": ("decode",),
    "semi_pd": ("prefill", "decode"),
}


class Instance:
    """A task executor's state: lanes over one KV pool and one prefix index."""

    def __init__(
        self,
        instance_id: int,
        spec: InstanceSpec,
        batch_policies: tuple[BatchPolicy, ...],
        estimate: Estimate,
        log: EventLog,
        prefix_block_tokens: int | None,
    ) -> None:
        self.instance_id = instance_id
        self.spec = spec
        self.state: InstanceState = "ready"
        self.log = log
        self.index = PrefixIndex()
        self.pool = BlockPool(spec.kv_blocks, self.index)
        self.caching = spec.prefix_caching and prefix_block_tokens is not None and spec.role != "decode"
        self.prefix_block_tokens = prefix_block_tokens or spec.block_tokens
        self.blocks_per_id = blocks_per_prefix_id(self.prefix_block_tokens, spec.block_tokens) if self.caching else 1
        """KV blocks of one prefix id."""
        self.lanes = tuple(
            Lane(kind, self, policy, estimate) for kind, policy in zip(LANES[spec.role], batch_policies, strict=True)
        )
        self.prefill_lane: Lane | None = None if spec.role == "decode" else self.lanes[0]
        self.decode_lane: Lane | None = None if spec.role == "prefill" else self.lanes[-1]
        self.running = 0
        """Sequences that hold KV."""
        self.due = 0
        """Those of them that an iteration under way brings to their limit: a plan on top of it has their places."""
        self.waiting_tokens = 0
        """Tokens of its requests that have no KV here yet: not computed, or not handed over."""
        self.resting_tokens = 0
        """KV tokens of sequences outside a decode batch: partly prefilled, about to join, paused, handed over."""
        self.admissions = 0
        self.preemptions = 0
        self.changed = True
        """Whether its queue or batch changed since the last report; whoever reports sets it back."""
        self.handovers: list[Sequence] = []
        """Prefilled sequences that another instance has to decode; the host takes them away."""
        self.dropped: list[Sequence] = []
        """Preempted since the host last looked; the host clears it. Those of a decode instance must be prefilled
        elsewhere, the others wait here."""
        self.outbound: dict[int, Sequence] = {}
        """The same, and those that the host has taken: their KV stays here until they are dismissed."""
        self.promises: dict[int, Promise] = {}
        """Prefilled requests on their way to this instance."""
        self.inbound = 0
        """Those that have no blocks here yet."""

    # ------------------------------------------------------------------------------------------------ work comes in

    def enqueue(self, sequence: Sequence) -> None:
        """Queue a request for prefill."""
        assert self.prefill_lane is not None, "a decode instance was given a prefill"
        self.prefill_lane.enqueue(sequence)
        self.waiting_tokens += sequence.target_tokens
        self.changed = True

    def expect(self, sequence: Sequence) -> None:
        """A prefilled request (its ``computed_tokens`` have KV) will be handed over once there are blocks for it."""
        self.promises[sequence.request_id] = Promise(sequence)
        self.inbound += 1
        self.waiting_tokens += sequence.computed_tokens
        self.changed = True

    def reserve(self, sequence: Sequence) -> bool:
        """Take the blocks for a sequence that is expected, keeping 1 % free for growth; False: not now."""
        if not reserve(self, self.promises[sequence.request_id]):
            return False
        self.changed = True
        return True

    def reserved_blocks(self, request_id: int) -> list[int]:
        """The ids of the blocks reserved for an expected sequence, in order of position: where its KV goes."""
        promise = self.promises[request_id]
        assert promise.blocks is not None, f"no blocks are reserved for request {request_id}"
        promise.named += self.pool.name(promise.blocks - len(promise.named))
        return promise.named

    def receive(self, sequence: Sequence, start_s: float, now_s: float) -> None:
        """An expected sequence and its KV have arrived, sent at ``start_s``; it decodes from the next plan on."""
        assert self.decode_lane is not None, "a prefill instance was given a decode"
        arrive(self, self.promises.pop(sequence.request_id))
        sequence.ready_s = now_s
        self.decode_lane.incoming.append(sequence)
        self.log_arrival(sequence, start_s)
        self.changed = True

    def withdraw(self, request_id: int) -> bool:
        """An expected sequence does not come: its blocks, if it had any, are free. False: none was expected."""
        promise = self.promises.pop(request_id, None)
        if promise is None:
            return False
        withdraw(self, promise)
        self.changed = True
        return True

    # ---------------------------------------------------------------------------------------------------- iterations

    def plan(self, lane: Lane, now_s: float) -> Iteration | None:
        """Ask the lane's policy for its next iteration and reserve its memory; None: the lane has nothing to run.

        Needs token counts only, no token values, so it may be called while one iteration of the lane is under way. Such
        a plan, made ahead, never preempts: where it would have to, and where it would run nothing, None is returned and
        the policy is to be asked again when the one under way completes.

        Raises PolicyError for a decision that cannot be carried out. Everything but the free blocks is checked before
        anything changes; those only after the preemptions that the plan names.
        """
        lane.now_s = now_s
        if lane.under_way:
            assert len(lane.under_way) == 1, "a lane can be planned one iteration ahead, not two"
            ahead_of = foresee(self, lane.under_way[0], now_s)
        else:
            ahead_of = None
            lane.settled_s = now_s
            if lane.limits:
                overdue = [sequence.request_id for sequence in lane.at_limit()]
                assert not overdue, f"requests {overdue} have reached their limit of tokens and were not finished"
        if lane.incoming:
            self._join(lane, now_s, ahead_of)
        if not (lane.decodes or lane.waiting or lane.prefills or lane.skipped):
            return None
        while True:
            preemptions = self.preemptions
            try:
                plan = lane.batch.plan(lane)
            except RAISED as error:
                doing = f"planning the {lane.kind} lane of instance {self.instance_id} at {now_s:.6f} s"
                raise policy_failure(lane.batch, doing, error) from error
            iteration = apply_plan(self, lane, plan, now_s, ahead_of)
            if iteration is not None:
                lane.under_way.append(iteration)
                return iteration
            if self.preemptions == preemptions:
                return None  # else all that the plan did was to make room: ask what to run there

    def _join(self, lane: Lane, now_s: float, ahead_of: Foresight | None) -> None:
        """Prefilled sequences become decodes. Where an iteration without them began after they were ready, say so."""
        for sequence in lane.incoming:
            self.resting_tokens -= sequence.computed_tokens
            lane.join(sequence)
            if ahead_of is not None:
                cells = ("join", sequence.request_id, self.instance_id, lane.kind, sequence.tokens_out, None)
                ahead_of.later_rows.append(LaterRow(self.log.change, cells, sequence, sequence.ready_s))
            elif lane.started_s >= sequence.ready_s - 1e-9 and time_key(lane.started_s) >= time_key(sequence.ready_s):
                self.log_change("join", sequence, lane, now_s, None)
        lane.incoming = []

    def repeats(self, iteration: Iteration, limit: int) -> int:
        """How many times, at most ``limit``, a holding iteration can be repeated before its plan must be asked anew."""
        lane = iteration.lane
        if not iteration.chunks:
            return lane.iterations_within(self.pool.available, limit)
        if len(iteration.chunks) > 1:
            return 0
        sequence, tokens = iteration.chunks[0]
        limit = min(limit, (sequence.target_tokens - sequence.computed_tokens - 1) // tokens)
        decodes = iteration.decodes
        for count in range(1, limit + 1):
            need = lane.blocks_needed(sequence, count * tokens) + (lane.blocks_for(count) if decodes else 0)
            if need > self.pool.available:
                return count - 1
        return max(limit, 0)

    def repeat(self, iteration: Iteration, count: int) -> None:
        """Start a holding iteration ``count`` more times: the same decodes, the next chunks of the same sizes."""
        for sequence, tokens in iteration.chunks:
            self.compute(sequence, count * tokens)
        if iteration.decodes:
            iteration.lane.start_decodes(count)

    def compute(self, sequence: Sequence, tokens: int) -> None:
        """Reserve the blocks of the next ``tokens`` of a prefill and count them as computed."""
        size = self.spec.block_tokens
        computed = sequence.computed_tokens
        need = -(-(computed + tokens) // size) + (-computed // size)
        if not self.pool.reserve(need):
            raise AssertionError("a prefill was started without room for it")
        sequence.own_blocks += need
        sequence.computed_tokens = computed + tokens
        self.waiting_tokens -= tokens
        self.resting_tokens += tokens

    complete = complete

    def record(self, iteration: Iteration, start_s: float, end_s: float) -> None:
        """Log an iteration that ran from ``start_s`` to ``end_s``; to be called before it is completed."""
        lane = iteration.lane
        what = (self.instance_id, lane.kind, iteration.prefill_tokens, iteration.decodes)
        self.log.run.append((end_s, *what, start_s, 1, end_s, 0.0, 0.0, self.pool.used))

    # -------------------------------------------------------------------------------------------- who leaves before

    def cancel(self, request_id: int, now_s: float, reason: str | None) -> bool:
        """Drop a request, whatever its state; False: it is not here.

        ``reason`` is logged as its rejection; None: it is not rejected but goes on elsewhere.
        """
        removed = remove(self, request_id, now_s)
        if removed is not None and reason is not None:
            self.log.reject.append((removed.time_s, request_id, reason))
        return removed is not None

    def end(self, request_id: int, now_s: float) -> bool:
        """A request is finished with the tokens that it has (a stop string was found); False: it is not here."""
        removed = remove(self, request_id, now_s)
        if removed is not None:
            sequence, lane, time_s = removed
            where = (None, None) if lane is None else (self.instance_id, lane.kind)
            self.log.finish.append((time_s, request_id, *where, sequence.tokens_out))
        return removed is not None

    # --------------------------------------------------------------------------------------------------- preemption

    def preempt(self, sequence: Sequence, lane: Lane, now_s: float, reason: str) -> None:
        """Drop a running sequence and its KV; it is prefilled again, first in the queue."""
        leave_batch(self, lane, sequence)
        self.preemptions += 1
        give_back(self, lane, sequence)
        sequence.restart()
        self.log.change.append(
            (now_s, "preempt", sequence.request_id, self.instance_id, lane.kind, sequence.tokens_out, reason)
        )
        self.dropped.append(sequence)
        if self.prefill_lane is not None:
            self.prefill_lane.enqueue(sequence, first=True)
            self.waiting_tokens += sequence.target_tokens
        self.changed = True

    def decodes_elsewhere(self, sequence: Sequence) -> bool:
        """Whether a sequence leaves once prefilled: no lane here decodes, or another instance was chosen for that."""
        return self.decode_lane is None or sequence.decode_instance_id not in (None, self.instance_id)

    def rest_no_more(self, sequence: Sequence) -> None:
        """A sequence that holds KV outside of every batch leaves."""
        self.running -= 1
        self.resting_tokens -= sequence.computed_tokens

    def name_blocks(self, sequence: Sequence) -> list[int]:
        """The ids of all KV blocks of a running sequence, in order of position: its row of the block table."""
        own = sequence.own_blocks
        if sequence.steps is not None and self.decode_lane is not None:
            own = self.decode_lane.own_blocks(sequence)
        sequence.blocks += self.pool.name(own - len(sequence.blocks))
        return [block for node in sequence.path for block in node.blocks] + sequence.blocks

    def dismiss(self, sequence: Sequence) -> None:
        """A sequence that was handed over, or refused at hand-over, leaves this instance."""
        leave_outbound(self, sequence)
        give_back(self, self.lanes[0], sequence)
        self.changed = True

    # ------------------------------------------------------------------------------------------------ prefix caching

    def hit_tokens(self, sequence: Sequence) -> int:
        """Prompt tokens of a waiting sequence whose KV is cached here; at least one token is left to compute."""
        if not self.caching:
            return 0
        if sequence.hit_version != self.index.version:
            find_prefix(self, sequence)
        return len(sequence.hit) * self.prefix_block_tokens

    def admit(self, sequence: Sequence, lane: Lane, now_s: float, ahead_of: Foresight | None) -> None:
        """Move a waiting sequence into the batch, with its prefix hit as computed tokens."""
        hit = self.hit_tokens(sequence)
        lane.admit(sequence)
        self.running += 1
        self.admissions += 1
        sequence.admission = self.admissions
        if hit:
            sequence.path = sequence.hit
            self.index.acquire(sequence.path)
            sequence.computed_tokens = hit
            self.waiting_tokens -= hit
            self.resting_tokens += hit
        sequence.hit = []
        self.changed = True
        log_row(self.log.admit, (sequence.request_id, self.instance_id, lane.kind, hit), sequence, now_s, ahead_of)

    def log_change(self, kind: str, sequence: Sequence, lane: Lane, now_s: float, ahead_of: Foresight | None) -> None:
        """Log that a decode joins, pauses or resumes."""
        cells = (kind, sequence.request_id, self.instance_id, lane.kind, sequence.generated_tokens, None)
        log_row(self.log.change, cells, sequence, now_s, ahead_of)

    def log_arrival(self, sequence: Sequence, start_s: float) -> None:
        """Log that a sequence which was prefilled elsewhere, or waited to leave, decodes here."""
        cells = (sequence.request_id, self.instance_id, "decode", sequence.computed_tokens, start_s)
        self.log.transfer.append((sequence.ready_s, *cells))

    # --------------------------------------------------------------------------------------------------------- views

    def view(self, now_s: float) -> InstanceView:
        """What this instance reports at ``now_s``."""
        lane = self.decode_lane
        prefill = self.prefill_lane
        pool = self.pool
        return tuple.__new__(  # without the Python-level constructor: views are made for every dispatch
            InstanceView,
            (
                self.instance_id,
                self.spec.role,
                self.state,
                now_s,
                len(prefill.waiting) if prefill is not None else self.inbound,
                self.running,
                self.waiting_tokens,
                self.resting_tokens + (lane.context_tokens if lane is not None else 0),
                pool.available,
                pool.total,
                self.spec.block_tokens,
            ),
        )

    def check_integrity(self) -> None:
        """Raise AssertionError unless blocks, references and totals add up."""
        check_integrity(self)
