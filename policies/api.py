"""The policies' contract: read-only views in, plain decisions out.

A policy is a dataclass with plain ``def`` methods.  It reads its arguments, its own fields and ``self.rng``
(a ``random.Random`` that the host assigns before the first call); it has no clock, no I/O, no await and no global
randomness.  Same seed and same views give the same decisions.  It survives ``pickle`` in mid-run and names only
ids that it was shown.  The host validates each decision; one that cannot be carried out raises :class:`PolicyError`.

This module is all that a policy imports: the protocols and parameter annotations are defined here, the views in
:mod:`policies.views`, the decisions in :mod:`policies.decisions`. Units: seconds, tokens, KV blocks, percent of one
device's compute.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from policies.decisions import DECODE_ALL as DECODE_ALL
from policies.decisions import IDLE as IDLE
from policies.decisions import BatchPlan as BatchPlan
from policies.decisions import Chunk as Chunk
from policies.decisions import Dispatch as Dispatch
from policies.decisions import Partition as Partition
from policies.decisions import PolicyError as PolicyError
from policies.decisions import Reject as Reject
from policies.decisions import Role as Role
from policies.decisions import ScalePlan as ScalePlan
from policies.views import ClusterView as ClusterView
from policies.views import Estimate as Estimate
from policies.views import FleetView as FleetView
from policies.views import InstanceState as InstanceState
from policies.views import InstanceView as InstanceView
from policies.views import LaneKind as LaneKind
from policies.views import LaneView as LaneView
from policies.views import PartitionView as PartitionView
from policies.views import Phase as Phase
from policies.views import PolicyEvent as PolicyEvent
from policies.views import Queue as Queue
from policies.views import RequestView as RequestView
from policies.views import SequenceView as SequenceView
from policies.views import ServedView as ServedView

PolicyKind = Literal["dispatch", "batch", "partition", "scaling", "prediction"]


@dataclass(frozen=True)
class Range:
    """Closed interval of a numeric policy parameter: ``Annotated[float, Range(0, 4)]``. At once the check of a config
    value and the search space of a tuner (``log`` asks for a log-uniform search)."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """The allowed values of a categorical policy parameter: ``Annotated[str, Choice("requests", "tokens")]``."""

    values: tuple[str, ...]

    def __init__(self, *values: str) -> None:
        object.__setattr__(self, "values", values)


class Policy(Protocol):
    """What every kind shares. ``kind`` and ``name`` are class attributes; the fields are the parameters."""

    kind: ClassVar[PolicyKind]
    name: ClassVar[str]
    rng: random.Random


class DispatchPolicy(Policy, Protocol):
    """Job executor: which instance serves this request."""

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch | Reject | None:
        """Choose one of ``cluster.instances``; None leaves the request queued at the job executor."""
        ...


class BatchPolicy(Policy, Protocol):
    """One lane's next iteration. A host that plans ahead may drop an answer (one that preempts) and ask again later."""

    def plan(self, lane: LaneView) -> BatchPlan: ...


class PartitionPolicy(Policy, Protocol):
    """semi-PD: compute shares of the two lanes. One object per instance."""

    @property
    def window_s(self) -> float | None:
        """Seconds between two calls of :meth:`partition`; None: never called."""
        ...

    def initial(self) -> Partition: ...
    def partition(self, view: PartitionView) -> Partition: ...


class ScalingPolicy(Policy, Protocol):
    """Cluster manager: how many instances of each role."""

    @property
    def interval_s(self) -> float | None:
        """Seconds between two calls; None: called once, at the start."""
        ...

    def scale(self, fleet: FleetView) -> ScalePlan: ...


class LengthPredictor(Policy, Protocol):
    """Expected output length. Never sees the true one beforehand, unless ``oracle`` is True (then its name says so).

    One that learns is an :class:`Observer` too: it is told ``finished`` and ``rejected``, with the host's report delay.
    """

    oracle: ClassVar[bool]

    def predict(self, request: RequestView) -> int | None: ...


@runtime_checkable
class Observer(Protocol):
    """A dispatch policy or a length predictor that keeps counts of what happened to the requests that it was asked
    about, and may hear of others."""

    def observe(self, event: PolicyEvent) -> None: ...
