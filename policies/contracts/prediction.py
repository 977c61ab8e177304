"""The contract of length predictors."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from policies.api import Observer, PolicyEvent, PolicyKind
from policies.contracts.base import Handover, PolicyContract, keep
from policies.contracts.fakes import random_request


class PredictorContract(PolicyContract):
    kind: ClassVar[PolicyKind] = "prediction"

    def decisions(self, policy: Any, seed: int, handover: Handover = keep) -> list[object]:
        """One that observes is told of every second request before, and of some that it was never asked about."""
        rng = random.Random(seed)
        made: list[object] = []
        for request_id in range(40):
            request = random_request(rng, request_id)._replace(oracle_output_tokens=rng.randint(1, 500))
            policy = handover(policy)
            tokens = policy.predict(request if policy.oracle else request._replace(oracle_output_tokens=None))
            assert tokens is None or (type(tokens) is int and tokens >= 1), f"{tokens!r}: 1 token or more, or None"
            made.append(tokens)
            if isinstance(policy, Observer) and request_id % 2:
                policy.observe(self._end(rng, request_id - 1))
                policy.observe(self._end(rng, 1000 + request_id))
        return made

    @staticmethod
    def _end(rng: random.Random, request_id: int) -> PolicyEvent:
        if rng.random() < 0.2:
            return PolicyEvent("rejected", float(request_id), request_id, None, 0)
        return PolicyEvent("finished", float(request_id), request_id, None, rng.randint(1, 500))

    def test_only_an_oracle_depends_on_the_true_length(self) -> None:
        for seed in self.seeds:
            policy, other = self.make(seed), self.make(seed)
            if policy.oracle:
                assert "oracle" in policy.name, f"{policy.name}: a predictor that sees the true length says so"
                continue
            for request_id in range(40):
                request = random_request(random.Random(seed), request_id)
                leaked = request._replace(oracle_output_tokens=request_id + 1)
                assert policy.predict(request) == other.predict(leaked), "the prediction leaks the true output length"
