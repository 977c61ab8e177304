"""Small random models of four families, and a bare driver of a runner: block tables and requests, no policies."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reference_impl.engine.api import ChunkRow, DecodeRow, ForwardBatch, SamplingParams
from reference_impl.engine.kv_cache import KvPool
from reference_impl.engine.weights import ModelSource, ensure_weights

if TYPE_CHECKING:
    from reference_impl.engine.runner import Runner

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
    collect_ignore_glob = ["test_*.py"]

VOCAB = 101
SMALL = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCAB,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False},
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "num_key_value_heads": 1},
    "mistral": {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None},
}
ModelMaker = Callable[..., Path]


class Driver:
    """Serves requests on a runner in whatever schedule a test wants; every request owns its blocks."""

    def __init__(self, runner: Runner, pool: KvPool, seed: int = 0) -> None:
        self.runner = runner
        self.size = pool.layout.block_tokens
        self.free = list(range(pool.blocks))
        random.Random(seed).shuffle(self.free)
        self.tokens: dict[int, list[int]] = {}
        self.prompts: dict[int, int] = {}
        self.computed: dict[int, int] = {}
        self.blocks: dict[int, list[int]] = {}
        self.ordinal = 0

    def add(self, request_id: int, prompt: Sequence[int], params: SamplingParams, shared: Sequence[int] = ()) -> None:
        """``shared``: full blocks that hold the prompt's first tokens already."""
        self.runner.admit(request_id, params)
        self.tokens[request_id] = list(prompt)
        self.prompts[request_id] = len(prompt)
        self.blocks[request_id] = list(shared)
        self.computed[request_id] = len(shared) * self.size

    def step(self, chunks: dict[int, int], decodes: Sequence[int] = (), *, ahead: bool = False) -> list[int]:
        """One iteration; ``chunks``: request -> tokens. Returns the requests in the order of the outcome."""
        chunk_rows = tuple(self._chunk(request_id, count) for request_id, count in chunks.items())
        decode_rows = []
        for request_id in decodes:
            token = None if ahead else self.tokens[request_id][-1]
            decode_rows.append(DecodeRow(request_id, token, self.computed[request_id], self._room(request_id, 1)))
        self.ordinal += 1
        outcome = self.runner.run(ForwardBatch(self.ordinal, chunk_rows, tuple(decode_rows)))
        for sampled in outcome.tokens:
            self.tokens[sampled.request_id].append(sampled.token)
        return [sampled.request_id for sampled in outcome.tokens]

    def drop(self, request_id: int) -> None:
        """Preempt: its KV is gone, its tokens stay."""
        self.free += self.blocks[request_id]
        self.blocks[request_id], self.computed[request_id] = [], 0

    def left(self, request_id: int) -> int:
        """Tokens that are still to prefill; 0 for a decode, whose last token alone has no KV."""
        left = len(self.tokens[request_id]) - self.computed[request_id]
        return 0 if left == 1 and self.generated(request_id) else left

    def generated(self, request_id: int) -> list[int]:
        return self.tokens[request_id][self.prompts[request_id] :]

    def _chunk(self, request_id: int, count: int) -> ChunkRow:
        start = self.computed[request_id]
        tokens = self.tokens[request_id][start : start + count]
        blocks = self._room(request_id, len(tokens))
        return ChunkRow(request_id, tokens, start, blocks, start + count >= len(self.tokens[request_id]))

    def _room(self, request_id: int, count: int) -> list[int]:
        self.computed[request_id] += count
        blocks = self.blocks[request_id]
        while len(blocks) * self.size < self.computed[request_id]:
            blocks.append(self.free.pop())
        return blocks


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> ModelMaker:
    """Writes a folder with nothing but a small model's config.json."""

    def make(family: str, **changes: object) -> Path:
        folder = tmp_path_factory.mktemp(family)
        config = {**SMALL, **FAMILIES.get(family, {"model_type": family}), **changes}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoints(make_model: ModelMaker, weights_cache: Path) -> dict[str, Path]:
    """Folders with drawn weights, by family."""
    return {family: ensure_weights(ModelSource(str(make_model(family))), weights_cache) for family in FAMILIES}


@pytest.fixture(scope="session")
def make_driver() -> Callable[..., Driver]:
    """A driver of a new runner over a new pool."""
    from reference_impl.engine.model_facts import read_facts
    from reference_impl.engine.runner import Runner

    def make(folder: Path, *, blocks: int = 160, block_tokens: int = 4, seed: int = 0, **options: object) -> Driver:
        pool = KvPool.create(None, read_facts(folder).kv_layout(block_tokens, "float32"), blocks)
        return Driver(Runner(folder, ModelSource(str(folder)), pool, **options), pool, seed)  # type: ignore[arg-type]

    return make
