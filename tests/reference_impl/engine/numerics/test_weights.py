"""Where weights come from: drawn once, taken as they are, converted once; or refused with a reason."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from reference_impl.engine.api import EngineError
from reference_impl.engine.model import load_model
from reference_impl.engine.model_facts import bundled_models, model_folder, read_facts
from reference_impl.engine.weights import ModelSource, ensure_weights, weight_files

MakeModel = Callable[..., Path]


@pytest.fixture
def saved(make_model: MakeModel, tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint as transformers saves it."""

    def save(family: str = "llama", *, shard: str = "1GB", dtype: str = "float32", **changes: object) -> Path:
        config = AutoConfig.from_pretrained(make_model(family, **changes))
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
        model.save_pretrained(tmp_path / "checkpoint", max_shard_size=shard)
        return tmp_path / "checkpoint"

    return save


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Of a short text, by the model's own attention."""
    model.set_attn_implementation("sdpa")  # type: ignore[operator]
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(2, 30)[None]).logits
    return found


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in weight_files(folder) for name, tensor in load_file(path).items()}


def test_weights_are_drawn_once_per_config_seed_and_dtype(make_model: MakeModel, tmp_path: Path) -> None:
    folder = str(make_model("llama"))
    first = ensure_weights(ModelSource(folder, 1), tmp_path)
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert ensure_weights(ModelSource(folder, 1), tmp_path) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    sources = ModelSource(folder, 2), ModelSource(folder, 1, "float16")
    others = [ensure_weights(source, tmp_path) for source in sources]
    assert len({first, *others}) == 3
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in (first, *others))


