"""The baselines: transformers' own generation of the same requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.bench.engine_load import BenchRequest


class Baseline(NamedTuple):
    """Tokens of each request, as many as it wanted, and what they cost."""

    tokens: list[tuple[int, ...]]
    cpu_s: float


class ContinuousSettings(NamedTuple):
    """What transformers' continuous batching is tuned by; by default it takes most of the machine's memory."""

    num_blocks: int
    max_batch_tokens: int
    page_tokens: int


def load(folder: Path) -> Any:
    """The model as transformers loads and runs it; it ends at no token."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    torch.set_num_threads(1)
    disable_progress_bar()
    set_verbosity_error()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def static_batches(model: Any, requests: Sequence[BenchRequest], size: int) -> Baseline:
    """``generate`` of batches in order of arrival, padded on the left; each runs until its longest output."""
    import torch

    started_s = time.process_time()
    given: list[tuple[int, ...]] = []
    for first in range(0, len(requests), size):
        batch = requests[first : first + size]
        width = max(len(request.prompt) for request in batch)
        ids = torch.tensor([[0] * (width - len(request.prompt)) + list(request.prompt) for request in batch])
        mask = torch.tensor([[0] * (width - len(one.prompt)) + [1] * len(one.prompt) for one in batch])
        longest = max(request.output_tokens for request in batch)
        found = model.generate(ids, attention_mask=mask, max_new_tokens=longest, do_sample=False)
        for request, row in zip(batch, found[:, width:].tolist(), strict=True):
            given.append(tuple(row[: request.output_tokens]))
    return Baseline(given, time.process_time() - started_s)


def continuous(model: Any, requests: Sequence[BenchRequest], settings: ContinuousSettings) -> Baseline:
    """transformers' continuous batching; its loop runs in a thread of this process."""
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    longest = max(request.output_tokens for request in requests)
    started_s = time.process_time()
    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(max_new_tokens=longest, do_sample=False, eos_token_id=None, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(
            num_blocks=settings.num_blocks,
            max_batch_tokens=settings.max_batch_tokens,
            page_size=settings.page_tokens,
        ),
    )
    manager.start()
    try:
        for number, request in enumerate(requests):
            manager.add_request(list(request.prompt), request_id=str(number), max_new_tokens=request.output_tokens)
        given: dict[int, tuple[int, ...]] = {}
        for found in manager:
            if found is not None and found.is_finished():
                given[int(found.request_id)] = tuple(found.generated_tokens)
            elif found is None and not manager.is_running():
                raise RuntimeError(f"transformers' continuous batching stopped: {manager.fatal_error}")
            if len(given) == len(requests):
                break
    finally:
        manager.stop(block=True)
    return Baseline([given[number] for number in range(len(requests))], time.process_time() - started_s)
