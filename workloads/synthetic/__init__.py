"""Deterministic synthetic workloads: arrival processes x length distributions x shared prefixes."""

from __future__ import annotations

from workloads.synthetic.arrivals import ARRIVALS, Arrivals, Constant, Gamma, OnOff, Poisson, Replayed
from workloads.synthetic.lengths import LENGTHS, Fixed, Lengths, Lognormal, Normal, QuantileTable, Recorded, Uniform
from workloads.synthetic.prefixes import SharedPrefix
from workloads.synthetic.rates import Diurnal, Piecewise
from workloads.synthetic.spec import SyntheticSpec, synthesise

__all__ = [
    "ARRIVALS",
    "LENGTHS",
    "Arrivals",
    "Constant",
    "Diurnal",
    "Fixed",
    "Gamma",
    "Lengths",
    "Lognormal",
    "Normal",
    "OnOff",
    "Piecewise",
    "Poisson",
    "QuantileTable",
    "Recorded",
    "Replayed",
    "SharedPrefix",
    "SyntheticSpec",
    "Uniform",
    "synthesise",
]
