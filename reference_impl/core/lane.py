"""One lane of an instance: its queue, its batch, and what a batch policy may see of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, ValuesView
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from policies.api import BatchPolicy, Estimate, LaneKind, Queue, SequenceView
from reference_impl.core.sequence import Sequence, Steps

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance
    from reference_impl.core.iteration import Foresight, Iteration


class Lane:
    """An independent stream of iterations on one instance's compute; satisfies ``policies.api.LaneView``.

    Totals are kept up to date instead of recounted.  Running decodes are counted by the iteration at which they next
    need a KV block (``_due``), so any number of iterations can be reserved at once.
    """

    __slots__ = (
        "_decodes",
        "_due",
        "_joins",
        "_waiting",
        "batch",
        "block_tokens",
        "caching",
        "context_tokens",
        "decodes",
        "estimate",
        "incoming",
        "instance",
        "instance_id",
        "joined",
        "kind",
        "limits",
        "max_batch_tokens",
        "max_sequences",
        "needs_spread",
        "now_s",
        "paused",
        "pool",
        "prefilling",
        "prefills",
        "settled_s",
        "skipped",
        "started_s",
        "steps",
        "total_blocks",
        "under_way",
        "waiting",
    )

    def __init__(self, kind: LaneKind, instance: Instance, batch: BatchPolicy, estimate: Estimate) -> None:
        self.kind: LaneKind = kind
        self.instance = instance
        self.batch = batch
        self.estimate = estimate
        self.pool = instance.pool
        self.caching = instance.caching
        self.now_s = 0.0
        self.steps = Steps()
        self.context_tokens = 0
        """KV tokens of the running decodes, those of an iteration under way included."""
        self.incoming: list[Sequence] = []
        """Prefilled sequences that decode from the next iteration on."""
        self.joined: list[Sequence] = []
        """Sequences that were added to the decode batch since the last iteration was planned."""
        self.under_way: list[Iteration] = []
        """Planned and not completed: at most two, the second planned ahead."""
        self.started_s = -1.0
        """When the last iteration that is complete began."""
        self.settled_s = 0.0
        """The log holds every token up to here: the last completion, or a plan with nothing under way."""
        self.prefills: dict[int, Sequence] = {}
        self.skipped: dict[int, Sequence] = {}
        self._decodes: dict[int, Sequence] = {}
        self._waiting: OrderedDict[int, Sequence] = OrderedDict()
        self.instance_id = instance.instance_id
        self.waiting: Queue[Sequence] = self._waiting.values()
        self.prefilling: ValuesView[Sequence] = self.prefills.values()
        self.decodes: ValuesView[Sequence] = self._decodes.values()
        self.paused: ValuesView[Sequence] = self.skipped.values()
        self.total_blocks = instance.spec.kv_blocks
        self.block_tokens = instance.spec.block_tokens
        self.max_sequences = instance.spec.max_sequences
        self.max_batch_tokens = instance.spec.max_batch_tokens
        self.needs_spread = instance.spec.latency.needs_spread
        self._due = [0] * self.block_tokens
        """How many running decodes need a KV block at iteration i, i + block size, ..."""
        self._joins = 0
        self.limits: list[tuple[int, int, int]] = []
        """Heap of (decode iteration count at the last token, request, epoch) of decodes whose end is known."""

    # ------------------------------------------------------------------------------------- what a policy may read

    @property
    def free_blocks(self) -> int:
        return self.pool.available

    @property
    def running_sequences(self) -> int:
        return self.instance.running - self.instance.due

    @property
    def decode_blocks(self) -> int:
        return self._due[self.steps.count % self.block_tokens]

    @property
    def decode_iterations(self) -> int:
        return self.steps.count

    def uncomputed_tokens(self, sequence: SequenceView) -> int:
        """Prompt tokens left to compute, a prefix hit deducted."""
        computed = sequence.computed_tokens
        if computed or not self.caching:
            return sequence.target_tokens - computed
        assert isinstance(sequence, Sequence)
        return sequence.target_tokens - self.instance.hit_tokens(sequence)

    def blocks_needed(self, sequence: SequenceView, tokens: int) -> int:
        """Available blocks that the next ``tokens`` of ``sequence`` take; cached blocks that it would pin count."""
        computed = sequence.computed_tokens
        size = self.block_tokens
        if computed or not self.caching:
            return -(-(computed + tokens) // size) + (-computed // size)
        assert isinstance(sequence, Sequence)
        hit = self.instance.hit_tokens(sequence)
        pinned = sum(len(node.blocks) for node in sequence.hit if not node.references)
        return -(-(hit + tokens) // size) + (-hit // size) + pinned

    # ------------------------------------------------------------------------------------------- changes by the host

    def enqueue(self, sequence: Sequence, *, first: bool = False) -> None:
        """Put a request into the queue, at its end or (after a preemption) at its front."""
        self._waiting[sequence.request_id] = sequence
        if first:
            self._waiting.move_to_end(sequence.request_id, last=False)

    def withdraw(self, sequence: Sequence) -> None:
        """Take a waiting sequence out of the queue."""
        del self._waiting[sequence.request_id]

    def is_waiting(self, request_id: int) -> Sequence | None:
        """The waiting sequence of that id, if there is one."""
        return self._waiting.get(request_id)

    def admit(self, sequence: Sequence) -> None:
        """Move a waiting sequence to the prefills."""
        del self._waiting[sequence.request_id]
        self.prefills[sequence.request_id] = sequence

    def running(self, request_id: int) -> Sequence | None:
        """The sequence of that id that holds KV on this lane, if there is one."""
        return self._decodes.get(request_id) or self.prefills.get(request_id) or self.skipped.get(request_id)

    def decodes_now(self, request_id: int) -> bool:
        """Whether it is one of the decodes that are not paused."""
        return request_id in self._decodes

    def join(self, sequence: Sequence) -> None:
        """Add a prefilled sequence to the decode batch."""
        count = self.steps.count
        context = sequence.computed_tokens
        self._joins += 1  # over all sequences: a request can come back as another one
        sequence.epoch = self._joins
        sequence.steps = self.steps
        sequence.tokens_out_base = count
        sequence.bucket = (count - context) % self.block_tokens
        self._due[sequence.bucket] += 1
        self._decodes[sequence.request_id] = sequence
        self.joined.append(sequence)
        self.context_tokens += context
        if sequence.limit_tokens is not None:
            last = count + sequence.limit_tokens - sequence.tokens_out
            heappush(self.limits, (last, sequence.request_id, sequence.epoch))

    def leave(self, sequence: Sequence) -> None:
        """Take a sequence out of the decode batch; from here on it counts for itself."""
        del self._decodes[sequence.request_id]
        self._due[sequence.bucket] -= 1
        decoded = self.steps.count - sequence.tokens_out_base
        sequence.computed_tokens += decoded
        sequence.tokens_out += decoded
        sequence.steps = None
        sequence.left_at = self.steps.count
        self.context_tokens -= sequence.computed_tokens
        sequence.own_blocks = self.own_blocks(sequence)

    def at_limit(self) -> Iterator[Sequence]:
        """The decodes that the iterations started so far bring to their limit; each is yielded once."""
        while self.limits and self.limits[0][0] <= self.steps.count:
            _, request_id, epoch = heappop(self.limits)
            sequence = self._decodes.get(request_id)
            if sequence is not None and sequence.epoch == epoch:
                yield sequence

    def foresights(self) -> list[Foresight]:
        """Of the iteration under way, if a plan was made on top of it."""
        return [iteration.foresight for iteration in self.under_way if iteration.foresight is not None]

    def own_blocks(self, sequence: Sequence) -> int:
        """KV blocks that a running sequence holds besides its cached prefix."""
        cached = len(sequence.path) * self.instance.blocks_per_id
        return -(-sequence.context_tokens // self.block_tokens) - cached

    def blocks_after_skipping(self, skip: Collection[int]) -> int:
        """Blocks that the next decode iteration takes once ``skip`` pause and the other paused decodes are back."""
        size = self.block_tokens
        due = self.steps.count % size
        leaving = sum(1 for i in skip if i in self._decodes and self._decodes[i].bucket == due)
        back = sum(1 for i, paused in self.skipped.items() if i not in skip and paused.computed_tokens % size == 0)
        return self._due[due] - leaving + back

    def blocks_for(self, iterations: int) -> int:
        """Blocks that the next ``iterations`` decode iterations of the whole batch take."""
        size = self.block_tokens
        cycles, rest = divmod(iterations, size)
        start = self.steps.count % size
        end = start + rest
        due = self._due
        blocks = sum(due[start:end]) if end <= size else sum(due[start:]) + sum(due[: end - size])
        return blocks + cycles * len(self._decodes)

    def iterations_within(self, blocks: int, limit: int) -> int:
        """How many of the next ``limit`` decode iterations of the whole batch ``blocks`` suffice for."""
        batch = len(self._decodes)
        size = self.block_tokens
        if batch * (limit // size + 1) <= blocks:  # rounding up to whole cycles: the common case
            return limit
        cycles, blocks = divmod(blocks, batch)
        iterations = cycles * size
        count = self.steps.count
        while iterations < limit:
            blocks -= self._due[(count + iterations) % size]
            if blocks < 0:
                break
            iterations += 1
        return min(iterations, limit)

    def start_decodes(self, iterations: int) -> None:
        """Start ``iterations`` decode iterations of the whole batch: reserve their blocks, count their tokens."""
        steps = self.steps
        count = steps.count
        blocks = self._due[count % self.block_tokens] if iterations == 1 else self.blocks_for(iterations)
        if blocks and not self.pool.reserve(blocks):
            raise AssertionError("decode iterations were started without room for them")
        steps.count = count + iterations
        self.context_tokens += iterations * len(self._decodes)
