"""Prompts of text: one word for each token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workloads.client.asks import TextPrompts
from workloads.client.errors import ReplayError
from workloads.client.words import common_words, words_of
from workloads.trace import Trace

BLOCK = 8


def trace() -> Trace:
    ids = ((1, 2), (1, 3), (1, 2))
    return Trace(
        "t", np.zeros(3), np.array([24, 24, 16]), np.ones(3, np.int32), prefix_ids=ids, prefix_block_tokens=BLOCK
    )


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE that knows the common words, and puts a token before every text."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=1_500, special_tokens=["<s>"], show_progress=False)
    tokenizer.train_from_iterator([" " + " ".join(common_words().words)] * 3, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_common_words_keep_the_prefix_structure() -> None:
    prompts = TextPrompts(trace(), common_words(), 0)
    texts = [prompts.prompt(row).split() for row in range(3)]
    assert [len(text) for text in texts] == [24, 24, 16]
    assert texts[0][:BLOCK] == texts[1][:BLOCK] == texts[2][:BLOCK]
    assert texts[0][BLOCK : 2 * BLOCK] == texts[2][BLOCK:] != texts[1][BLOCK : 2 * BLOCK]
    assert texts[0][2 * BLOCK :] != texts[1][2 * BLOCK :]


def test_with_the_tokenizer_lengths_and_blocks_are_exact(tokenizer_json: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_json))
    words = words_of(tokenizer_json)
    assert words.overhead_tokens == 1
    prompts = TextPrompts(trace(), words, 0)
    ids: list[Any] = [tokenizer.encode(prompts.prompt(row)).ids for row in range(3)]
    assert [len(prompt) for prompt in ids] == [24, 24, 16]
    assert ids[0][:BLOCK] == ids[1][:BLOCK] == ids[2][:BLOCK]
    assert ids[0][BLOCK : 2 * BLOCK] == ids[2][BLOCK:] != ids[1][BLOCK : 2 * BLOCK]


def test_a_prompt_of_one_token_is_a_word(tokenizer_json: Path) -> None:
    prompts = TextPrompts(trace(), words_of(tokenizer_json), 0)
    assert prompts.warmup(0, 1).strip().isalpha()


@pytest.mark.parametrize("content", ["", "{}", json.dumps({"model": {"type": "BPE"}})])
def test_a_file_that_is_no_tokenizer_is_refused(content: str, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ReplayError, match=r"tokenizer\.json: no tokenizer\.json that can be read"):
        words_of(tmp_path / "tokenizer.json")


def test_a_tokenizer_without_words_is_refused(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ReplayError, match="only 0 words are one token each"):
        words_of(tmp_path / "tokenizer.json")
