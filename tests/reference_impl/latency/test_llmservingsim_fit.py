"""A profile in LLMServingSim's format that a known model made gives that model back."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.llmservingsim import Plane, Profile
from reference_impl.latency.llmservingsim_fit import fit_profile

TOKENS = tuple(float(n) for n in (1, 2, 4, 8, 12, 16, 24, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048))
SEQUENCES = tuple(float(n) for n in range(1, 17))
LAYERS = 10


def dense_s(tokens: float) -> float:
    return 1e-4 + 1e-6 * tokens + 1e-6 * max(0.0, tokens - 128)


def attention_s(chunk: int, before: int, decodes: int, context: float) -> float:
    chunks = 1 if chunk else 0
    total = 1e-5 + 2e-6 * chunks + 3e-7 * (decodes + chunks) + 1e-11 * chunk * (before + chunk / 2)
    return total + 1e-9 * chunks * (before + chunk) + 2e-9 * decodes * context


def plane(chunk: int, decodes: int, contexts: tuple[float, ...]) -> Plane:
    befores = (0, 512, 4096) if chunk else (0,)
    curves = [tuple(attention_s(chunk, before, decodes, context) for context in contexts) for before in befores]
    return befores, tuple((contexts, values) for values in curves)


def profile(contexts: tuple[float, ...] = (16.0, 256.0, 4096.0), chunks: tuple[int, ...] = (0, 16, 256)) -> Profile:
    return Profile(
        folder=Path("made-up"),
        model="llama-3.1-8b",
        device="made up",
        layer=(TOKENS, tuple(map(dense_s, TOKENS))),
        once=((1.0,), (0.0,)),
        head=(SEQUENCES, tuple(5e-4 + 1e-6 * count for count in SEQUENCES)),
        attention={
            (chunk, decodes): plane(chunk, decodes, contexts if decodes else (0.0,))
            for chunk in chunks
            for decodes in (0, 1, 8, 64)
            if chunk or decodes
        },
        skew=None,
    )


def test_a_known_model_is_found_and_its_error_is_none() -> None:
    coefficients, errors = fit_profile(profile(), LAYERS, seed=0)
    assert coefficients.iteration_s == pytest.approx(LAYERS * (1e-4 + 1e-5) + 5e-4)
    assert coefficients.token_s == pytest.approx([LAYERS * cost for cost in (1e-6, 1e-6, 2e-6, 2e-6)])
    assert coefficients.sequence_s == pytest.approx(LAYERS * 3e-7 + 1e-6, rel=1e-6, abs=0)
    assert coefficients.chunk_s == pytest.approx(LAYERS * 2e-6, rel=1e-6, abs=0)
    assert coefficients.pair_s == pytest.approx(LAYERS * 1e-11, rel=1e-6, abs=0)
    assert coefficients.chunk_context_s == pytest.approx(LAYERS * 1e-9, rel=1e-6, abs=0)
    assert coefficients.decode_context_s == pytest.approx(LAYERS * 2e-9, rel=1e-6, abs=0)
    assert max(error.p90 for error in errors.values()) < 1e-6


def test_decodes_alone_do_not_tell_what_prompts_cost() -> None:
    with pytest.raises(ProfileError, match=r"attention: chunk is 0 in every row, which does not tell what it costs"):
        fit_profile(profile(chunks=(0,)), LAYERS, seed=0)
