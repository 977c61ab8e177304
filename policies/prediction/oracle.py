"""The true output length.

Idea
    An upper bound: what a policy that uses predictions could gain from a perfect one. No real system has it.
Reads
    The true output length, which a host shows only to a predictor that declares ``oracle``.
Parameters
    None.
Source
    None; a bound, not a policy to deploy.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import ClassVar

from policies.api import PolicyKind, RequestView


@dataclass
class Oracle:
    kind: ClassVar[PolicyKind] = "prediction"
    name: ClassVar[str] = "oracle"
    oracle: ClassVar[bool] = True
    rng: random.Random = field(init=False, repr=False)

    def predict(self, request: RequestView) -> int | None:
        return request.oracle_output_tokens
