"""One line of the benchmark's table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple


class Sample(NamedTuple):
    """One run of a case and of the reference loop right beside it, in CPU seconds."""

    cpu_s: float
    reference_s: float


@dataclass(frozen=True)
class Figure:
    """A measured value with the floor and the aim of issue 2; None where there is none."""

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"]
    reference_loops: float | None
    """CPU time of one run in units of the reference loop beside it: what versions are compared by; lower is better."""
    runs: int
    floor: float | None = None
    aim: float | None = None
    note: str = ""

    @property
    def reached(self) -> Literal["aim", "floor", "missed"] | None:
        """Which of the two targets the value meets; None where there is no target."""
        if self.floor is None:
            return None
        if self.aim is not None and self._meets(self.aim):
            return "aim"
        return "floor" if self._meets(self.floor) else "missed"

    def _meets(self, target: float) -> bool:
        return self.value >= target if self.better == "higher" else self.value <= target


def median_cpu_s(samples: list[Sample]) -> float:
    """Median of the cases' own times."""
    return median(sample.cpu_s for sample in samples)


def median_loops(samples: list[Sample]) -> float:
    """Median of the paired ratios."""
    return median(sample.cpu_s / sample.reference_s for sample in samples)
