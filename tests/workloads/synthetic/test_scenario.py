"""genai-bench's scenario texts."""

from __future__ import annotations

import numpy as np
import pytest

from workloads.errors import TraceError
from workloads.synthetic import Fixed, Normal, SyntheticSpec, Uniform
from workloads.synthetic.lengths import Lengths
from workloads.synthetic.scenario import parse


@pytest.mark.parametrize(
    ("text", "prompt", "output"),
    [
        ("D(100,1000)", Fixed(100), Fixed(1000)),
        ("N(480,240)/(300,150)", Normal(480, 240), Normal(300, 150)),
        ("U(50, 100)/(200, 250)", Uniform(50, 100), Uniform(200, 250)),
    ],
)
def test_a_scenario_is_two_lengths(text: str, prompt: Lengths, output: Lengths) -> None:
    assert parse(text) == (prompt, output)


@pytest.mark.parametrize("text", ["", "D(100)", "D(1,2)/(3,4)", "N(480,240)", "X(1,2)", "U(a,b)/(c,d)", 5, "D(-1,2)"])
def test_anything_else_shows_the_forms(text: object) -> None:
    with pytest.raises(TraceError, match=r"scenario: .*allowed: D\(in,out\), N\(mean,sd\)"):
        parse(text)


@pytest.mark.parametrize("text", ["D(0,5)", "U(9,3)/(1,2)", "N(0,1)/(2,3)", "D(9999999999,1)"])
def test_lengths_that_no_request_has_are_refused(text: str) -> None:
    with pytest.raises(TraceError, match=r"tokens.*allowed"):
        parse(text)


def test_a_scenario_stands_in_for_prompt_and_output() -> None:
    values = {"requests": 5, "arrivals": "constant:rate_rps=1", "scenario": "N(480,240)/(300,150)"}
    spec = SyntheticSpec.from_mapping(values)
    assert SyntheticSpec.from_mapping(spec.to_mapping()) == spec
    with pytest.raises(TraceError, match="scenario says prompt and output"):
        SyntheticSpec.from_mapping({**values, "prompt": "fixed:tokens_each=1"})


def test_normal_and_uniform_lengths_follow_their_laws() -> None:
    rng = np.random.default_rng(1)
    normal = Normal(480, 240).tokens(40_000, rng)
    assert normal.min() == 1
    assert np.median(normal) == pytest.approx(480, abs=5)
    uniform = Uniform(3, 6).tokens(40_000, rng)
    assert np.bincount(uniform)[3:] / 40_000 == pytest.approx([0.25] * 4, abs=0.01)
