"""A request admitted to an instance."""

from __future__ import annotations

from policies.api import RequestView
from reference_impl.core.prefix import Node


class Sequence:
    """The state of one request on one instance; satisfies ``policies.api.SequenceView``.

    While it decodes, its lane counts for it: ``generated_tokens`` and ``context_tokens`` follow the lane's iteration
    counter, so that an iteration costs nothing per sequence.
    """

    __slots__ = (
        "admission",
        "blocks",
        "bucket",
        "computed_tokens",
        "decode_instance_id",
        "ended",
        "epoch",
        "hit",
        "hit_version",
        "left_at",
        "limit_tokens",
        "own_blocks",
        "path",
        "ready_s",
        "request",
        "request_id",
        "steps",
        "target_tokens",
        "tokens_out",
        "tokens_out_base",
    )

    def __init__(self, request: RequestView, limit_tokens: int | None = None, generated_tokens: int = 0) -> None:
        """``generated_tokens`` were generated elsewhere; they are prefilled with the prompt, as after a preemption."""
        if limit_tokens is not None and limit_tokens <= generated_tokens:
            raise ValueError(
                f"request {request.request_id} ends after {limit_tokens} tokens and has {generated_tokens};"
                " allowed: a limit above what it has"
            )
        self.request = request
        self.request_id = request.request_id
        self.limit_tokens = limit_tokens
        """Output tokens after which its host ends it, where that is known by count."""
        self.target_tokens = request.prompt_tokens + generated_tokens
        self.computed_tokens = 0
        """Tokens with KV; of a running decode: when it joined."""
        self.tokens_out = generated_tokens
        """Tokens generated; of a running decode: when it joined."""
        self.ready_s = 0.0
        """When it was last prefilled, or its KV handed over: it may decode from then on."""
        self.ended = False
        """Finished or cancelled on its instance: what is still computed for it does not count."""
        self.steps: Steps | None = None
        """The lane that counts this sequence's decode iterations, and where its count stood at the join."""
        self.tokens_out_base = 0
        self.left_at = 0
        """Where that count stood when it left the decode batch."""
        self.own_blocks = 0
        """KV blocks of its own, after those of ``path``; of a running decode: when it joined."""
        self.blocks: list[int] = []
        """The ids of the first of them, in order of position (the others are not named yet)."""
        self.path: list[Node] = []
        """The cached prefix that it references."""
        self.hit: list[Node] = []
        self.hit_version = -1
        self.bucket = 0
        self.admission = 0
        """Ordinal of its admission: the latest admitted is preempted first."""
        self.epoch = 0
        """Counts joins to a decode batch: tells a stale note about this sequence from a valid one."""
        self.decode_instance_id: int | None = None
        """Who decodes it, where that was chosen at dispatch; of an instance of its own kind: a hand-over."""

    @classmethod
    def handed_over(cls, request: RequestView, generated_tokens: int, limit_tokens: int | None = None) -> Sequence:
        """A request that comes prefilled: with the KV of all its tokens but the last one, which is its next input."""
        sequence = cls(request, limit_tokens, generated_tokens)
        sequence.target_tokens -= 1
        sequence.computed_tokens = sequence.target_tokens
        return sequence

    @property
    def generated_tokens(self) -> int:
        """Tokens generated so far, those of an iteration under way included."""
        if self.steps is None:
            return self.tokens_out
        return self.tokens_out + self.steps.count - self.tokens_out_base

    @property
    def context_tokens(self) -> int:
        """Tokens whose KV it holds, those of an iteration under way included."""
        if self.steps is None:
            return self.computed_tokens
        return self.computed_tokens + self.steps.count - self.tokens_out_base

    def restart(self) -> None:
        """Forget the KV: everything generated so far is prefilled again with the prompt (recompute)."""
        self.target_tokens = self.request.prompt_tokens + self.tokens_out
        self.computed_tokens = self.own_blocks = self.tokens_out_base = self.left_at = 0
        self.blocks, self.path, self.hit, self.hit_version = [], [], [], -1


class Steps:
    """Decode iterations that a lane has started."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0