def test_a_seed_gives_the_same_weights_everywhere_and_leaves_the_global_generator_alone(
    make_model: MakeModel, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    one = tensors(ensure_weights(ModelSource(str(make_model("qwen3")), 5), tmp_path / "a"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    two = tensors(ensure_weights(ModelSource(str(make_model("qwen3")), 5), tmp_path / "b"))
    three = tensors(ensure_weights(ModelSource(str(make_model("qwen3")), 6), tmp_path / "c"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_can_be_named(name: str) -> None:
    facts = read_facts(model_folder(name))
    assert facts.vocab_tokens == 4096
    assert facts.eos_token_ids == {0, 2}


def test_a_saved_checkpoint_is_used_as_it_is(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved()
    source = ModelSource(str(folder))
    assert ensure_weights(source, tmp_path / "cache") == folder
    assert not (tmp_path / "cache").exists()
    assert torch.equal(logits(load_model(folder, source)), logits(AutoModelForCausalLM.from_pretrained(folder)))


def test_a_sharded_checkpoint_with_tied_embeddings_loads(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("qwen2", shard="40KB", tie_word_embeddings=True)
    assert len(weight_files(folder)) > 2
    source = ModelSource(str(folder))
    model = load_model(ensure_weights(source, tmp_path / "cache"), source)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    assert head.weight.data_ptr() == embedding.weight.data_ptr()
    assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(folder)))


@pytest.mark.parametrize("shard", ["1GB", "40KB"])
def test_a_checkpoint_of_another_dtype_is_converted_once(
    saved: Callable[..., Path], tmp_path: Path, shard: str
) -> None:
    folder = saved(dtype="bfloat16", shard=shard)
    source = ModelSource(str(folder))
    converted = ensure_weights(source, tmp_path / "cache")
    assert converted.parent == tmp_path / "cache"
    assert ensure_weights(source, tmp_path / "cache") == converted
    before, after = tensors(folder), tensors(converted)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].float(), after[name]) for name in before)
    wanted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(logits(load_model(converted, source)), logits(wanted))
    assert ensure_weights(ModelSource(str(folder), dtype="bfloat16"), tmp_path / "cache") == folder


def test_tied_weights_are_drawn_as_one_tensor(make_model: MakeModel, tmp_path: Path) -> None:
    source = ModelSource(str(make_model("llama", tie_word_embeddings=True)))
    folder = ensure_weights(source, tmp_path)
    assert "lm_head.weight" not in tensors(folder)
    assert logits(load_model(folder, source)).isfinite().all()


def test_a_cut_off_writer_leaves_nothing(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("reference_impl.engine.weights_writing.save_file", full)
    with pytest.raises(OSError, match="disk full"):
        ensure_weights(ModelSource(str(make_model("llama"))), tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_slower_of_two_writers_takes_the_others_copy(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ModelSource(str(make_model("llama")))
    rename = os.rename

    def late(origin: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        assert ensure_weights(source, tmp_path) == target  # the other writer
        rename(origin, target)

    monkeypatch.setattr(os, "rename", late)
    folder = ensure_weights(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert tensors(folder)


def test_parameters_are_pages_of_the_file(saved: Callable[..., Path]) -> None:
    """Not copies: every parameter lies in a mapping of the checkpoint's file."""
    folder = saved()
    model = load_model(folder, ModelSource(str(folder)))
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    spans = [line.split()[0].split("-") for line in maps if line.endswith("checkpoint/model.safetensors")]
    mapped = [(int(low, 16), int(high, 16)) for low, high in spans]
    assert mapped
    for name, parameter in model.named_parameters():
        assert any(low <= parameter.data_ptr() < high for low, high in mapped), name


def test_generation_config_names_the_end_tokens(saved: Callable[..., Path]) -> None:
    folder = saved()
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 9]}', encoding="utf-8")
    assert read_facts(folder).eos_token_ids == {7, 9}
    (folder / "generation_config.json").unlink()
    assert read_facts(folder).eos_token_ids == {1}


def test_an_unknown_model_shows_the_choices() -> None:
    with pytest.raises(EngineError, match=r"'gpt-9' is neither a bundled model nor a folder; allowed: llama-30m, tiny"):
        model_folder("gpt-9")


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"has no config\.json"):
        model_folder(str(tmp_path))


def test_weights_in_other_formats_are_refused(make_model: MakeModel, tmp_path: Path) -> None:
    folder = make_model("llama")
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(EngineError, match=r"has weights as pytorch_model\.bin only; allowed: \*\.safetensors"):
        ensure_weights(ModelSource(str(folder)), tmp_path)


def test_a_missing_shard_is_named(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved(shard="40KB")
    lost = weight_files(folder)[1]
    lost.unlink()
    with pytest.raises(EngineError, match=f"lacks {lost.name}"):
        ensure_weights(ModelSource(str(folder)), tmp_path / "cache")


def test_a_missing_weight_is_named(saved: Callable[..., Path]) -> None:
    folder = saved()
    found = tensors(folder)
    del found["model.norm.weight"]
    save_file(found, folder / "model.safetensors")
    with pytest.raises(EngineError, match=r"lacks model\.norm\.weight"):
        load_model(folder, ModelSource(str(folder)))


def test_a_weight_too_many_is_named(saved: Callable[..., Path]) -> None:
    folder = saved()
    save_file({**tensors(folder), "extra.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(EngineError, match=r"that its model lacks: extra\.weight"):
        load_model(folder, ModelSource(str(folder)))


def test_a_weight_of_another_shape_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved()
    save_file({**tensors(folder), "model.norm.weight": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(EngineError, match=r"does not fit its config\.json: .*model\.norm\.weight"):
        load_model(folder, ModelSource(str(folder)))


def test_a_torn_file_is_refused(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EngineError, match=r"cannot read .*model\.safetensors"):
        load_model(folder, ModelSource(str(folder)))
    path.write_bytes(b"nonsense")
    with pytest.raises(EngineError, match=r"cannot read .*model\.safetensors"):
        ensure_weights(ModelSource(str(folder)), tmp_path / "cache")


@pytest.mark.parametrize("text", ["", "[1]", "{", "{}"])
def test_a_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(EngineError, match=r"config\.json"):
        read_facts(tmp_path)


def test_old_buffers_in_a_checkpoint_are_ignored(saved: Callable[..., Path]) -> None:
    folder = saved()
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file({**tensors(folder), **buffer}, folder / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert logits(load_model(folder, ModelSource(str(folder)))).isfinite().all()


def test_the_key_of_drawn_weights_does_not_depend_on_the_order_of_the_config(
    make_model: MakeModel, tmp_path: Path
) -> None:
    folder = make_model("llama")
    first = ensure_weights(ModelSource(str(folder)), tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(dict(reversed(config.items()))), encoding="utf-8")
    assert ensure_weights(ModelSource(str(folder)), tmp_path) == first
