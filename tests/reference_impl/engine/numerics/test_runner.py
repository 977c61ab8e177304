"""The synchronous executor: what it remembers, reports and refuses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from reference_impl.engine.api import DecodeRow, EngineError, ForwardBatch, SamplingParams

GREEDY = SamplingParams(max_tokens=9, temperature=0.0)
MakeDriver = Callable[..., Any]


@pytest.fixture
def folder(checkpoints: dict[str, Path]) -> Path:
    return checkpoints["llama"]


def test_a_decode_planned_ahead_uses_the_token_before(folder: Path, make_driver: MakeDriver) -> None:
    tokens = []
    for ahead in (False, True):
        driver = make_driver(folder)
        driver.add(1, [5, 6, 7], GREEDY)
        driver.step({1: 3})
        for _ in range(5):
            driver.step({}, [1], ahead=ahead)
        tokens.append(driver.generated(1))
    assert tokens[0] == tokens[1]


def test_sampled_tokens_do_not_depend_on_the_schedule(folder: Path, make_driver: MakeDriver) -> None:
    """Alone and whole, or in chunks beside others and recomputed on the way: the same seed gives the same tokens."""
    params = SamplingParams(max_tokens=12, temperature=1.3, top_p=0.95, top_k=60, seed=21)
    prompt = list(range(3, 45))
    alone = make_driver(folder)
    alone.add(1, prompt, params)
    alone.step({1: 42})
    for _ in range(11):
        alone.step({}, [1])
    busy = make_driver(folder, block_tokens=7, seed=5)
    busy.add(8, [9] * 30, GREEDY)
    busy.add(2, prompt, params)
    busy.step({8: 30, 2: 20})
    busy.step({2: 22}, [8])
    for _ in range(4):
        busy.step({}, [8, 2])
    busy.drop(2)
    busy.step({2: 47}, [8])
    while len(busy.generated(2)) < 12:
        busy.step({}, [2, 8])
    assert busy.generated(2) == alone.generated(1)
    assert len(set(alone.generated(1))) > 4


def test_an_outcome_has_the_chunks_that_end_then_the_decodes_in_the_batchs_order(
    folder: Path, make_driver: MakeDriver
) -> None:
    driver = make_driver(folder)
    for request_id, length in ((1, 30), (2, 5), (3, 12), (4, 20), (5, 8)):
        driver.add(request_id, list(range(2, 2 + length)), GREEDY)
    driver.step({1: 30, 2: 5, 3: 12})
    assert driver.step({4: 10, 5: 8}, [1, 3, 2]) == [5, 1, 3, 2]


def test_an_iteration_without_an_end_yields_nothing(folder: Path, make_driver: MakeDriver) -> None:
    driver = make_driver(folder)
    driver.add(1, list(range(2, 20)), GREEDY)
    assert driver.step({1: 7}) == []


def test_an_iteration_is_timed_by_the_given_clock(folder: Path, make_driver: MakeDriver) -> None:
    ticks = count(10)
    driver = make_driver(folder, clock=lambda: float(next(ticks)))
    driver.add(1, [4, 5], GREEDY)
    driver.step({1: 2})
    outcome = driver.runner.run(ForwardBatch(77, (), (DecodeRow(1, 4, 2, driver.blocks[1]),)))
    assert (outcome.ordinal, outcome.start_s, outcome.end_s) == (77, 12.0, 13.0)


def test_layers_are_reported_in_order_once_their_keys_and_values_are_written(
    folder: Path, make_driver: MakeDriver
) -> None:
    seen: list[tuple[int, list[bool]]] = []
    driver: Any = None

    def written(layer: int) -> None:
        pool = driver.runner._device._views
        seen.append((layer, [bool(pool.layer(number).any()) for number in range(2)]))

    driver = make_driver(folder, on_layer=written)
    driver.add(1, [4, 5], GREEDY)
    driver.step({1: 2})
    assert seen == [(0, [True, False]), (1, [True, True])]


def test_a_request_that_was_not_admitted_is_refused(folder: Path, make_driver: MakeDriver) -> None:
    driver = make_driver(folder)
    driver.add(1, [4, 5], GREEDY)
    driver.runner.forget([1, 99])
    with pytest.raises(EngineError, match="request 1 was not admitted to this runner; call admit before"):
        driver.step({1: 2})


def test_a_decode_ahead_of_a_token_that_never_came_is_refused(folder: Path, make_driver: MakeDriver) -> None:
    driver = make_driver(folder)
    driver.add(1, [4, 5], GREEDY)
    driver.step({1: 2})
    driver.runner.forget([1])
    driver.runner.admit(1, GREEDY)
    with pytest.raises(EngineError, match="request 1 has no token here yet; its decode row must name its input"):
        driver.step({}, [1], ahead=True)


def test_a_position_beyond_its_blocks_is_an_error(folder: Path, make_driver: MakeDriver) -> None:
    driver = make_driver(folder)
    driver.add(1, [4, 5], GREEDY)
    driver.step({1: 2})
    with pytest.raises(IndexError):
        driver.runner.run(ForwardBatch(0, (), (DecodeRow(1, 4, 40, driver.blocks[1]),)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(folder: Path) -> None:
    from reference_impl.engine.kv_cache import KvPool
    from reference_impl.engine.model_facts import read_facts
    from reference_impl.engine.runner import Runner
    from reference_impl.engine.weights import ModelSource

    pool = KvPool.create(None, read_facts(folder).kv_layout(4, "float32"), 4)
    with pytest.raises(EngineError, match="device 'cuda' needs a GPU"):
        Runner(folder, ModelSource(str(folder), device="cuda"), pool)
