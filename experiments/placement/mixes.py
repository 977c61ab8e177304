"""From the goodput of each phase alone to mixes of instances: arithmetic without a simulator.

Source: DistServe, arXiv 2401.09670 (OSDI'24), Algorithm 1 (the best parallelism of each phase by goodput per device,
replicated until it carries the rate) and simdistserve/simulate.py (mixes ranked by rate per device, then by devices).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

Goodputs = Mapping[int, float]
"""Degree of tensor parallelism -> requests per second that one instance of it carries; 0 where none."""


class Mix(NamedTuple):
    """So many prefill and decode instances of these degrees."""

    prefills: int
    prefill_tp: int
    decodes: int
    decode_tp: int

    @property
    def devices(self) -> int:
        """Devices of all instances."""
        return self.prefills * self.prefill_tp + self.decodes * self.decode_tp

    def __str__(self) -> str:
        return f"{self.prefills} prefill (tp {self.prefill_tp}) + {self.decodes} decode (tp {self.decode_tp})"


class Ranked(NamedTuple):
    """A mix and the rate that its phases carry alone."""

    mix: Mix
    rps: float

    @property
    def rps_per_device(self) -> float:
        """What mixes are ranked by."""
        return self.rps / self.mix.devices


def best_degree(goodputs: Goodputs) -> int | None:
    """The degree with the highest goodput per device, the smallest of equals; None where nothing is carried."""
    carrying = [tp for tp, rps in goodputs.items() if rps > 0]
    return min(carrying, key=lambda tp: (-goodputs[tp] / tp, tp), default=None)


def ranked(prefill: Goodputs, decode: Goodputs, devices: int) -> list[Ranked]:
    """Every mix of at most ``devices`` devices that carries something, the highest rate per device first.

    A mix carries what its slower phase does. Of equal ones the smaller comes first.
    """
    found = [
        Ranked(mix, min(mix.prefills * prefill[mix.prefill_tp], mix.decodes * decode[mix.decode_tp]))
        for mix in _mixes(prefill, decode, devices)
    ]
    return sorted((each for each in found if each.rps > 0), key=lambda each: (-each.rps_per_device, each.mix.devices))


def replicated(prefill: Goodputs, decode: Goodputs, rate_rps: float) -> Mix | None:
    """Algorithm 1: each phase at its best degree, as many as ``rate_rps`` takes; None where a phase carries nothing."""
    prefill_tp, decode_tp = best_degree(prefill), best_degree(decode)
    if prefill_tp is None or decode_tp is None:
        return None
    counts = [math.ceil(rate_rps / goodput) for goodput in (prefill[prefill_tp], decode[decode_tp])]
    return Mix(counts[0], prefill_tp, counts[1], decode_tp)


def _mixes(prefill: Goodputs, decode: Goodputs, devices: int) -> Iterator[Mix]:
    for prefill_tp in prefill:
        for prefills in range(1, devices // prefill_tp + 1):
            for decode_tp in decode:
                for decodes in range(1, (devices - prefills * prefill_tp) // decode_tp + 1):
                    yield Mix(prefills, prefill_tp, decodes, decode_tp)
