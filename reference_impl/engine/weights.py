"""Where a model's weights are, and how they come to be there: one copy on disk, which all processes of a host map."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reference_impl.engine.api import EngineError
from reference_impl.engine.kv_cache import Dtype
from reference_impl.engine.model_facts import model_folder, read_facts, read_json

INDEX = "model.safetensors.index.json"
_FORMAT = "1"
"""Part of every cache key: change it when drawn or converted weights would come out differently."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Which model, and how it runs."""

    path: str
    """A bundled model's name, or a folder in Hugging Face's layout; without safetensors its weights are drawn."""
    weights_seed: int = 0
    dtype: Dtype = "float32"
    device: Literal["cpu", "cuda"] = "cpu"


def ensure_weights(source: ModelSource, cache_dir: Path) -> Path:
    """A folder with config.json and safetensors of the wanted dtype.

    That is the checkpoint itself, or a folder of ``cache_dir`` that is written once: drawn from the seed where there is
    only a config, converted where the checkpoint has another dtype. Safe for several processes at once.
    """
    folder = model_folder(source.path)
    read_facts(folder)
    files = weight_files(folder)
    if files and not _other_dtype(files, source.dtype):
        return folder
    target = cache_dir / f"{folder.name}-{_key(source, folder, files)}"
    if not target.is_dir():
        _write(source, folder, files, target)
    return target


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a checkpoint, sharded or not; none where it has no weights."""
    if (folder / INDEX).is_file():
        shards = read_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise EngineError(f"{folder / INDEX} has no weight_map; download the checkpoint again")
        files = [folder / name for name in sorted(set(shards.values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise EngineError(f"checkpoint {folder} lacks {', '.join(missing)}; download it again")
    others = sorted(path.name for kind in ("*.bin", "*.pth", "*.gguf") for path in folder.glob(kind))
    if not files and others:
        raise EngineError(f"checkpoint {folder} has weights as {others[0]} only; allowed: *.safetensors (convert it)")
    return files


def _write(source: ModelSource, folder: Path, files: list[Path], target: Path) -> None:
    """Beside its place, then renamed: nobody ever sees half of it."""
    from reference_impl.engine.weights_writing import convert, draw

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as name:
        partial = Path(name) / "weights"
        partial.mkdir()
        for path in folder.glob("*.json"):
            if path.name != INDEX:
                shutil.copyfile(path, partial / path.name)
        if files:
            convert(files, source.dtype, partial)
        else:
            draw(folder, source.weights_seed, source.dtype, partial)
        try:
            os.rename(partial, target)
        except OSError:
            if not target.is_dir():  # else: another process was faster, and its copy is the same
                raise


def _other_dtype(files: list[Path], dtype: Dtype) -> bool:
    """Whether some floating-point weight has another dtype; reads the headers only."""
    wanted = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    found = {entry["dtype"] for path in files for name, entry in _header(path).items() if name != "__metadata__"}
    return any(kind != wanted for kind in found if kind in ("F64", "F32", "BF16", "F16"))


def _header(path: Path) -> dict[str, dict[str, str]]:
    """The JSON header of a safetensors file: a length in 8 bytes, then that many bytes."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            found = json.loads(file.read(min(size, 100_000_000)))
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot read {path}: {error}; it must be a safetensors file") from error
    if not isinstance(found, dict):
        raise EngineError(f"{path} has no safetensors header; download it again")
    return found


def _key(source: ModelSource, folder: Path, files: list[Path]) -> str:
    """What the cached weights depend on: all of the config's content and the seed, or the checkpoint's files."""
    parts = [_FORMAT, source.dtype]
    if files:
        parts += [f"{path.resolve()}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files]
    else:
        parts += [json.dumps(read_json(folder / "config.json"), sort_keys=True), str(source.weights_seed)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
