"""Descriptions of synthetic workloads: strict, round trip, deterministic, independent streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.errors import TraceError
from workloads.synthetic import (
    Constant,
    Fixed,
    Gamma,
    Lognormal,
    OnOff,
    Poisson,
    QuantileTable,
    Recorded,
    Replayed,
    SharedPrefix,
    SyntheticSpec,
    synthesise,
)
from workloads.trace import Trace

SPEC = SyntheticSpec(200, Poisson(2.0), Lognormal(100.0, 1.0), QuantileTable("sharegpt-like.output"))
GOOD: dict[str, Any] = {
    "requests": 10,
    "arrivals": {"kind": "gamma", "rate_rps": 2, "cv": 1.5},
    "prompt": "lognormal:mean_tokens=200,sigma=0.5",
    "output": {"kind": "table", "points": [[0, 1], [1, 50]]},
    "prefix": "groups=4,tokens=64,popularity=zipf",
}


def test_a_mapping_and_texts_build_the_same_parts() -> None:
    spec = SyntheticSpec.from_mapping(GOOD)
    assert spec.arrivals == Gamma(2, 1.5)
    assert spec.prompt == Lognormal(200, 0.5)
    assert spec.output == QuantileTable(points=((0.0, 1.0), (1.0, 50.0)))
    assert spec.prefix == SharedPrefix(4, 64, "zipf")
    assert SyntheticSpec.from_mapping(GOOD | {"arrivals": "gamma:rate_rps=2,cv=1.5"}) == spec


@given(
    st.builds(
        SyntheticSpec,
        requests=st.integers(1, 10**6),
        arrivals=st.sampled_from(
            [Poisson(1.5), Gamma(2.0, 0.5), Constant(1), OnOff(1.0, 0.5, 60.0), Replayed("x", 2.0)]
        ),
        prompt=st.sampled_from(
            [Fixed(3), Lognormal(10.0, 0.1, 99), QuantileTable("longbench-like.prompt"), Recorded("x", "output")]
        ),
        output=st.just(QuantileTable(points=((0.0, 1.0), (1.0, 2.5)), max_tokens=2)),
        prefix=st.none() | st.just(SharedPrefix(3, 100, "zipf", 0.7, 50)),
        name=st.text(min_size=1),
    )
)
def test_a_description_survives_json(spec: SyntheticSpec) -> None:
    assert SyntheticSpec.from_mapping(json.loads(json.dumps(spec.to_mapping()))) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"request": 5},
            r"unknown key 'request' \(allowed: name, requests, arrivals, prompt, output, scenario, prefix\)",
        ),
        ({"requests": 0}, "requests=0"),
        ({"requests": "10"}, "requests='10'"),
        ({"name": ""}, "name=''"),
        ({"arrivals": "weibull:rate_rps=1"}, r"arrivals: kind 'weibull' \(allowed: poisson, gamma, constant, on_off"),
        ({"arrivals": 3}, "arrivals: 3 .*a mapping with kind"),
        ({"arrivals": {"rate_rps": 3}}, "arrivals: {'rate_rps': 3}"),
        ({"arrivals": {"kind": ["poisson"]}}, r"kind \['poisson'\]"),
        ({"arrivals": "poisson:rate=3"}, r"arrivals poisson: unknown key 'rate' \(allowed: rate_rps\)"),
        ({"arrivals": "poisson"}, "arrivals poisson: missing rate_rps"),
        ({"arrivals": "poisson:rate_rps"}, r"'rate_rps' \(allowed: key=value"),
        ({"arrivals": "poisson:rate_rps=1,rate_rps=2"}, "each key once"),
        ({"arrivals": "poisson:rate_rps=fast"}, "rate_rps='fast'"),
        ({"arrivals": "poisson:rate_rps=nan"}, "rate_rps=nan"),
        ({"prompt": None}, "prompt: None"),
        ({"prefix": "groups=4"}, "prefix: missing tokens"),
        ({"prefix": [1]}, r"prefix: \[1\]"),
    ],
)
def test_a_wrong_description_is_refused_and_shows_what_is_allowed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        SyntheticSpec.from_mapping(GOOD | change)


def test_a_missing_part_is_named() -> None:
    with pytest.raises(TraceError, match="synthetic workload: missing arrivals"):
        SyntheticSpec.from_mapping({"requests": 1, "prompt": "fixed:tokens_each=1", "output": "fixed:tokens_each=1"})


def test_the_same_seed_gives_the_same_trace(assert_same: Callable[[Trace, Trace], None]) -> None:
    assert_same(synthesise(SPEC, 5), synthesise(SPEC, 5))
    assert synthesise(SPEC, 5).prompt_tokens.tolist() != synthesise(SPEC, 6).prompt_tokens.tolist()


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"arrivals": Gamma(3.0, 2.0)}, "arrival_s"),
        ({"prompt": QuantileTable("azure-conv-like.prompt")}, "prompt_tokens"),
        ({"output": Lognormal(5.0, 2.0)}, "output_tokens"),
    ],
)
def test_changing_one_part_leaves_the_other_streams_alone(change: dict[str, Any], column: str) -> None:
    one, other = synthesise(SPEC, 1), synthesise(replace(SPEC, **change), 1)
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(one, name), getattr(other, name)) == (name != column)


def test_the_trace_says_how_it_was_made() -> None:
    trace = synthesise(SPEC, 8)
    assert trace.metadata["seed"] == "8"
    assert SyntheticSpec.from_mapping(json.loads(trace.metadata["synthetic_spec"])) == SPEC


@pytest.mark.parametrize("seed", [-1, 1.5, None])
def test_a_seed_that_is_none_is_refused(seed: Any) -> None:
    with pytest.raises(TraceError, match="seed="):
        synthesise(SPEC, seed)
