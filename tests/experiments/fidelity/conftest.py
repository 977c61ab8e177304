"""A live host that is none: the simulator with iterations that vary from run to run, and a profiler of its engine."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from experiments.config import RunConfig
from experiments.config_build import build_cluster, build_trace
from experiments.decisions import Recorded, recording
from experiments.fidelity.config import FidelityConfig
from experiments.profiling.measure import Timing
from experiments.profiling.result import profile_json, write_profile
from experiments.profiling.run import engine_facts
from experiments.profiling.shapes import Limits, shapes
from reference_impl.events import EventLog
from reference_impl.latency.api import Piece, Work
from reference_impl.latency.measured import Coefficients, Measured
from reference_impl.simulator import simulate

TRUTH = Coefficients(0.02, (0, 4, 16, 64), (6e-3, 3e-3, 1.4e-3, 1e-3), 4e-4, 2e-3, 2.4e-7, 2e-6, 1.8e-5)
"""Without gaps: this host's iterations begin where the ones before end."""


@dataclass
class Noisy:
    """A cost model whose iterations vary."""

    cost: Measured
    noise: float
    luck: random.Random
    needs_spread: ClassVar[bool] = False
    name: ClassVar[str] = "noisy"
    provenance: ClassVar[str] = "made up for tests; uncalibrated"

    def iteration_s(self, work: Work) -> float:
        return self.cost.iteration_s(work) * max(0.5, self.luck.gauss(1.0, self.noise))

    def piece(self, _work: Work) -> Piece | None:
        return None


@dataclass
class FakeHost:
    """Satisfies ``LiveHost``."""

    slower: float = 1.0
    """How many times as long an iteration takes as the profile says."""
    noise: float = 0.03
    decisions: Recorded = "none"
    fails_at: int | None = None
    served: list[RunConfig] = field(default_factory=list)

    def run(self, config: RunConfig, folder: Path) -> None:
        if len(self.served) == self.fails_at:
            raise KeyboardInterrupt
        self.served.append(config)
        truth = Measured(replace(TRUTH, iteration_s=TRUTH.iteration_s * self.slower, token_s=self._tokens()), "tiny")
        cost = Noisy(truth, self.noise, random.Random(len(self.served)))
        cluster = build_cluster(config)
        cluster = replace(cluster, instances=tuple(replace(spec, latency=cost) for spec in cluster.instances))
        (folder / "run").mkdir()
        trace = build_trace(config.workload, config.seed)
        with (
            recording(cluster, config, folder / "run", self.decisions) as watched,
            EventLog(folder / "run" / "events.parquet", {"schema_version": 1}) as log,
        ):
            simulate(watched, trace, log)

    def _tokens(self) -> tuple[float, ...]:
        return tuple(cost * self.slower for cost in TRUTH.token_s)


@pytest.fixture
def host() -> type[FakeHost]:
    """The host's class."""
    return FakeHost


@pytest.fixture
def profiler() -> Callable[[RunConfig, Path], None]:
    """Writes the truth."""

    def write(config: RunConfig, path: Path) -> None:
        wanted = shapes(Limits(512, 12, 600, 1900))
        cost = Measured(TRUTH, "tiny")
        blank = [Timing(0, 0, place, 0, 0.0) for place in range(len(wanted))]
        timings = [timing._replace(seconds=cost.iteration_s(timing.content(wanted).work)) for timing in blank]
        write_profile(path, profile_json(engine_facts(config), wanted, timings))

    return write


WORKLOAD: dict[str, Any] = {
    "requests": 60,
    "arrivals": {"kind": "poisson", "rate_rps": 4.0},
    "prompt": {"kind": "lognormal", "mean_tokens": 40, "sigma": 0.7, "max_tokens": 300},
    "output": {"kind": "lognormal", "mean_tokens": 20, "sigma": 0.7, "max_tokens": 100},
    "prefix": {"groups": 12, "tokens": 256, "popularity": "uniform", "block_tokens": 16},
}


@pytest.fixture
def build() -> Callable[..., FidelityConfig]:
    """Two traces on three small instances; any field can be changed."""

    def made(**changes: Any) -> FidelityConfig:
        content: dict[str, Any] = {
            "title": "a study of nothing",
            "base": {
                "workload": {"synthetic": WORKLOAD},
                "fleet": {
                    "model": "tiny",
                    "groups": [{"count": 3, "role": "colocated"}],
                    "kv_blocks": 120,
                    "max_sequences": 12,
                    "max_batch_tokens": 512,
                },
                "policies": {"dispatch": "round_robin", "batch": "prefill_first"},
            },
            "traces": {
                "prefixes": {},
                "no prefixes": {"workload": {"synthetic": {"prefix": None, "prompt": "fixed:tokens_each=200"}}},
            },
            "dispatch": ["round_robin", "random", "least_loaded:metric=tokens", "prefix_affinity"],
            "batch": ["prefill_first", "chunked_prefill:chunk_tokens=32", "decode_first"],
            "repeats": 3,
            "warmup_requests": 3,
            "calibration": {"other requests": {"workload": {"synthetic": {"requests": 20}}, "seed": 99}},
        }
        return FidelityConfig.model_validate({**content, **changes})

    return made
