"""Makes the weights of the bundled model ``tiny``: a language model of Python's standard library, for demonstrations.

``python -m reference_impl.engine.models.train_tiny [FOLDER]`` writes ``model.safetensors`` (float16). It learns from
the sources as they stand, and from their functions put as answers to questions, so that a chat ends. One thread, and
seeded: equal sources, torch and processor give equal weights. The shipped ones came from Python 3.11 and torch 2.13,
and took 16 minutes of processor time.
"""

from __future__ import annotations

import ast
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reference_impl.engine.models.train_tokenizer import END_OF_TEXT, TURN_END, TURN_START, corpus
from reference_impl.engine.models.train_tokenizer import FOLDER as TOKENIZER_FOLDER

FOLDER = Path(__file__).with_name("tiny")
SEED = 0
WINDOW_TOKENS = 512
BATCH_WINDOWS = 8
STEPS = 1200
LEARNING_RATE = 4e-3
WARM_UP_STEPS = 60
LONGEST_ANSWER_CHARACTERS = 1200


def questions(source: str) -> Iterator[str]:
    """Each short function of a source file as a chat of one turn; none where the file is of another Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or node.col_offset:
            continue
        code = ast.get_source_segment(source, node)
        if code is not None and len(code) <= LONGEST_ANSWER_CHARACTERS:
            asked = f"{TURN_START}user\nWrite the function {node.name}.{TURN_END}\n"
            yield f"{asked}{TURN_START}assistant\n{code}{TURN_END}\n"


def documents() -> list[str]:
    """What is learned from, in an order of its own."""
    texts = []
    for source in corpus():
        texts.append(source)
        texts += questions(source)
    random.Random(SEED).shuffle(texts)
    return texts


def token_stream() -> torch.Tensor:
    """All documents, one behind the other, each with an end: [tokens]."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER_FOLDER / "tokenizer.json"))
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = [token for text in tokenizer.encode_batch(documents()) for token in (*text.ids, end)]
    return torch.tensor(ids, dtype=torch.int64)


def learning_rate(step: int) -> float:
    """Linear warm-up, then half a cosine down to a twentieth."""
    if step < WARM_UP_STEPS:
        return LEARNING_RATE * (step + 1) / WARM_UP_STEPS
    part = (step - WARM_UP_STEPS) / (STEPS - WARM_UP_STEPS)
    return LEARNING_RATE * (0.05 + 0.95 * (1 + math.cos(math.pi * part)) / 2)


def train(stream: torch.Tensor, report: int = 50) -> PreTrainedModel:
    """The model; writes the loss to stderr every ``report`` steps."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(FOLDER))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    for step in range(STEPS):
        starts = torch.randint(len(stream) - WINDOW_TOKENS, (BATCH_WINDOWS,))
        batch = torch.stack([stream[start : start + WINDOW_TOKENS] for start in starts.tolist()])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.step()
        optimizer.zero_grad()
        if step % report == 0 or step == STEPS - 1:
            sys.stderr.write(f"step {step} of {STEPS}: loss {loss.item():.3f}\n")
    return model


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write the weights beside the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    path = folder / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # it is written for its owner only


if __name__ == "__main__":
    save(train(token_stream()), Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
