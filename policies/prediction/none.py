"""No prediction.

Idea
    The output length is unknown, as it is to a serving system that does not guess.
Reads
    Nothing.
Parameters
    None.
Source
    None; a null object.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import ClassVar

from policies.api import PolicyKind, RequestView


@dataclass
class NoPrediction:
    kind: ClassVar[PolicyKind] = "prediction"
    name: ClassVar[str] = "none"
    oracle: ClassVar[bool] = False
    rng: random.Random = field(init=False, repr=False)

    def predict(self, request: RequestView) -> int | None:
        return None
