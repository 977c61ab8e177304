"""``semiflow calibrate``: from a measured profile to coefficients, and their error on rows that were kept aside."""

from experiments.calibration.run import Calibration, calibrate, write_coefficients

__all__ = ["Calibration", "calibrate", "write_coefficients"]
