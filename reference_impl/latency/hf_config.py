"""Find a model by name, or read its shape from a Hugging Face ``config.json``."""

from __future__ import annotations

from pathlib import Path

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.hf_shape import read_shape
from reference_impl.latency.models import MODELS
from reference_impl.latency.shapes import ModelShape

_LIVE = Path(__file__).parents[1] / "engine" / "models"
"""The engine's own models, one folder each; data, nothing of the engine is imported."""
_SUFFIXES = ("-hf", "-instruct", "-chat", "-base")


def model(name_or_hf_config_path: str | Path) -> ModelShape:
    """The named model (any case; ``meta-llama/Llama-3.1-8B-Instruct`` is found as ``llama-3.1-8b``), one of the
    engine's own (``tiny``), or one read from a ``config.json`` or the folder that holds it.

    Raises :class:`ProfileError` for an unknown name, a missing key or an architecture that is not modelled.
    """
    text = str(name_or_hf_config_path)
    path = Path(text)
    if path.is_dir() and (path / "config.json").exists():
        path = path / "config.json"
    if path.is_file():
        return read_shape(path)
    if text.lower().endswith(".json"):
        raise ProfileError(f"model file {text} does not exist")
    live = _live_models()
    if text in live:
        return read_shape(live[text])
    found = MODELS.get(_plain(text))
    if found is None:
        choices = ", ".join([*MODELS, *live])
        raise ProfileError(
            f"unknown model {text!r}; choose one of {choices}, or give the path of a Hugging Face config.json"
        )
    return found


def known_models() -> list[ModelShape]:
    """Every model that has a name, those of the engine last."""
    return [*MODELS.values(), *map(read_shape, _live_models().values())]


def _live_models() -> dict[str, Path]:
    """The engine's own: name -> configuration."""
    return {path.parent.name: path for path in sorted(_LIVE.glob("*/config.json"))}


def _plain(name: str) -> str:
    plain = name.replace("\\", "/").rstrip("/").split("/")[-1].lower().replace("_", "-").replace("meta-llama", "llama")
    while plain.endswith(_SUFFIXES):
        plain = plain[: plain.rindex("-")]
    return plain
