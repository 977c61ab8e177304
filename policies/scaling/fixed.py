"""As many instances as configured, always.

Idea
    The baseline without elasticity.
Reads
    The configured number of instances of each role.
Parameters
    None.
Source
    None; a null object.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import ClassVar

from policies.api import FleetView, PolicyKind, ScalePlan


@dataclass
class Fixed:
    kind: ClassVar[PolicyKind] = "scaling"
    name: ClassVar[str] = "fixed"
    interval_s: ClassVar[float | None] = None
    rng: random.Random = field(init=False, repr=False)

    def scale(self, fleet: FleetView) -> ScalePlan:
        return ScalePlan(dict(fleet.configured))
