"""The simulator: the deployment's own instances and policies on a virtual clock."""

from reference_impl.simulator.simulation import Simulation, simulate
from reference_impl.simulator.summary import Summary

__all__ = ["Simulation", "Summary", "simulate"]
