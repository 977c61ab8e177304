"""Descriptions of small instances and requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from policies.api import RequestView, Role
from policies.contracts.fakes import FakeEstimate
from policies.registry import PolicySpec
from reference_impl.core.instance import LANES, Instance
from reference_impl.core.spec import InstanceSpec
from reference_impl.engine.api import EngineRequest, SamplingParams
from reference_impl.engine.prefix_ids import prefix_ids
from reference_impl.events import EventLog
from reference_impl.latency.api import Piece, Work
from reference_impl.latency.contention import ContentionModel


@dataclass(frozen=True)
class _OneMillisecond:
    """A live host does not ask it, but a specification needs a cost model."""

    name: str = "one millisecond"
    provenance: str = "made up for tests; uncalibrated"
    needs_spread: bool = False

    def iteration_s(self, work: Work) -> float:
        return 1e-3 + 0.0 * work.decodes

    def piece(self, work: Work) -> Piece | None:
        return Piece(self.iteration_s(work), 0.0, 1 << 40)


def fake_spec(role: Role = "colocated", batch: str = "prefill_first", **fields: Any) -> InstanceSpec:
    """A small instance of that role; any field of :class:`InstanceSpec` can be given."""
    values: dict[str, Any] = {
        "latency": _OneMillisecond(),
        "contention": ContentionModel(),
        "kv_blocks": 64,
        "kv_bytes_per_token": 32.0,
        "max_context_tokens": 1024,
        "batch": PolicySpec.parse(batch, "batch"),
        "partition": PolicySpec.parse("none", "partition"),
        "block_tokens": 4,
        "max_sequences": 32,
        "max_batch_tokens": 256,
    }
    return InstanceSpec(role=role, **{**values, **fields})


def fake_builder(
    instance_id: int, spec: InstanceSpec, *, seed: int = 0, kind: type[Instance] = Instance
) -> Callable[[EventLog], Instance]:
    """What builds that instance, with new policy objects each time."""

    def build(log: EventLog) -> Instance:
        policies = tuple(spec.batch(seed * 16 + place) for place in range(len(LANES[spec.role])))
        return kind(instance_id, spec, policies, FakeEstimate(), log, spec.block_tokens)

    return build


def fake_request(
    request_id: int, prompt: Sequence[int], max_tokens: int = 8, *, generated: Sequence[int] = (), **params: Any
) -> EngineRequest:
    """A request for ``max_tokens`` greedy tokens; ``params`` are fields of :class:`SamplingParams`."""
    view = RequestView(request_id, 0.0, len(prompt), prefix_ids(prompt, 4), 4)
    chosen = {"temperature": 0.0, **params}
    return EngineRequest(view, tuple(prompt), SamplingParams(max_tokens, **chosen), tuple(generated))
