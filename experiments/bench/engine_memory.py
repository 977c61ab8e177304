"""How much memory the weights of several workers of one host take: a process of its own, whose forks are the workers.

``python -m experiments.bench.engine_memory FOLDER WORKERS`` prints one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from experiments.bench.figures import Figure

_WORKERS = 4


def weights_memory(folder: Path, workers: int = _WORKERS) -> Figure:
    """Proportional set size of the weights' pages in all workers, over the size of the files."""
    command = (sys.executable, "-m", "experiments.bench.engine_memory", str(folder), str(workers))
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    copies = found["weights_pss_bytes"] / found["weights_bytes"]
    private = found["private_bytes"] / workers
    note = (
        f"{found['weights_bytes'] / 1e6:.0f} MB of weights; beside them {private / 1e6:.0f} MB of a worker's own, from"
        " its start to the end of its first forward"
    )
    name = f"weights of {workers} workers of one host, PSS"
    return Figure(name, copies, "copies", "lower", None, 1, floor=1.15, aim=1.02, note=note)


def main(folder: Path, workers: int) -> None:
    """Fork the workers, let each load and run the model, and look at all of them while they live."""
    from reference_impl.engine.launcher import preload

    preload()
    release, hold = os.pipe()
    children = []
    for _ in range(workers):
        ready, told = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(hold)
            _work(folder, told, release)
        os.close(told)
        children.append((pid, ready))
    private = sum(int(_read(ready)) for _, ready in children)
    shared = sum(pss for pid, _ in children for path, pss in _mappings(pid) if path.endswith(".safetensors"))
    os.close(hold)
    for pid, _ in children:
        os.waitpid(pid, 0)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    sys.stdout.write(json.dumps({"weights_bytes": size, "weights_pss_bytes": shared, "private_bytes": private}) + "\n")


def _work(folder: Path, told: int, release: int) -> None:
    """A worker's life; never returns. Tells by how much its own memory grew."""
    from reference_impl.engine.kv_cache import KvPool
    from reference_impl.engine.model_facts import read_facts
    from reference_impl.engine.runner import Runner
    from reference_impl.engine.weights import ModelSource

    before = _private_bytes()
    pool = KvPool.create(None, read_facts(folder).kv_layout(16, "float32"), 4)
    runner = Runner(folder, ModelSource(str(folder)), pool)  # runs the model to try it out
    os.write(told, b"%d" % (_private_bytes() - before))
    os.close(told)
    os.read(release, 1)
    del runner
    os._exit(0)


def _read(descriptor: int) -> bytes:
    found = os.read(descriptor, 64)
    if not found:
        raise RuntimeError("a worker died before it had loaded the model")
    return found


def _mappings(pid: int) -> Iterator[tuple[str, int]]:
    """(path, PSS in bytes) of a process's mappings."""
    path = ""
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            path = words[5] if len(words) > 5 else ""
        elif words[0] == "Pss:":
            yield path, int(words[1]) * 1024


def _private_bytes() -> int:
    """Anonymous memory that this process shares with nobody."""
    words = (line.split() for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines())
    return sum(int(word[1]) * 1024 for word in words if word[0] == "Private_Dirty:")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
