"""The simulator: the deployment's own instances and policies on a virtual clock."""

from reference_impl.simulator.simulation import Simulation, Summary, simulate

__all__ = ["Simulation", "Summary", "simulate"]
