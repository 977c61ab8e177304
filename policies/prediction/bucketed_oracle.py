"""A classifier into length buckets with a stated accuracy, made from the true length.

Idea
    With probability ``accuracy`` the answer is the middle of the true length's bucket; else that of another bucket,
    which the error shape chooses: a direct neighbour; one at distance d with probability 1/2^d; or any below
    ``most_tokens``, all alike. A bucket below 0 is reflected to the same distance above. Shows what a policy gains from
    a predictor of that quality, without one: no system can deploy it.
Reads
    The true output length, which a host shows only to a predictor that declares ``oracle``.
Parameters
    bucket_tokens: width of a bucket.
    accuracy: share of the requests that get their own bucket.
    error: neighbour, geometric or uniform.
    most_tokens: longest output that a uniform error answers.
Source
    DeepServe's length predictor (arXiv 2501.14417): buckets of 128 tokens, 84.9 % right. It does not print how the
    others err: the shapes are OURS.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import Choice, PolicyKind, Range, RequestView


@dataclass
class BucketedOracle:
    kind: ClassVar[PolicyKind] = "prediction"
    name: ClassVar[str] = "bucketed_oracle"
    oracle: ClassVar[bool] = True
    bucket_tokens: Annotated[int, Range(1, 65536, log=True)] = 128
    accuracy: Annotated[float, Range(0, 1)] = 0.849
    error: Annotated[str, Choice("neighbour", "geometric", "uniform")] = "neighbour"
    most_tokens: Annotated[int, Range(1, 1_000_000, log=True)] = 4096
    rng: random.Random = field(init=False, repr=False)

    def predict(self, request: RequestView) -> int | None:
        if request.oracle_output_tokens is None:
            return None
        bucket = (request.oracle_output_tokens - 1) // self.bucket_tokens
        if self.rng.random() >= self.accuracy:
            bucket = self._wrong(bucket)
        return bucket * self.bucket_tokens + (self.bucket_tokens + 1) // 2

    def _wrong(self, bucket: int) -> int:
        """Another bucket than the true one."""
        if self.error == "uniform":
            others = max((self.most_tokens - 1) // self.bucket_tokens, 1)
            drawn = self.rng.randrange(others)
            return drawn + (drawn >= bucket)
        distance = 1
        while self.error == "geometric" and self.rng.random() < 0.5:
            distance += 1
        below = bucket - distance
        return below if below >= 0 and self.rng.random() < 0.5 else bucket + distance
