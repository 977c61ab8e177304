"""Prompt and token machines chosen together, and machines lent to the other phase when one pool is overloaded.

Idea
    Instances that can do both phases are kept apart: a prompt pool, a token pool, and a mixed pool, empty at first.
    A request gets the prompt machine with the fewest pending tokens and the token machine with the least memory
    promised; its KV moves from one to the other. Where every queue of the prompt pool and of the mixed pool is long, a
    token machine joins the mixed pool and takes the prompt beside its tokens; where no memory is left, a prompt machine
    joins it and takes the tokens. A machine of the mixed pool that has nothing left returns to its own. Where nobody is
    left to lend, the request stays on one machine, as without pools.
Reads
    Role, waiting requests and KV capacity of every instance; the request's prompt length and predicted output length
    (without a predictor outputs count as nothing); first tokens and ends. What is pending where it counts itself.
    Instances of other roles take no part while there are two colocated ones.
Parameters
    prompt_instances: size of the prompt pool, lowest ids first; 0: no pools, the fewest pending tokens of all (the
        paper's baselines); none: half of the instances.
    prompt_queue_tokens: a queue is long if somebody waits and its pending tokens and the new prompt exceed this.
Source
    Splitwise, arXiv 2311.18677 (ISCA'24); the rules in detail are splitwise-sim's (MIT), scheduler.py,
    MixedPoolScheduler (8192 tokens) and TokenJSQScheduler. There a lent machine returns once it idles, as here.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, NamedTuple

from policies.api import ClusterView, Dispatch, InstanceView, PolicyEvent, PolicyKind, Range, RequestView
from policies.dispatch.load import least_kv


class _Placed(NamedTuple):
    """One request, and what it still weighs on its two machines."""

    prompt_id: int
    token_id: int
    prompt_tokens: int
    """0 once its prompt is computed."""
    held_tokens: int
    """KV that it is to have on its token machine at most."""


class _Pools(NamedTuple):
    prompt: list[InstanceView]
    mixed: list[InstanceView]
    token: list[InstanceView]


@dataclass
class SplitwiseMixed:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "splitwise_mixed"
    prompt_instances: Annotated[int | None, Range(0, 10_000)] = None
    prompt_queue_tokens: Annotated[int, Range(1, 2**24, log=True)] = 8192
    rng: random.Random = field(init=False, repr=False)
    _placed: dict[int, _Placed] = field(init=False, repr=False, default_factory=dict)
    _pending: dict[int, int] = field(init=False, repr=False, default_factory=lambda: defaultdict(int))
    """By instance: prompt tokens that are not computed, and one for each request that decodes there or will."""
    _held: dict[int, int] = field(init=False, repr=False, default_factory=lambda: defaultdict(int))
    """By instance: KV tokens of prompts under way and of the requests whose token machine it is."""
    _lent: set[int] = field(init=False, repr=False, default_factory=set)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        if cluster.phase == "decode":
            return Dispatch(least_kv(cluster.instances).instance_id)
        self._forget(request.request_id)
        members = [view for view in cluster.instances if view.role == "colocated"]
        if self.prompt_instances == 0 or len(members) < 2:
            prompt = token = min(members or cluster.instances, key=self._pending_on)
            reason = "fewest pending tokens"
        else:
            prompt, token, reason = self._choose(request, self._pools(members))
        placed = _Placed(prompt.instance_id, token.instance_id, request.prompt_tokens, _most_tokens(request))
        self._place(request.request_id, placed)
        return Dispatch(prompt.instance_id, None if token is prompt else token.instance_id, reason)

    def observe(self, event: PolicyEvent) -> None:
        """A prompt is computed, or a request is over."""
        placed = self._placed.get(event.request_id)
        if event.kind == "first_token" and placed is not None:
            self._forget(event.request_id)
            self._place(event.request_id, placed._replace(prompt_tokens=0))
        elif event.kind in ("finished", "rejected"):
            self._forget(event.request_id)

    def _pools(self, members: list[InstanceView]) -> _Pools:
        size = (len(members) + 1) // 2 if self.prompt_instances is None else self.prompt_instances
        size = min(size, len(members) - 1)
        self._lent = {view.instance_id for view in members if view.instance_id in self._lent and self._pending_on(view)}
        prompt, token = (
            [view for view in pool if view.instance_id not in self._lent] for pool in (members[:size], members[size:])
        )
        return _Pools(prompt, [view for view in members if view.instance_id in self._lent], token)

    def _choose(self, request: RequestView, pools: _Pools) -> tuple[InstanceView, InstanceView, str]:
        prompt = self._short_queue(pools.prompt, request) or self._short_queue(pools.mixed, request)
        token = self._enough_memory(pools.token, request) or self._enough_memory(pools.mixed, request)
        reason = "both pools"
        if prompt is None and pools.token:
            prompt = self._lend(pools.token, pools.mixed, self._pending_on)
            reason = f"token machine {prompt.instance_id} lent for prompts"
        if token is None and pools.prompt:
            token = self._lend(pools.prompt, pools.mixed, self._held_on)
            reason = f"prompt machine {token.instance_id} lent for tokens"
        if prompt is None or token is None:
            prompt = token = min((*pools.prompt, *pools.mixed, *pools.token), key=self._pending_on)
            reason = "nobody left to lend"
        return prompt, token, reason

    def _short_queue(self, pool: list[InstanceView], request: RequestView) -> InstanceView | None:
        """The machine with the fewest pending tokens; None where even its queue is long."""
        best = min(pool, key=self._pending_on, default=None)
        if best is None or not best.waiting_requests:
            return best
        return best if self._pending_on(best) + request.prompt_tokens <= self.prompt_queue_tokens else None

    def _enough_memory(self, pool: list[InstanceView], request: RequestView) -> InstanceView | None:
        """The machine with the least memory promised; None where even that has no room for the request."""
        best = min(pool, key=self._held_on, default=None)
        if best is None or self._held_on(best) + _most_tokens(request) >= best.total_blocks * best.block_tokens:
            return None
        return best

    def _lend(
        self, pool: list[InstanceView], mixed: list[InstanceView], load: Callable[[InstanceView], int]
    ) -> InstanceView:
        view = min(pool, key=load)
        pool.remove(view)
        mixed.append(view)
        self._lent.add(view.instance_id)
        return view

    def _place(self, request_id: int, placed: _Placed) -> None:
        self._placed[request_id] = placed
        self._weigh(placed, 1)

    def _forget(self, request_id: int) -> None:
        placed = self._placed.pop(request_id, None)
        if placed is not None:
            self._weigh(placed, -1)

    def _weigh(self, placed: _Placed, sign: int) -> None:
        """Add a request to what its machines have, or (``sign`` -1) take it off."""
        self._pending[placed.prompt_id] += sign * placed.prompt_tokens
        self._pending[placed.token_id] += sign
        self._held[placed.token_id] += sign * placed.held_tokens
        if placed.prompt_id != placed.token_id:
            self._held[placed.prompt_id] += sign * placed.prompt_tokens

    def _pending_on(self, view: InstanceView) -> int:
        return self._pending[view.instance_id]

    def _held_on(self, view: InstanceView) -> int:
        return self._held[view.instance_id]


def _most_tokens(request: RequestView) -> int:
    return request.prompt_tokens + (request.predicted_output_tokens or 0)
