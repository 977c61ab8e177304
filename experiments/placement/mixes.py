"""From the goodput of each phase alone to mixes of instances: arithmetic without a simulator.

Source: DistServe, arXiv 2401.09670 (OSDI'24), Algorithm 1 (the best parallelism of each phase by goodput per device,
replicated until it carries the rate) and simdistserve/simulate.py (mixes ranked by rate per device, then by devices).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Parallelism(NamedTuple):
    """Of one instance: ``pp`` stages of ``tp`` devices (inter- and intra-operator parallelism)."""

    tp: int
    pp: int = 1

    @property
    def devices(self) -> int:
        """Devices of the instance."""
        return self.tp * self.pp

    def __str__(self) -> str:
        return f"tp {self.tp} pp {self.pp}"


Goodputs = Mapping[Parallelism, float]
"""Requests per second that one instance of each carries; 0 where none."""


class Mix(NamedTuple):
    """So many prefill and decode instances of these parallelisms."""

    prefills: int
    prefill: Parallelism
    decodes: int
    decode: Parallelism

    @property
    def devices(self) -> int:
        """Devices of all instances."""
        return self.prefills * self.prefill.devices + self.decodes * self.decode.devices

    def __str__(self) -> str:
        return f"{self.prefills} prefill ({self.prefill}) + {self.decodes} decode ({self.decode})"

    def to_json(self) -> dict[str, int]:
        """Ready for JSON."""
        (prefill_tp, prefill_pp), (decode_tp, decode_pp) = self.prefill, self.decode
        prefill = {"prefills": self.prefills, "prefill_tp": prefill_tp, "prefill_pp": prefill_pp}
        return {**prefill, "decodes": self.decodes, "decode_tp": decode_tp, "decode_pp": decode_pp}


class Ranked(NamedTuple):
    """A mix and the rate that its phases carry alone."""

    mix: Mix
    rps: float

    @property
    def rps_per_device(self) -> float:
        """What mixes are ranked by."""
        return self.rps / self.mix.devices


def best_parallelism(goodputs: Goodputs) -> Parallelism | None:
    """The one with the highest goodput per device, of equals that with the fewest devices and stages; None where
    nothing is carried."""
    carrying = [each for each, rps in goodputs.items() if rps > 0]
    return min(carrying, key=lambda each: (-goodputs[each] / each.devices, each.devices, each.pp), default=None)


def ranked(prefill: Goodputs, decode: Goodputs, devices: int) -> list[Ranked]:
    """Every mix of at most ``devices`` devices that carries something, the highest rate per device first.

    A mix carries what its slower phase does. Of equal ones the smaller comes first.
    """
    found = [
        Ranked(mix, min(mix.prefills * prefill[mix.prefill], mix.decodes * decode[mix.decode]))
        for mix in _mixes(prefill, decode, devices)
    ]
    return sorted((each for each in found if each.rps > 0), key=lambda each: (-each.rps_per_device, each.mix.devices))


def replicated(prefill: Goodputs, decode: Goodputs, rate_rps: float) -> Mix | None:
    """Algorithm 1: each phase at its best, as many as ``rate_rps`` takes; None where a phase carries nothing."""
    best_prefill, best_decode = best_parallelism(prefill), best_parallelism(decode)
    if best_prefill is None or best_decode is None:
        return None
    counts = [math.ceil(rate_rps / goodput) for goodput in (prefill[best_prefill], decode[best_decode])]
    return Mix(counts[0], best_prefill, counts[1], best_decode)


def _mixes(prefill: Goodputs, decode: Goodputs, devices: int) -> Iterator[Mix]:
    for one in prefill:
        for prefills in range(1, devices // one.devices + 1):
            for other in decode:
                for decodes in range(1, (devices - prefills * one.devices) // other.devices + 1):
                    yield Mix(prefills, one, decodes, other)
