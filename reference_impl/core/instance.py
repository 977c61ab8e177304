"""One serving instance: a state machine without a clock that both hosts drive.

``enqueue`` and ``reserve``/``receive`` bring work, ``plan`` asks a lane's batch policy and reserves memory, ``repeat``
starts the same iteration again, ``complete`` applies an outcome.  Events go to the log as they happen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from policies.api import BatchPolicy, Estimate, InstanceState, InstanceView, LaneKind, Role
from reference_impl.core.blocks import BlockPool
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.iteration import Iteration
from reference_impl.core.lane import Lane
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
PREFILL_ROLES: frozenset[Role] = frozenset(("colocated", "prefill", "semi_pd"))


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
        self.blocks_per_id = self.prefix_block_tokens // spec.block_tokens
        """KV blocks of one prefix id."""
        if self.caching and self.prefix_block_tokens % spec.block_tokens:
            raise ValueError(
                f"the trace's prefix blocks have {self.prefix_block_tokens} tokens, KV blocks {spec.block_tokens};"
                " allowed: whole KV blocks per prefix block (convert the trace, or choose another KV block size)"
            )
        self.lanes = tuple(
            Lane(kind, self, policy, estimate) for kind, policy in zip(LANES[spec.role], batch_policies, strict=True)
        )
        self.prefill_lane: Lane | None = None if spec.role == "decode" else self.lanes[0]
        self.decode_lane: Lane | None = None if spec.role == "prefill" else self.lanes[-1]
        self.running = 0
        """Sequences that hold KV."""
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
        self.inbound = 0
        """Prefilled requests that are promised to this instance and have no blocks here yet."""

    # ------------------------------------------------------------------------------------------------ work comes in

    def enqueue(self, sequence: Sequence) -> None:
        """Queue a request for prefill."""
        assert self.prefill_lane is not None, "a decode instance was given a prefill"
        self.prefill_lane.enqueue(sequence)
        self.waiting_tokens += sequence.target_tokens
        self.changed = True

    def expect(self, context_tokens: int) -> None:
        """A prefilled request will be handed over to this instance once it has the blocks."""
        self.inbound += 1
        self.waiting_tokens += context_tokens
        self.changed = True

    def reserve(self, context_tokens: int) -> bool:
        """Take the blocks for a sequence that is expected, keeping 1 % free for growth; False: not now."""
        need = -(-context_tokens // self.spec.block_tokens)
        if self.running >= self.spec.max_sequences:
            return False
        if self.running and need > self.pool.available - self.pool.total // 100:
            return False
        if not self.pool.reserve(need):
            return False
        self.running += 1
        self.inbound -= 1
        self.waiting_tokens -= context_tokens
        self.resting_tokens += context_tokens
        self.changed = True
        return True

    def receive(self, sequence: Sequence) -> None:
        """A handed-over sequence and its KV have arrived; it decodes from the next iteration on."""
        assert self.decode_lane is not None, "a prefill instance was given a decode"
        self.admissions += 1
        sequence.admission = self.admissions
        sequence.own_blocks = -(-sequence.computed_tokens // self.spec.block_tokens)
        sequence.blocks, sequence.path = [], []
        self.decode_lane.incoming.append(sequence)
        self.changed = True

    # ---------------------------------------------------------------------------------------------------- iterations

    def plan(self, lane: Lane, now_s: float) -> Iteration | None:
        """Ask the lane's policy for its next iteration and reserve its memory; None: the lane has nothing to run.

        Needs token counts only, no token values. Raises PolicyError for a decision that cannot be carried out.
        Everything but the free blocks is checked before anything changes; those only after the preemptions that the
        plan names.
        """
        lane.now_s = now_s
        if lane.incoming:
            for sequence in lane.incoming:
                self.resting_tokens -= sequence.computed_tokens
                lane.join(sequence)
            lane.incoming = []
        if not (lane.decodes or lane.waiting or lane.prefills or lane.skipped):
            return None
        while True:
            preemptions = self.preemptions
            try:
                plan = lane.batch.plan(lane)
            except RAISED as error:
                doing = f"planning the {lane.kind} lane of instance {self.instance_id} at {now_s:.6f} s"
                raise policy_failure(lane.batch, doing, error) from error
            iteration = apply_plan(self, lane, plan, now_s)
            if iteration is not None or self.preemptions == preemptions:
                return iteration  # with neither, all that the plan did was to make room: ask what to run there

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

    def complete(self, iteration: Iteration, finished: Collection[int], now_s: float) -> None:
        """Apply an outcome: every prefill that ended and every decode has its token; ``finished`` have their last.

        ``finished`` are request ids of this iteration.  Sequences to hand over are left in :attr:`handovers`.
        """
        lane = iteration.lane
        ended = iteration.ended
        for request_id in finished:
            sequence = lane.running(request_id)
            if sequence is not None and sequence.steps is not None:
                lane.leave(sequence)
                self._finish(sequence, lane, now_s)
        for sequence in ended:
            self._prefilled(sequence, lane, sequence.request_id in finished, now_s)
        if ended or finished:
            self.changed = True

    def _prefilled(self, sequence: Sequence, lane: Lane, last: bool, now_s: float) -> None:
        del lane.prefills[sequence.request_id]
        sequence.tokens_out += 1
        if self.caching:
            self._cache(sequence)
        self.log.prefilled.append((now_s, sequence.request_id, self.instance_id, lane.kind, sequence.tokens_out))
        if last:
            self.resting_tokens -= sequence.computed_tokens
            self._finish(sequence, lane, now_s)
        elif self.decode_lane is None:
            self.handovers.append(sequence)
        else:
            self.decode_lane.incoming.append(sequence)

    def _finish(self, sequence: Sequence, lane: Lane, now_s: float) -> None:
        self.log.finish.append((now_s, sequence.request_id, self.instance_id, lane.kind, sequence.tokens_out))
        self.running -= 1
        self._give_back(sequence)

    # --------------------------------------------------------------------------------------------------- preemption

    def preempt(self, sequence: Sequence, lane: Lane, now_s: float, reason: str) -> None:
        """Drop a running sequence and its KV; it is prefilled again, first in the queue."""
        remaining = sequence.target_tokens - sequence.computed_tokens
        if sequence.steps is not None:
            lane.leave(sequence)
        else:
            self.resting_tokens -= sequence.computed_tokens
            if lane.skipped.pop(sequence.request_id, None) is None:
                del lane.prefills[sequence.request_id]
                self.waiting_tokens -= remaining
        self.running -= 1
        self.preemptions += 1
        self._give_back(sequence)
        sequence.restart()
        self.log.change.append(
            (now_s, "preempt", sequence.request_id, self.instance_id, lane.kind, sequence.tokens_out, reason)
        )
        self.dropped.append(sequence)
        if self.prefill_lane is not None:
            self.prefill_lane.enqueue(sequence, first=True)
            self.waiting_tokens += sequence.target_tokens
        self.changed = True

    def _give_back(self, sequence: Sequence) -> None:
        """Return a sequence's blocks: its own to the pool, its prefix to the cache."""
        named = sequence.blocks
        self.pool.release(named, sequence.own_blocks - len(named))
        if sequence.path:
            self.index.release(sequence.path)

    def name_blocks(self, sequence: Sequence) -> list[int]:
        """The ids of all KV blocks of a running sequence, in order of position: its row of the block table."""
        own = sequence.own_blocks
        if sequence.steps is not None and self.decode_lane is not None:
            own = self.decode_lane.own_blocks(sequence)
        sequence.blocks += self.pool.name(own - len(sequence.blocks))
        return [block for node in sequence.path for block in node.blocks] + sequence.blocks

    def dismiss(self, sequence: Sequence) -> None:
        """A sequence that was handed over, or refused at hand-over, leaves this instance."""
        self.running -= 1
        self.resting_tokens -= sequence.computed_tokens
        self._give_back(sequence)
        self.changed = True

    # ------------------------------------------------------------------------------------------------ prefix caching

    def hit_tokens(self, sequence: Sequence) -> int:
        """Prompt tokens of a waiting sequence whose KV is cached here; at least one token is left to compute."""
        if not self.caching:
            return 0
        if sequence.hit_version != self.index.version:
            limit = (min(sequence.target_tokens - 1, sequence.request.prompt_tokens)) // self.prefix_block_tokens
            sequence.hit = self.index.match(sequence.request.prefix_ids, limit)
            sequence.hit_version = self.index.version
        return len(sequence.hit) * self.prefix_block_tokens

    def admit(self, sequence: Sequence, lane: Lane, now_s: float) -> None:
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
        self.log.admit.append((now_s, sequence.request_id, self.instance_id, lane.kind, hit))

    def _cache(self, sequence: Sequence) -> None:
        """Share the whole prompt blocks of a finished prefill; where another sequence was faster, use its copy."""
        per_id = self.blocks_per_id
        ids = sequence.request.prefix_ids
        path = sequence.path
        whole = min(len(ids), sequence.request.prompt_tokens // self.prefix_block_tokens)
        if len(path) >= whole:
            return
        path = sequence.path = list(path)
        own = sequence.blocks
        own += self.pool.name((whole - len(path)) * per_id - len(own))
        taken = 0
        for prefix_id in ids[len(path) : whole]:
            parent = path[-1] if path else None
            mine = own[taken : taken + per_id]
            node = self.index.nodes.get(prefix_id)
            if node is None:
                node = self.index.insert(prefix_id, parent, mine)
            elif node.parent is parent:
                self.index.acquire((node,))
                self.pool.release(mine, 0)
            else:
                break  # the same id after another prefix: not a chained id, so it cannot be shared
            path.append(node)
            taken += per_id
        del own[:taken]
        sequence.own_blocks -= taken

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

    def sequences(self) -> Iterator[Sequence]:
        """Every sequence that holds KV on a lane of this instance."""
        for lane in self.lanes:
            yield from lane.prefills.values()
            yield from lane.decodes
            yield from lane.paused
            yield from lane.incoming

    def check_integrity(self, leaving: Collection[Sequence] = ()) -> None:
        """Raise AssertionError unless blocks, references and totals add up; ``leaving``: sequences in transfer."""
        named: list[int] = []
        unnamed = 0
        for sequence in [*self.sequences(), *self.handovers, *leaving]:
            own = -(-sequence.context_tokens // self.spec.block_tokens) - len(sequence.path) * self.blocks_per_id
            assert sequence.steps is not None or own == sequence.own_blocks, (
                f"sequence {sequence.request_id} has {sequence.own_blocks} blocks for {sequence.context_tokens} tokens"
            )
            named += sequence.blocks
            unnamed += own - len(sequence.blocks)
        self.pool.check_integrity(named, unnamed)
