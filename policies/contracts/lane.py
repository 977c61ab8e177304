"""A small serving instance to test batch policies with: satisfies ``policies.api.LaneView`` and carries out plans."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.api import BatchPlan, Chunk, Estimate, LaneKind, RequestView, SequenceView
from policies.contracts.fakes import FakeEstimate, fake_request


@dataclass
class FakeSequence:
    """A request on a lane; finishes when it has generated ``output_tokens``."""

    request: RequestView
    output_tokens: int = 10
    hit_tokens: int = 0
    """Prompt tokens found in the prefix cache at admission (whole blocks, and fewer than the prompt)."""
    target_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0

    def __post_init__(self) -> None:
        self.target_tokens = self.target_tokens or self.request.prompt_tokens

    @property
    def request_id(self) -> int:
        return self.request.request_id

    @property
    def context_tokens(self) -> int:
        return self.computed_tokens


def fake_sequence(request_id: int, prompt_tokens: int, output_tokens: int = 10, *, computed: int = 0) -> FakeSequence:
    """A sequence without prefix ids; with ``computed == prompt_tokens`` it is a decode that has its first token."""
    done = computed >= prompt_tokens
    request = fake_request(request_id, prompt_tokens)
    return FakeSequence(request, output_tokens, computed_tokens=computed, generated_tokens=int(done))


@dataclass
class FakeLane:
    """One lane and its KV pool. Prefix hits take no blocks here; the latest admitted is preempted for decodes."""

    kind: LaneKind = "mixed"
    total_blocks: int = 1000
    block_tokens: int = 16
    max_sequences: int = 64
    max_batch_tokens: int = 2048
    instance_id: int = 0
    now_s: float = 0.0
    decode_iterations: int = 0
    foreign_blocks: int = 0
    """Blocks that another lane of the same instance holds."""
    waiting: list[FakeSequence] = field(default_factory=list)
    prefilling: list[FakeSequence] = field(default_factory=list)
    paused: list[FakeSequence] = field(default_factory=list)
    decodes: list[FakeSequence] = field(default_factory=list)
    estimate: Estimate = field(default_factory=FakeEstimate)

    @property
    def running_sequences(self) -> int:
        return len(self.prefilling) + len(self.decodes)

    @property
    def free_blocks(self) -> int:
        held = sum(self._blocks(s, s.computed_tokens) for s in (*self.prefilling, *self.decodes))
        return self.total_blocks - self.foreign_blocks - held

    @property
    def decode_blocks(self) -> int:
        return sum(sequence.computed_tokens % self.block_tokens == 0 for sequence in self.decodes)

    def uncomputed_tokens(self, sequence: SequenceView) -> int:
        assert isinstance(sequence, FakeSequence)
        return sequence.target_tokens - max(sequence.computed_tokens, sequence.hit_tokens)

    def blocks_needed(self, sequence: SequenceView, tokens: int) -> int:
        assert isinstance(sequence, FakeSequence)
        before = max(sequence.computed_tokens, sequence.hit_tokens)
        return self._blocks(sequence, before + tokens) - self._blocks(sequence, before)

    def _blocks(self, sequence: FakeSequence, tokens: int) -> int:
        return -(-tokens // self.block_tokens) - sequence.hit_tokens // self.block_tokens

    def state(self) -> tuple[object, ...]:
        """Everything that a plan may change, to compare."""
        groups = (self.waiting, self.prefilling, self.decodes)
        sequences = [(s.request_id, s.target_tokens, s.computed_tokens, s.generated_tokens) for g in groups for s in g]
        return (*map(len, groups), sequences, self.foreign_blocks, self.now_s)

    def check(self, plan: BatchPlan) -> None:
        """Raise AssertionError, saying what is allowed, unless a host could carry out ``plan`` now."""
        known = {s.request_id: s for s in (*self.waiting, *self.prefilling)}
        running = {s.request_id for s in (*self.prefilling, *self.decodes)}
        ids = [request_id for request_id, _ in plan.prefills]
        assert set(ids) <= set(known), f"{plan}: prefills of waiting or partly prefilled requests only: {set(known)}"
        assert len(ids) == len(set(ids)), f"{plan}: at most one chunk per request"
        assert set(plan.preempt) <= running - set(ids), f"{plan}: may preempt {running - set(ids)}"
        assert plan.skip <= {s.request_id for s in self.decodes}, f"{plan}: may skip running decodes only"
        for request_id, tokens in plan.prefills:
            left = self.uncomputed_tokens(known[request_id])
            assert 1 <= tokens <= left, f"{plan}: request {request_id} has 1 to {left} tokens to compute"
        self._check_limits(plan, len(set(ids) - running), [known[request_id] for request_id in ids])

    def _check_limits(self, plan: BatchPlan, admitted: int, prefills: list[FakeSequence]) -> None:
        decodes = len(self.decodes) - len(plan.skip) if plan.decode else 0
        if plan.prefills:
            tokens = sum(tokens for _, tokens in plan.prefills) + decodes
            assert tokens <= self.max_batch_tokens, f"{plan}: {tokens} tokens, max_batch_tokens={self.max_batch_tokens}"
        free = self.max_sequences - self.running_sequences
        assert admitted <= max(free, 0), f"{plan}: admits {admitted} requests, {free} places are free"
        need = sum(self.blocks_needed(s, chunk.tokens) for s, chunk in zip(prefills, plan.prefills, strict=True))
        if decodes:
            need += self.decode_blocks
        if prefills and not plan.preempt:
            assert need <= self.free_blocks, f"{plan}: takes {need} KV blocks, {self.free_blocks} are free"

    def apply(self, plan: BatchPlan) -> bool:
        """Carry out a checked plan; whether anything ran or was preempted."""
        for request_id in plan.preempt:
            self._preempt(next(s for s in (*self.prefilling, *self.decodes) if s.request_id == request_id))
        prefills = plan.prefills
        if plan.decode and self.decode_blocks > self.free_blocks:
            self._make_room()
            prefills = ()
        decodes = [s for s in self.decodes if s.request_id not in plan.skip] if plan.decode else []
        for chunk in prefills:
            self._compute(chunk)
        self.decode_iterations += bool(decodes)
        for sequence in decodes:
            sequence.computed_tokens += 1
            sequence.generated_tokens += 1
        self._end()
        self.now_s += self.estimate.prefill_s(sum(chunk.tokens for chunk in prefills))
        return bool(prefills or decodes or plan.preempt)

    def _make_room(self) -> None:
        while self.decodes and self.decode_blocks > self.free_blocks:
            self._preempt((self.prefilling or self.decodes)[-1])

    def _preempt(self, sequence: FakeSequence) -> None:
        (self.prefilling if sequence in self.prefilling else self.decodes).remove(sequence)
        sequence.target_tokens = sequence.request.prompt_tokens + sequence.generated_tokens
        sequence.computed_tokens = 0
        if self.kind != "decode":  # a decode instance hands it back to be prefilled elsewhere
            self.waiting.insert(0, sequence)

    def _compute(self, chunk: Chunk) -> None:
        sequence = next(s for s in (*self.prefilling, *self.waiting) if s.request_id == chunk.request_id)
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            self.prefilling.append(sequence)
            sequence.computed_tokens = sequence.hit_tokens
        sequence.computed_tokens += chunk.tokens

    def _end(self) -> None:
        """Prefills that are complete yield a token and decode on (on a prefill lane they leave); the finished leave."""
        ended = [s for s in self.prefilling if s.computed_tokens == s.target_tokens]
        for sequence in ended:
            sequence.generated_tokens += 1
        self.prefilling = [s for s in self.prefilling if s not in ended]
        if self.kind == "mixed":
            self.decodes += ended
        self.decodes = [s for s in self.decodes if s.generated_tokens < s.output_tokens]
