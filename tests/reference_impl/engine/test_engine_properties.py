"""Random arrivals, cancels and ends on a small pool: tokens stay exact, blocks add up after every single step."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_impl.engine.engine import EngineSettings
from reference_impl.engine.testing import fake_request, fake_tokens

Make = Callable[..., Any]
BATCHES = ("prefill_first", "chunked_prefill:chunk_tokens=12", "unified_budget:token_budget=24", "decode_first")
EOS = frozenset(range(0, 1000, 25))
"""Every 25th token ends a request, so that many a plan made ahead turns out to be wrong."""


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    ahead=st.booleans(),
    role=st.sampled_from(["colocated", "semi_pd"]),
    batch=st.sampled_from(BATCHES),
    blocks=st.integers(14, 60),
)
def test_whatever_comes_and_goes_tokens_are_exact_and_blocks_add_up(
    hand: Make, seed: int, ahead: bool, role: str, batch: str, blocks: int
) -> None:
    rng = random.Random(seed)
    engine = hand(
        role,
        batch,
        settings=EngineSettings(plan_ahead=ahead, eos_token_ids=EOS, vocab_tokens=1000),
        kv_blocks=blocks,
        max_sequences=rng.randint(2, 12),
    )
    prompts = _act(rng, engine, [rng.randrange(1000) for _ in range(16)])
    engine.run()
    engine.check_empty()
    _check(engine, prompts)


def _act(rng: random.Random, engine: Any, shared: list[int]) -> dict[int, tuple[list[int], int, bool]]:
    """Do 80 random things; the requests that came: prompt, max_tokens, ignore_eos."""
    known: dict[int, tuple[list[int], int, bool]] = {}
    gone: list[int] = []
    for _ in range(80):
        what = rng.random()
        if what < 0.25:
            request_id = rng.choice(gone) if gone and rng.random() < 0.3 else len(known)
            _submit(rng, engine, shared, known, request_id)
        elif what < 0.35 and engine.engine.lives:
            request_id = rng.choice(list(engine.engine.lives))
            if rng.random() < 0.5:
                engine.engine.cancel(request_id, rng.choice([None, "its client left"]))
                gone.append(request_id)
            else:
                engine.engine.end(request_id)
        else:
            engine.move(rng.randrange(len(engine.engine.loops)))
        engine.engine.instance.check_integrity()
    return known


def _submit(rng: random.Random, engine: Any, shared: list[int], known: dict[int, Any], request_id: int) -> None:
    if request_id not in known:
        prompt = (shared if rng.random() < 0.5 else []) + [rng.randrange(1000) for _ in range(rng.randint(1, 20))]
        known[request_id] = (prompt, rng.randint(1, 16), rng.random() < 0.3)
    prompt, max_tokens, ignore_eos = known[request_id]
    generated = engine.tokens.get(request_id, [])
    if request_id not in engine.ends and len(generated) < max_tokens:
        engine.submit(fake_request(request_id, prompt, max_tokens, generated=generated, ignore_eos=ignore_eos))


def _check(engine: Any, known: dict[int, tuple[list[int], int, bool]]) -> None:
    assert all("that a" in failure.reason for failure in engine.failed)
    for request_id, (prompt, max_tokens, ignore_eos) in known.items():
        expected = list(fake_tokens(prompt, max_tokens))
        ending = [place for place, token in enumerate(expected) if token in EOS and not ignore_eos]
        whole = expected[: ending[0] + 1] if ending else expected
        tokens = engine.tokens.get(request_id, [])
        assert tokens == whole[: len(tokens)]
        if request_id in engine.ends:
            assert tokens == whole
            assert engine.ends[request_id] == ("stop" if ending else "length")
