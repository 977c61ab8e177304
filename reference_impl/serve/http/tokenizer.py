"""The tokenizer of a model folder: text to ids, ids to text, messages to a prompt. Needs no torch, no transformers."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import tokenizers
from jinja2 import TemplateError
from tokenizers import decoders, pre_tokenizers

from reference_impl.serve.http.chat_template import ChatTemplate
from reference_impl.serve.http.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from reference_impl.serve.http.settings import SettingsError

BUNDLED = Path(__file__).resolve().parents[2] / "engine" / "models" / "tokenizer"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class Tokenizer:
    """Of one model."""

    def __init__(self, backend: tokenizers.Tokenizer, template: ChatTemplate | None = None) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.template = template
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self._backend = backend
        self.special_ids = frozenset(id_ for id_, token in backend.get_added_tokens_decoder().items() if token.special)
        by_bytes = isinstance(backend.decoder, decoders.ByteLevel)
        self._texts = _byte_table(backend, self.special_ids) if by_bytes else None
        as_it_stands = by_bytes and backend.normalizer is None
        self._longest_bytes = max(map(len, backend.get_vocab(with_added_tokens=True))) if as_it_stands else None

    def encode(self, text: str, *, special_tokens: bool) -> list[int]:
        """Token ids; ``special_tokens``: with those that the tokenizer puts around a text (a chat prompt has its own).
        Releases the GIL, so a long text belongs into a thread."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=special_tokens).ids
        return ids

    def surely_over(self, text: str, tokens: int) -> bool:
        """Whether a text has more than so many tokens, as far as that can be seen without encoding it."""
        return self._longest_bytes is not None and len(text) > tokens * self._longest_bytes

    def detokenizer(self) -> Detokenizer:
        """For a new sequence."""
        if self._texts is not None:
            return ByteDetokenizer(self._texts)
        return WindowDetokenizer(self._backend.decode, self.special_ids)

    def token_bytes(self, token: int) -> bytes:
        """What a single token stands for; a special one for its name."""
        content = self._backend.id_to_token(token)
        if content is None:
            return b""
        if self._texts is not None and token < len(self._texts):
            return self._texts[token] or content.encode()
        return self._backend.decode([token], skip_special_tokens=False).encode()


def load_tokenizer(folder: Path, vocab_size: int) -> Tokenizer | None:
    """The tokenizer of a model folder, or the bundled one where there is none and its ids fit into the vocabulary.

    None: neither; such a model is served token ids only. Raises SettingsError where the files cannot be used.
    """
    if not (folder / "tokenizer.json").is_file():
        bundled = _read(BUNDLED)
        return bundled if bundled.vocab_size <= vocab_size else None
    found = _read(folder)
    if found.vocab_size > vocab_size:
        raise SettingsError(
            f"{folder / 'tokenizer.json'} has {found.vocab_size} tokens, but the model's vocabulary only {vocab_size}; "
            "use the tokenizer that belongs to the model"
        )
    return found


def _read(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        raise SettingsError(f"{path} is no tokenizer that can be read ({error}); save it again") from error
    try:
        return Tokenizer(backend, _template(folder))
    except (ValueError, KeyError, TemplateError) as error:
        raise SettingsError(f"{folder}: the chat template cannot be used ({error}); correct or remove it") from error


def _template(folder: Path) -> ChatTemplate | None:
    """From ``chat_template.jinja``, or from ``tokenizer_config.json``, where several may stand under names."""
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    source = config.get("chat_template")
    if isinstance(source, list):
        source = {entry["name"]: entry["template"] for entry in source}.get("default")
    own = folder / "chat_template.jinja"
    if own.is_file():
        source = own.read_text(encoding="utf-8")
    special = {name: _content(config[name]) for name in _SPECIAL if config.get(name) is not None}
    return ChatTemplate(source, special) if source is not None else None


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _byte_table(backend: tokenizers.Tokenizer, special: Collection[int]) -> list[bytes]:
    """Bytes of each id; special tokens have none, since they are no text."""
    vocab = backend.get_vocab(with_added_tokens=True)
    table = [b""] * (max(vocab.values(), default=-1) + 1)
    bytes_of = _byte_alphabet()
    for token, index in vocab.items():
        if index in special:
            continue
        mapped = [bytes_of.get(character) for character in token]
        table[index] = bytes(b for b in mapped if b is not None) if None not in mapped else token.encode()
    return table


def _byte_alphabet() -> dict[str, int]:
    """The character that byte-level vocabularies write for each byte: itself where it can be seen, else one from 256
    on, in order."""
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    seen = {chr(byte): byte for byte in range(256) if chr(byte) in alphabet}
    hidden = [byte for byte in range(256) if chr(byte) not in seen]
    return seen | {chr(256 + order): byte for order, byte in enumerate(hidden)}
