"""The same length for every request.

Idea
    The mean output length, which an operator knows of the traffic. It is a parameter; ``mean_learned`` learns it.
    Policies that order by prediction fall back to arrivals.
Reads
    Nothing.
Parameters
    tokens: mean output length.
Source
    None; the usual baseline of length predictors. The default is near the mean of ShareGPT's answers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import PolicyKind, Range, RequestView


@dataclass
class Mean:
    kind: ClassVar[PolicyKind] = "prediction"
    name: ClassVar[str] = "mean"
    oracle: ClassVar[bool] = False
    tokens: Annotated[int, Range(1, 1_000_000, log=True)] = 256
    rng: random.Random = field(init=False, repr=False)

    def predict(self, request: RequestView) -> int | None:
        return self.tokens
