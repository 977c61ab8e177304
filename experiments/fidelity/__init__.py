"""Is the simulator true to the deployment? The same trace and policies live and simulated, compared."""

from experiments.fidelity.config import FidelityConfig
from experiments.fidelity.study import Study, run_study

__all__ = ["FidelityConfig", "Study", "run_study"]
