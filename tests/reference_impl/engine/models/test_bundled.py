"""The bundled tokenizer and the weights of ``tiny`` fit one another, and Hugging Face's tools read them as we do."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from reference_impl.engine.model_facts import bundled_models, model_folder, read_facts
from reference_impl.engine.models.train_tiny import learning_rate, questions
from reference_impl.engine.models.train_tokenizer import FOLDER, SPECIAL_TOKENS, VOCAB_TOKENS, clipped, save

CODE = "import os\n\n\ndef main(argv=None):\n    if argv is None:\n        argv = sys.argv[1:]\n    return 0\n"
TURNS = [{"role": "user", "content": "Write the function main."}]
CHAT = "<|im_start|>user\nWrite the function main.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def test_every_bundled_model_has_the_tokenizers_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == VOCAB_TOKENS
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2]
    for name in bundled_models():
        facts = read_facts(model_folder(name))
        assert facts.vocab_tokens == VOCAB_TOKENS
        assert facts.eos_token_ids == {0, 2}


def test_transformers_reads_the_tokenizer_as_we_do(tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(FOLDER)
    assert theirs(CODE)["input_ids"] == tokenizer.encode(CODE).ids
    assert theirs.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True) == CHAT
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 0, 0)


def test_a_tokenizer_is_saved_as_it_was(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(tokenizer, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_the_corpus_is_cut_by_characters() -> None:
    assert list(clipped(iter(["abc", "de", "f"]), 4)) == ["abc", "d"]
    assert list(clipped(iter(["abc", "de", "f"]), 9)) == ["abc", "de", "f"]


def test_functions_become_chats_of_one_turn() -> None:
    chats = list(questions("def f(x):\n    return x\n\nclass A:\n    def g(self):\n        pass\n"))
    assert chats == [
        "<|im_start|>user\nWrite the function f.<|im_end|>\n<|im_start|>assistant\ndef f(x):\n    return x<|im_end|>\n"
    ]
    assert list(questions("def f(:\n")) == []


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(step) for step in range(1200)]
    assert rates.index(max(rates)) == 59
    assert 0 < min(rates[60:]) < max(rates) / 15


def test_tiny_has_learned_something_of_python(tokenizer: Tokenizer) -> None:
    """A third of what a blind guess costs (8.3 nats a token), on code that is in no corpus; and a chat ends as code."""
    folder = model_folder("tiny")
    assert (folder / "model.safetensors").stat().st_size < 6_000_000
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([tokenizer.encode(CODE).ids])
    with torch.no_grad():
        assert model(input_ids=ids, labels=ids).loss.item() < 2.8
    prompt = torch.tensor([tokenizer.encode(CHAT).ids])
    answer = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=200, do_sample=False)
    text = tokenizer.decode(answer[0, prompt.shape[1] :].tolist())
    assert text.startswith("def ")
    ast.parse(text)
