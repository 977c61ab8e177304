"""Greedy tokens are those of transformers' ``generate``, whatever the schedule."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from reference_impl.engine.api import SamplingParams

NEW_TOKENS = 20
NEAR_TIE = 1e-5
"""Two logits closer than this may change places with the order of a sum."""
PARAMS = SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0)
Families = pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
MakeDriver = Callable[..., Any]


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = random.Random(7)
    return [[draw.randrange(2, 101) for _ in range(length)] for length in (1, 3, 4, 17, 40, 150)]


class Reference:
    """The dense model, its own attention and cache."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def generate(self, prompt: list[int]) -> list[int]:
        found = self.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
        )
        return [int(token) for token in found[0, len(prompt) :]]

    def check(self, prompt: list[int], given: list[int]) -> None:
        """Equal, or different for the first time where the two likeliest tokens are as good as tied."""
        wanted = self.generate(prompt)
        assert len(given) == len(wanted)
        place = next((i for i, pair in enumerate(zip(given, wanted, strict=True)) if pair[0] != pair[1]), None)
        if place is None:
            return
        with torch.no_grad():
            logits = self.model(torch.tensor([prompt + wanted[:place]])).logits[0, -1]
        best = logits.topk(2).values
        assert float(best[0] - best[1]) < NEAR_TIE, f"token {place} is {given[place]}, generate gives {wanted[place]}"


@pytest.fixture(scope="module")
def references(checkpoints: dict[str, Path]) -> dict[str, Reference]:
    return {family: Reference(folder) for family, folder in checkpoints.items()}


@Families
def test_a_batch_of_whole_prompts_is_exact(
    family: str,
    checkpoints: dict[str, Path],
    references: dict[str, Reference],
    make_driver: MakeDriver,
    prompts: list[list[int]],
) -> None:
    driver = make_driver(checkpoints[family])
    for number, prompt in enumerate(prompts):
        driver.add(number, prompt, PARAMS)
    driver.step({number: len(prompt) for number, prompt in enumerate(prompts)})
    for _ in range(NEW_TOKENS - 1):
        driver.step({}, range(len(prompts)), ahead=True)
    for number, prompt in enumerate(prompts):
        references[family].check(prompt, driver.generated(number))


@Families
@pytest.mark.parametrize("block_tokens", [1, 4, 16])
def test_chunks_beside_decodes_are_exact(
    family: str,
    block_tokens: int,
    checkpoints: dict[str, Path],
    references: dict[str, Reference],
    make_driver: MakeDriver,
    prompts: list[list[int]],
) -> None:
    """Requests come one by one; each prompt is cut at random places while the earlier ones decode."""
    driver = make_driver(checkpoints[family], blocks=600 // block_tokens, block_tokens=block_tokens)
    draw = random.Random(block_tokens)
    order = draw.sample(range(len(prompts)), len(prompts))
    arrived: list[int] = []
    while len(arrived) < len(prompts) or any(len(driver.generated(number)) < NEW_TOKENS for number in arrived):
        if order and draw.random() < 0.6:
            number = order.pop()
            driver.add(number, prompts[number], PARAMS)
            arrived.append(number)
        chunks = {number: draw.randint(1, min(driver.left(number), 60)) for number in arrived if driver.left(number)}
        decoding = [number for number in arrived if not driver.left(number)]
        unfinished = [number for number in decoding if len(driver.generated(number)) < NEW_TOKENS]
        if chunks or unfinished:
            driver.step(chunks, draw.sample(unfinished, len(unfinished)))
    for number, prompt in enumerate(prompts):
        references[family].check(prompt, driver.generated(number))


@Families
def test_a_shared_prefix_is_exact(
    family: str, checkpoints: dict[str, Path], references: dict[str, Reference], make_driver: MakeDriver
) -> None:
    """The second request finds the first one's full blocks and computes only what comes after them."""
    driver = make_driver(checkpoints[family])
    draw = random.Random(3)
    prefix = [draw.randrange(2, 101) for _ in range(24)]
    first, second = [*prefix, 5, 6, 7], [*prefix, 50, 60]
    driver.add(0, first, PARAMS)
    driver.step({0: len(first)})
    driver.add(1, second, PARAMS, shared=driver.blocks[0][:6])
    driver.step({1: 2}, [0])
    for _ in range(NEW_TOKENS - 1):
        driver.step({}, [1] if len(driver.generated(0)) == NEW_TOKENS else [0, 1])
    references[family].check(first, driver.generated(0))
    references[family].check(second, driver.generated(1))


@Families
def test_recomputing_after_a_preemption_is_exact(
    family: str,
    checkpoints: dict[str, Path],
    references: dict[str, Reference],
    make_driver: MakeDriver,
    prompts: list[list[int]],
) -> None:
    """Prompt and generated tokens are prefilled again, into other blocks, in two chunks."""
    driver = make_driver(checkpoints[family])
    prompt = prompts[4]
    driver.add(0, prompt, PARAMS)
    driver.add(1, prompts[3], PARAMS)
    driver.step({0: len(prompt), 1: len(prompts[3])})
    for _ in range(6):
        driver.step({}, [0, 1])
    driver.drop(0)
    driver.step({}, [1])
    driver.step({0: 30}, [1])
    driver.step({0: driver.left(0)}, [1])
    while len(driver.generated(0)) < NEW_TOKENS:
        driver.step({}, [0])
    references[family].check(prompt, driver.generated(0))


@Families
def test_logits_are_the_models_own(
    family: str, checkpoints: dict[str, Path], references: dict[str, Reference], make_driver: MakeDriver
) -> None:
    """The log probabilities of a whole generation differ from the dense model's by rounding only."""
    driver = make_driver(checkpoints[family])
    prompt = list(range(2, 60))
    driver.add(0, prompt, SamplingParams(max_tokens=9, temperature=0.0, logprobs=101))
    seen = []
    original = driver.runner.run

    def run(batch: Any) -> Any:
        outcome = original(batch)
        seen.extend(outcome.tokens)
        return outcome

    driver.runner.run = run
    driver.step({0: 31})
    driver.step({0: 27})
    for _ in range(8):
        driver.step({}, [0])
    with torch.no_grad():
        dense = references[family].model(torch.tensor([driver.tokens[0]])).logits[0].double().log_softmax(-1)
    assert len(seen) == 9
    for place, sampled in enumerate(seen, len(prompt) - 1):
        given = torch.zeros(101, dtype=torch.float64)
        for token, logprob in sampled.top:
            given[token] = logprob
        assert float((given - dense[place]).abs().max()) < 1e-4
        assert sampled.logprob == dict(sampled.top)[sampled.token]
