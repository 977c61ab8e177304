"""The simulator against queueing theory: M/M/1, M/D/1 and processor sharing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.simulator import simulate
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Floats = NDArray[np.float64]
REQUESTS = 40_000
WARM_UP = 2_000


def sojourn_s(spec: ClusterSpec, trace: Trace) -> Floats:
    log = EventLog(None)
    simulate(spec, trace, log)
    table = log.table()
    finish = table.filter(pc.equal(table.column("kind"), "finish"))
    order = np.argsort(finish.column("request").to_numpy())
    finish_s: Floats = finish.column("time_s").to_numpy()[order]
    return (finish_s - trace.arrival_s)[WARM_UP:]


def poisson(rate_rps: float, prompt: Any, output: Any, seed: int) -> Trace:
    rng = np.random.default_rng(seed)
    return Trace(
        name="theory",
        arrival_s=np.cumsum(rng.exponential(1 / rate_rps, REQUESTS)),
        prompt_tokens=np.broadcast_to(np.asarray(prompt, np.int32), REQUESTS).copy(),
        output_tokens=np.broadcast_to(np.asarray(output, np.int32), REQUESTS).copy(),
    )


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_constant_service_waits_as_m_d_1(deploy: Deploy, affine: Any, load: float) -> None:
    service_s = 0.1
    spec = deploy("colocated", max_sequences=1, latency=affine(base_s=service_s, per_chunk_token_s=0.0))
    expected_s = service_s + load * service_s / (2 * (1 - load))
    sojourns = [sojourn_s(spec, poisson(load / service_s, 10, 1, seed)).mean() for seed in range(2)]
    assert np.mean(sojourns) == pytest.approx(expected_s, rel=0.03)


def test_exponential_service_waits_as_m_m_1(deploy: Deploy, affine: Any) -> None:
    load, mean_tokens, per_token_s = 0.7, 1000, 1e-4
    spec = deploy("colocated", max_sequences=1, latency=affine(base_s=0.0, per_chunk_token_s=per_token_s))
    service_s = mean_tokens * per_token_s
    means, p90 = [], []
    for seed in range(2):
        prompts = np.maximum(1, np.random.default_rng(100 + seed).exponential(mean_tokens, REQUESTS).round())
        prompts = np.minimum(prompts, 8192)
        times_s = sojourn_s(spec, poisson(load / service_s, prompts, 1, seed))
        means.append(times_s.mean())
        p90.append(np.percentile(times_s, 90))
    expected_s = service_s / (1 - load)
    assert np.mean(means) == pytest.approx(expected_s, rel=0.05)
    assert np.mean(p90) == pytest.approx(np.log(10) * expected_s, rel=0.06)


def test_equally_shared_decodes_behave_as_processor_sharing(deploy: Deploy, affine: Any) -> None:
    """An iteration of B decodes lasts B quanta, so each gets 1/B of the device: E[T | size] = size / (1 - load)."""
    load, mean_tokens, per_decode_s = 0.6, 60, 1e-3
    model = affine(base_s=1e-9, per_chunk_token_s=0.0, per_decode_s=per_decode_s)
    spec = deploy("colocated", max_sequences=100_000, max_batch_tokens=100_000, kv_blocks=1_000_000, latency=model)
    slopes, means = [], []
    for seed in range(2):
        tokens = 1 + np.random.default_rng(200 + seed).geometric(1 / mean_tokens, REQUESTS)
        times_s = sojourn_s(spec, poisson(load / (mean_tokens * per_decode_s), 1, tokens, seed))
        sizes_s = (tokens[WARM_UP:] - 1) * per_decode_s
        slopes.append((times_s * sizes_s).sum() / (sizes_s**2).sum())
        means.append(times_s.mean())
    assert np.mean(means) == pytest.approx(mean_tokens * per_decode_s / (1 - load), rel=0.05)
    assert np.mean(slopes) == pytest.approx(1 / (1 - load), rel=0.05)
