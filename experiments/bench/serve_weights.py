"""How much memory the weights take where several instances of one deployment share them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.bench.figures import Figure
from experiments.bench.serve_host import deployment
from experiments.bench.serve_processes import WORKER, mappings, private_bytes, tree

_MODEL = "llama-30m"
_INSTANCES = 4
_LIMIT = 1.15


def weights_shared(folder: Path, quick: bool, report: Callable[[str], None]) -> list[Figure]:  # noqa: ARG001
    """Proportional set size of the weights in all processes of the deployment, over the size of the files."""
    fleet: dict[str, Any] = {"model": _MODEL, "kv_blocks": 64, "max_sequences": 8}
    fleet["groups"] = [{"count": _INSTANCES, "role": "colocated"}]
    with deployment(folder, fleet) as running:
        processes = tree(running.pid)
        workers = [process.pid for process in processes if process.role == WORKER]
        if len(workers) != _INSTANCES:
            raise RuntimeError(f"{len(workers)} workers were found, there must be {_INSTANCES}")
        mapped = [entry for process in processes for entry in mappings(process.pid) if is_weights(entry[0])]
        own = sum(private_bytes(pid) for pid in workers) / len(workers)
    return [figure_of(mapped, own)]


def figure_of(mapped: list[tuple[str, int]], own_bytes: float) -> Figure:
    """``mapped``: (path, PSS) of every mapping of weights."""
    size = sum(Path(path).stat().st_size for path in {path for path, _ in mapped})
    copies = sum(pss for _, pss in mapped) / size
    note = f"{_MODEL}, {size / 1e6:.0f} MB of weights; a worker has {own_bytes / 1e6:.0f} MB of its own beside them"
    name = f"serve: weights of {_INSTANCES} instances, PSS"
    return Figure(name, copies, "copies", "lower", None, 1, floor=_LIMIT, note=note)


def is_weights(path: str) -> bool:
    """Whether a mapping is of a file with weights."""
    return path.endswith(".safetensors")
