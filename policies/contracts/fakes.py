"""Views to test dispatch policies with: hand-made ones, and random ones from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from policies.api import Estimate, InstanceView, Phase, RequestView, Role


@dataclass
class FakeEstimate:
    """A linear latency model: seconds per iteration, per prompt token, per decode and per context token."""

    base_s: float = 0.01
    prompt_token_s: float = 1e-4
    decode_s_each: float = 1e-4
    context_token_s: float = 1e-7

    def prefill_s(self, new_tokens: int, context_tokens: int = 0) -> float:
        return self.base_s + new_tokens * self.prompt_token_s + context_tokens * self.context_token_s

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        return self.base_s + sequences * self.decode_s_each + context_tokens * self.context_token_s


@dataclass
class FakeCluster:
    """What a dispatch policy sees; satisfies ``policies.api.ClusterView``."""

    instances: tuple[InstanceView, ...]
    now_s: float = 0.0
    phase: Phase = "prefill"
    estimate: Estimate = field(default_factory=FakeEstimate)


def fake_instance(
    instance_id: int,
    *,
    waiting_requests: int = 0,
    running_requests: int = 0,
    waiting_tokens: int = 0,
    context_tokens: int = 0,
    free_blocks: int | None = None,
    total_blocks: int = 1000,
    block_tokens: int = 16,
    role: Role = "colocated",
    observed_at_s: float = 0.0,
) -> InstanceView:
    """An idle, ready instance unless said otherwise; ``free_blocks`` follows from ``context_tokens`` by default."""
    if free_blocks is None:
        free_blocks = total_blocks - -(-context_tokens // block_tokens)
    return InstanceView(
        instance_id=instance_id,
        role=role,
        state="ready",
        observed_at_s=observed_at_s,
        waiting_requests=waiting_requests,
        running_requests=running_requests,
        waiting_tokens=waiting_tokens,
        context_tokens=context_tokens,
        free_blocks=free_blocks,
        total_blocks=total_blocks,
        block_tokens=block_tokens,
    )


def fake_request(request_id: int = 0, prompt_tokens: int = 100, *prefix_ids: int) -> RequestView:
    """A request that arrives at second ``request_id``; each prefix id stands for 16 tokens."""
    return RequestView(request_id, float(request_id), prompt_tokens, prefix_ids, 16 if prefix_ids else 0)


def random_request(rng: random.Random, request_id: int) -> RequestView:
    """A request of up to 2000 tokens; half of them continue one of four shared prefixes, with chained ids."""
    prompt_tokens = rng.randint(1, 2000)
    if rng.random() < 0.5:
        return fake_request(request_id, prompt_tokens)
    blocks = -(-prompt_tokens // 16)
    group = rng.randrange(4)
    shared = rng.randint(0, blocks)
    own = range(1_000_000 * (request_id + 1), 1_000_000 * (request_id + 1) + blocks - shared)
    return fake_request(request_id, prompt_tokens, *range(1000 * group, 1000 * group + shared), *own)


def random_cluster(rng: random.Random, now_s: float, count: int | None = None) -> FakeCluster:
    """Instances of random load, ``count`` or one to 64, with gaps in their ids; the views are up to a second old."""
    phase: Phase = rng.choice(("prefill", "decode"))
    ids = sorted(rng.sample(range(80), count or rng.choice((1, 2, 3, 8, 64))))
    views = tuple(
        fake_instance(
            instance_id,
            waiting_requests=rng.randrange(20),
            running_requests=rng.randrange(60),
            waiting_tokens=rng.randrange(20_000),
            context_tokens=rng.randrange(16_000),
            observed_at_s=max(0.0, now_s - rng.random()),
        )
        for instance_id in ids
    )
    return FakeCluster(views, now_s, phase)
