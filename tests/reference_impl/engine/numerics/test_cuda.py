"""On a GPU: the same tokens as on a CPU, with recorded decodes and the fused kernel. Skipped where there is none."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from reference_impl.engine.api import SamplingParams
from reference_impl.engine.device.cuda import CudaDevice
from reference_impl.engine.kv_cache import KvPool
from reference_impl.engine.model_facts import read_facts
from reference_impl.engine.runner import Runner
from reference_impl.engine.weights import ModelSource, ensure_weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
GREEDY = SamplingParams(max_tokens=12, temperature=0.0)


def serve(driver: Any) -> list[list[int]]:
    """Chunks beside decodes, then decodes of a shrinking batch."""
    draw = random.Random(1)
    lengths = (1, 9, 30, 77, 140)
    for number, length in enumerate(lengths):
        driver.add(number, [draw.randrange(2, 101) for _ in range(length)], GREEDY)
    driver.step({0: 1, 1: 9, 2: 20})
    driver.step({2: 10, 3: 40}, [0, 1])
    driver.step({3: 37, 4: 140}, [0, 1, 2])
    while unfinished := [number for number in range(5) if len(driver.generated(number)) < 12]:
        driver.step({}, unfinished, ahead=True)
    return [driver.generated(number) for number in range(5)]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_float32_tokens_are_those_of_a_cpu(
    family: str, checkpoints: dict[str, Path], make_driver: Callable[..., Any]
) -> None:
    folder = checkpoints[family]
    driver = make_driver(folder)
    wanted = serve(driver)
    pool = KvPool.create(None, read_facts(folder).kv_layout(4, "float32"), 160, "cuda")
    runner = Runner(folder, ModelSource(str(folder), device="cuda"), pool)
    assert isinstance(runner._device, CudaDevice)
    assert serve(type(driver)(runner, pool)) == wanted


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_recorded_and_unrecorded(
    dtype: Literal["bfloat16", "float16"],
    weights_cache: Path,
    make_model: Callable[..., Path],
    make_driver: Callable[..., Any],
    checkpoints: dict[str, Path],
) -> None:
    """Rounding may change a token; every request gets all of its tokens, and loading compares the logits."""
    source = ModelSource(str(make_model("llama")), dtype=dtype, device="cuda")
    folder = ensure_weights(source, weights_cache)
    pool = KvPool.create(None, read_facts(folder).kv_layout(16, dtype), 60, "cuda")
    driver = type(make_driver(checkpoints["llama"]))(Runner(folder, source, pool), pool)
    assert [len(tokens) for tokens in serve(driver)] == [12] * 5
