"""Deterministic synthetic workloads: arrival processes x length distributions x shared prefixes."""

from __future__ import annotations

from workloads.synthetic.arrivals import ARRIVALS, Arrivals, Constant, Gamma, OnOff, Poisson, Replayed
from workloads.synthetic.lengths import LENGTHS, Fixed, Lengths, Lognormal, QuantileTable
from workloads.synthetic.prefixes import SharedPrefix
from workloads.synthetic.spec import SyntheticSpec, synthesise

__all__ = [
    "ARRIVALS",
    "LENGTHS",
    "Arrivals",
    "Constant",
    "Fixed",
    "Gamma",
    "Lengths",
    "Lognormal",
    "OnOff",
    "Poisson",
    "QuantileTable",
    "Replayed",
    "SharedPrefix",
    "SyntheticSpec",
    "synthesise",
]
