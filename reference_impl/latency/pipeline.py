"""Pipeline parallelism: the layers of a model in stages, each on devices of its own."""

from __future__ import annotations

from reference_impl.latency.api import LatencyModel, Work
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.links import LinkKind
from reference_impl.latency.shapes import ModelShape


def stage_layers(model: ModelShape, pp: int) -> tuple[int, ...]:
    """Layers of each stage: even, the first stages taking one more where they do not divide."""
    if not 1 <= pp <= model.layers:
        raise ProfileError(f"pipeline parallelism {pp} of {model.name}'s {model.layers} layers; it must be 1 to that")
    each, left = divmod(model.layers, pp)
    return tuple(each + (stage < left) for stage in range(pp))


def stage_shares(model: ModelShape, pp: int) -> tuple[float, ...]:
    """Part of an iteration's time that each stage takes: its part of the layers."""
    return tuple(layers / model.layers for layers in stage_layers(model, pp))


class Pipelined:
    """An iteration's way through all ``pp`` stages: the stages' times, which add up to what ``whole`` says of all
    layers, and between two stages the hidden state of each token over ``link`` (None: ``whole`` has the hops, too).

    Inter-operator parallelism as DistServe has it (arXiv 2401.09670, section 3.1): an iteration takes no shorter, but
    makes room for the next one after its time in the slowest stage. That overlap is the host's
    (``reference_impl.core.spec.Pipeline``); a host without it would show the cost of a pipeline only.
    """

    def __init__(self, whole: LatencyModel, model: ModelShape, pp: int, link: LinkKind | None) -> None:
        self.whole, self.shares = whole, stage_shares(model, pp)
        self.needs_spread = whole.needs_spread
        self.name = f"pipelined({whole.name}, pp={pp})"
        self.provenance = (
            f"{whole.provenance}; pipeline of {pp} stages: each its part of the layers' time (embedding, head, engine"
            f" likewise), {_hops(link)}: uncalibrated"
        )
        self._hops_s = 0.0 if link is None else (pp - 1) * link.latency_s
        self._token_s = 0.0 if link is None else (pp - 1) * model.hidden * model.bytes_per_value / link.bytes_per_s

    def iteration_s(self, work: Work) -> float:
        """Seconds from the first stage's start to the last stage's end, no other iteration being in the way."""
        tokens = work.decodes + sum(new for new, _ in work.chunks)
        return self.whole.iteration_s(work) + self._hops_s + self._token_s * tokens

    def piece(self, work: Work) -> None:
        """None: what follows an iteration depends on the others in the stages."""


def _hops(link: LinkKind | None) -> str:
    if link is None:
        return "hops as published with the fits"
    return f"hops of every token's hidden state over {link.name} ({link.source})"
