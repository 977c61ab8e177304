"""Tokens to text and back: exact for every id sequence, never half a character, nothing of a stop string."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers

from reference_impl.serve.http.detokenizer import WindowDetokenizer
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.settings import SettingsError
from reference_impl.serve.http.stop_strings import StopStrings
from reference_impl.serve.http.tokenizer import BUNDLED, Tokenizer, load_tokenizer

TURNS = [{"role": "system", "content": "be <b>brief</b>"}, {"role": "user", "content": "hi"}]
BACKEND = tokenizers.Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
BYTE_LEVEL = Tokenizer(tokenizers.Tokenizer.from_file(str(BUNDLED / "tokenizer.json")))
IDS = st.lists(st.integers(0, 4095), max_size=30)


def sentencepiece_like() -> tokenizers.Tokenizer:
    """Words with a leading space mark, and bytes for what has no word: as Llama 2 has it."""
    words = {"<unk>": 0, "▁hello": 1, "▁world": 2, "▁": 3, "<s>": 4, "h": 5}
    vocab = words | {f"<0x{byte:02X}>": len(words) + byte for byte in range(256)}
    backend = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<s>"])
    return backend


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    detokenizer = tokenizer.detokenizer()
    return "".join(detokenizer.step(token) for token in ids) + detokenizer.flush()


@given(IDS)
def test_bytes_come_to_the_same_text_as_decoding_the_whole(ids: list[int]) -> None:
    assert streamed(BYTE_LEVEL, ids) == BACKEND.decode(ids, skip_special_tokens=True)


@given(IDS)
def test_the_window_comes_to_the_same_text_too(ids: list[int]) -> None:
    detokenizer = WindowDetokenizer(BACKEND.decode, {0, 1, 2})
    text = "".join(detokenizer.step(token) for token in ids) + detokenizer.flush()
    assert text == BACKEND.decode(ids, skip_special_tokens=True)


@given(st.text(max_size=40))
def test_every_text_survives_encoding_and_streaming(text: str) -> None:
    assert streamed(BYTE_LEVEL, BYTE_LEVEL.encode(text, special_tokens=True)) == text


@given(st.lists(st.sampled_from(["hello", "world", "é", "\N{GRINNING FACE}", "h"]), max_size=6))
def test_a_vocabulary_of_words_and_bytes_streams_exactly(words: list[str]) -> None:
    backend = sentencepiece_like()
    tokenizer = Tokenizer(backend)
    ids = tokenizer.encode(" ".join(words), special_tokens=False)
    assert streamed(tokenizer, ids) == backend.decode(ids)


def test_no_piece_ends_in_half_a_character() -> None:
    for tokenizer in (BYTE_LEVEL, Tokenizer(sentencepiece_like())):
        detokenizer = tokenizer.detokenizer()
        pieces = [detokenizer.step(token) for token in tokenizer.encode("é\N{GRINNING FACE}é", special_tokens=False)]
        assert "�" not in "".join(pieces)
        assert "".join(pieces).strip() == "é\N{GRINNING FACE}é"


def test_bytes_that_never_become_a_character_are_not_held_for_ever() -> None:
    tokenizer = Tokenizer(sentencepiece_like())
    detokenizer = tokenizer.detokenizer()
    text = "".join(detokenizer.step(6 + 0x80) for _ in range(12))
    assert text.count("�") >= 8


def test_special_tokens_and_ids_beyond_the_vocabulary_are_no_text() -> None:
    assert streamed(BYTE_LEVEL, [0, 68, 1, 5000, 69, 2]) == "bc"
    assert BYTE_LEVEL.token_bytes(2) == b"<|im_end|>"
    assert BYTE_LEVEL.token_bytes(5000) == b""


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), st.text("abc", max_size=30), st.data())
def test_stop_strings_are_found_wherever_pieces_are_cut(stops: list[str], text: str, data: st.DataObject) -> None:
    matcher = StopStrings(stops)
    shown, at = "", 0
    while at < len(text) and matcher.found is None:
        step = data.draw(st.integers(1, 5))
        shown += matcher.step(text[at : at + step])
        at += step
    first = min((text.find(stop) for stop in stops if stop in text[:at]), default=None)
    if first is None:
        assert matcher.found is None
        assert shown + matcher.flush() == text[:at]
    else:
        assert shown == text[:first]
        assert matcher.found is not None


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    matcher = StopStrings(["stop"])
    assert [matcher.step(piece) for piece in ("a", "s", "t", "x", "st")] == ["a", "", "", "stx", ""]
    assert matcher.flush() == "st"


@given(st.text(max_size=200) | st.integers(0, 400).map(lambda count: " " * count), st.integers(0, 20))
def test_a_text_that_surely_has_too_many_tokens_has_them(text: str, tokens: int) -> None:
    if BYTE_LEVEL.surely_over(text, tokens):
        assert len(BYTE_LEVEL.encode(text, special_tokens=False)) > tokens


def test_the_bundled_tokenizer_is_used_where_it_fits(tmp_path: Path) -> None:
    bundled = load_tokenizer(tmp_path, 4096)
    assert bundled is not None
    assert bundled.vocab_size == 4096
    assert load_tokenizer(tmp_path, 4095) is None


def test_a_folders_own_tokenizer_and_templates_are_used(tmp_path: Path) -> None:
    sentencepiece_like().save(str(tmp_path / "tokenizer.json"))
    config = {
        "bos_token": {"content": "<s>"},
        "chat_template": [
            {"name": "tool_use", "template": "no"},
            {"name": "default", "template": "{{ bos_token }}yes"},
        ],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    named = load_tokenizer(tmp_path, 300)
    (tmp_path / "chat_template.jinja").write_text("own {{ messages[0].content }}", encoding="utf-8")
    own = load_tokenizer(tmp_path, 300)
    assert named is not None
    assert named.template is not None
    assert named.template.render(TURNS) == "<s>yes"
    assert own is not None
    assert own.template is not None
    assert own.template.render(TURNS) == "own be <b>brief</b>"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("tokenizer.json", "{}", "no tokenizer that can be read"),
        ("tokenizer_config.json", "{", "the chat template cannot be used"),
        ("tokenizer_config.json", '{"chat_template": "{% if %}"}', "the chat template cannot be used"),
    ],
)
def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path, name: str, content: str, why: str) -> None:
    sentencepiece_like().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=why):
        load_tokenizer(tmp_path, 300)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    sentencepiece_like().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(SettingsError, match="has 262 tokens, but the model's vocabulary only 100"):
        load_tokenizer(tmp_path, 100)


def test_templates_speak_for_themselves_and_cannot_reach_out(tmp_path: Path) -> None:
    sentencepiece_like().save(str(tmp_path / "tokenizer.json"))
    for source, why in (
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages[7].content }}", "no element 7"),
        ("{{ 1 / 0 }}", "division"),
    ):
        (tmp_path / "chat_template.jinja").write_text(source, encoding="utf-8")
        tokenizer = load_tokenizer(tmp_path, 300)
        assert tokenizer is not None
        assert tokenizer.template is not None
        with pytest.raises(ServingError, match=why) as error:
            tokenizer.template.render(TURNS)
        assert error.value.status == 400


def test_templates_have_what_hugging_face_gives_them(tmp_path: Path) -> None:
    sentencepiece_like().save(str(tmp_path / "tokenizer.json"))
    source = (
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ m.content | tojson }}{% endgeneration %}{% endfor %}{{ strftime_now('%Y') | length }}"
    )
    (tmp_path / "chat_template.jinja").write_text(source, encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path, 300)
    assert tokenizer is not None
    assert tokenizer.template is not None
    assert tokenizer.template.render(TURNS) == '"be <b>brief</b>"4'
