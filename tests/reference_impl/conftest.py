"""Deployments small enough to reason about, shared by the tests of core and simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from policies.api import LaneKind, Role
from policies.registry import PolicySpec
from reference_impl.core.spec import ClusterSpec, InstanceSpec, Link
from reference_impl.latency.api import Piece, Work
from workloads.trace import Trace


@dataclass(frozen=True)
class Affine:
    """Iteration time as a sum of terms in the batch's totals: exact for the eye."""

    base_s: float = 0.01
    per_chunk_token_s: float = 1e-4
    per_decode_s: float = 0.0
    per_context_token_s: float = 0.0
    per_pair_s: float = 0.0
    pieces: bool = True
    needs_spread: bool = False
    name: str = "affine"
    provenance: str = "made up for tests; uncalibrated"

    def iteration_s(self, work: Work) -> float:
        time_s = self.base_s + self.per_decode_s * work.decodes + self.per_context_token_s * work.decode_context_tokens
        for new, computed in work.chunks:
            time_s += self.per_chunk_token_s * new + self.per_pair_s * new * (computed + new / 2)
        return time_s

    def piece(self, work: Work) -> Piece | None:
        if not self.pieces:
            return None
        growth_s = self.per_context_token_s * work.decodes + self.per_pair_s * sum(n * n for n, _ in work.chunks)
        return Piece(self.iteration_s(work), growth_s, 1 << 40)


@dataclass(frozen=True)
class ProportionalShares:
    """A lane gets its share of the device; running beside the other lane costs ``gamma`` on top."""

    gamma: float = 0.1

    def rate(self, lane: LaneKind, own_pct: int, other_pct: int, other_busy: bool) -> float:
        total = own_pct + other_pct
        share = own_pct / total if other_busy and total > 100 else own_pct / 100
        return share / (1 + self.gamma) if other_busy else share


@pytest.fixture
def affine() -> type[Affine]:
    """The model class."""
    return Affine


@pytest.fixture
def deploy() -> Callable[..., ClusterSpec]:
    """Build a deployment: roles, policies by name, KV blocks, and any field of the two specs."""

    def build(
        *roles: Role,
        batch: str = "prefill_first",
        dispatch: str = "least_loaded:metric=tokens",
        partition: str = "none",
        predictor: str | None = None,
        latency: Any = None,
        link: Link | None = None,
        spec: dict[str, Any] | None = None,
        **instance: Any,
    ) -> ClusterSpec:
        fields: dict[str, Any] = {
            "latency": latency or Affine(),
            "contention": ProportionalShares(),
            "kv_blocks": 1000,
            "kv_bytes_per_token": 1000.0,
            "max_context_tokens": 1 << 20,
            "batch": PolicySpec.parse(batch, "batch"),
            "partition": PolicySpec.parse(partition, "partition"),
        }
        fields.update(instance)
        return ClusterSpec(
            instances=tuple(InstanceSpec(role=role, **fields) for role in roles),
            dispatch=PolicySpec.parse(dispatch, "dispatch").build(0),
            predictor=PolicySpec.parse(predictor, "prediction").build(0) if predictor else None,
            scaling=PolicySpec.parse("fixed", "scaling").build(0),
            link=link or Link(1e9, 1e-3),
            **(spec or {}),
        )

    return build


@pytest.fixture
def requests() -> Callable[..., Trace]:
    """Build a trace from (arrival, prompt, output) rows, optionally with prefix ids."""

    def build(*rows: tuple[float, int, int], ids: Any = None, block_tokens: int | None = None) -> Trace:
        columns = list(zip(*rows, strict=True))
        return Trace(
            name="hand-made",
            arrival_s=np.array(columns[0], np.float64),
            prompt_tokens=np.array(columns[1], np.int32),
            output_tokens=np.array(columns[2], np.int32),
            prefix_ids=ids,
            prefix_block_tokens=block_tokens,
        )

    return build
