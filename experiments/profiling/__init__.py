"""Measure an engine's iterations on this machine and fit the cost model that the simulator runs on."""
