"""Arrival processes. Each turns a generator into ascending arrival times; the same generator gives the same times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from workloads.errors import TraceError
from workloads.synthetic import checks
from workloads.synthetic.rates import Diurnal, Piecewise

_MAX_CYCLES = 10_000_000


class Arrivals(Protocol):
    """When requests come."""

    kind: ClassVar[str]

    def times_s(self, requests: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """``requests`` ascending times in seconds, >= 0."""
        ...


@dataclass(frozen=True)
class Poisson:
    """Independent exponential gaps, never clipped; the first gap counts from time 0."""

    kind: ClassVar[str] = "poisson"
    rate_rps: float

    def __post_init__(self) -> None:
        checks.rate(self, rate_rps=self.rate_rps)

    def times_s(self, requests: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """See :class:`Arrivals`."""
        return np.cumsum(rng.exponential(1.0 / self.rate_rps, size=requests))


@dataclass(frozen=True)
class Gamma:
    """Independent gamma gaps with coefficient of variation ``cv``: 1 is Poisson, more is burstier, less is calmer."""

    kind: ClassVar[str] = "gamma"
    rate_rps: float
    cv: float

    def __post_init__(self) -> None:
        checks.rate(self, rate_rps=self.rate_rps)
        checks.between(self, 1e-3, 1e3, cv=self.cv)

    def times_s(self, requests: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """See :class:`Arrivals`. Shape 1/cv^2 and scale cv^2/rate give mean 1/rate and that variation."""
        return np.cumsum(rng.gamma(self.cv**-2, self.cv**2 / self.rate_rps, size=requests))


@dataclass(frozen=True)
class Constant:
    """One request every 1/rate seconds, the first at time 0."""

    kind: ClassVar[str] = "constant"
    rate_rps: float

    def __post_init__(self) -> None:
        checks.rate(self, rate_rps=self.rate_rps)

    def times_s(self, requests: int, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG002 - the protocol's signature
        """See :class:`Arrivals`. Draws nothing."""
        return np.arange(requests) / self.rate_rps


@dataclass(frozen=True)
class OnOff:
    """Poisson bursts: exponential on and off periods alternate, nothing arrives while off.

    ``rate_rps`` is the mean over both; ``on_fraction`` of the time is on (there the rate is rate_rps / on_fraction);
    ``cycle_s`` is the mean length of an on period plus an off period. It starts in its stationary state.
    """

    kind: ClassVar[str] = "on_off"
    rate_rps: float
    on_fraction: float
    cycle_s: float

    def __post_init__(self) -> None:
        checks.rate(self, rate_rps=self.rate_rps)
        checks.positive(self, cycle_s=self.cycle_s)
        checks.between(self, 1e-6, 1.0, on_fraction=self.on_fraction)

    def times_s(self, requests: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """See :class:`Arrivals`. A Poisson process on a clock that runs only while on, then the off periods put in."""
        if self.rate_rps * self.cycle_s * _MAX_CYCLES < requests:
            allowed = f"at most {_MAX_CYCLES} cycles for the {requests} requests"
            raise TraceError(f"OnOff: cycle_s={self.cycle_s!r} at {self.rate_rps!r} requests/s (allowed: {allowed})")
        burst_rate_rps = self.rate_rps / self.on_fraction
        while_on_s = np.cumsum(rng.exponential(1.0 / burst_rate_rps, size=requests))
        starts_on = rng.random() < self.on_fraction
        on_s, off_s = self._periods(float(while_on_s[-1]), rng)
        ends_on_s = np.cumsum(on_s)
        waited_s = np.concatenate(([0.0], np.cumsum(off_s)))
        periods_before = np.searchsorted(ends_on_s, while_on_s, side="left")
        first_off_s = 0.0 if starts_on else rng.exponential((1.0 - self.on_fraction) * self.cycle_s)
        return while_on_s + waited_s[periods_before] + first_off_s

    def _periods(self, needed_on_s: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """On and off periods, in pairs, until the on periods last ``needed_on_s`` together."""
        mean_on_s, mean_off_s = self.on_fraction * self.cycle_s, (1.0 - self.on_fraction) * self.cycle_s
        on_s = np.empty(0)
        while on_s.sum() < needed_on_s:
            missing = int((needed_on_s - on_s.sum()) / mean_on_s) + 16
            on_s = np.concatenate((on_s, rng.exponential(mean_on_s, size=missing)))
        return on_s, rng.exponential(mean_off_s, size=len(on_s))


@dataclass(frozen=True)
class Replayed:
    """The arrival times of another trace (a path or a name), ``rate_factor`` times as fast."""

    kind: ClassVar[str] = "replayed"
    trace: str
    rate_factor: float = 1.0

    def __post_init__(self) -> None:
        checks.positive(self, rate_factor=self.rate_factor)
        if not isinstance(self.trace, str) or not self.trace:
            raise TraceError(f"Replayed: trace={self.trace!r} (allowed: the path or the name of a trace)")

    def times_s(self, requests: int, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG002 - the protocol's signature
        """See :class:`Arrivals`. Draws nothing; a trace with fewer requests is refused."""
        from workloads.catalog import open_trace  # the catalogue generates bundled workloads with this module

        recorded = open_trace(self.trace)
        if len(recorded) < requests:
            allowed = f"at most {len(recorded)}, as many as {recorded.name} has"
            raise TraceError(f"Replayed: {requests} requests (allowed: {allowed})")
        return recorded.arrival_s[:requests] / self.rate_factor


ARRIVALS: dict[str, type[Arrivals]] = {
    kind.kind: kind for kind in (Poisson, Gamma, Constant, OnOff, Diurnal, Piecewise, Replayed)
}
