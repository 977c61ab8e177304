"""``semiflow calibrate``: from a measured profile to coefficients, and their error on rows that were kept aside."""

from experiments.calibration.result import Calibration
from experiments.calibration.run import calibrate, write_coefficients

__all__ = ["Calibration", "calibrate", "write_coefficients"]
