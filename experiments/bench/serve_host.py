"""The deployment that is measured: ``python -m experiments.bench.serve_host CONFIG.yaml FOLDER``.

It prints one JSON object once it is ready, and leaves a run's folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any

import yaml

from experiments.bench.serve_child import Child, child, hold
from experiments.config import RunConfig
from experiments.config_file import parse, read_mapping
from experiments.serve import live_deployment

MODEL = "tiny"


@contextmanager
def deployment(folder: Path, fleet: dict[str, Any], serve: dict[str, Any] | None = None) -> Iterator[Child]:
    """A deployment of ``fleet`` in a child process; the run is in ``folder / "run"`` afterwards."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(described(fleet, serve or {})), encoding="utf-8")
    with child("experiments.bench.serve_host", str(path), str(folder / "run")) as running:
        yield running


def described(fleet: dict[str, Any], serve: dict[str, Any]) -> dict[str, Any]:
    """The configuration: policies as in ``configs/live.yaml``."""
    return {
        "workload": {"trace": "bundled:shared-prefix"},
        "fleet": {"model": MODEL, "max_batch_tokens": 1024} | fleet,
        "policies": {"dispatch": "prefix_affinity", "batch": "chunked_prefill:chunk_tokens=256"},
        "host": {"plan_ahead": True},
        "serve": {"port": free_port()} | serve,
    }


def free_port() -> int:
    """One that nobody listens at now."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main(config: Path, out: Path) -> None:
    """Serve until the input ends."""
    described = parse(RunConfig, read_mapping(config), source=str(config))
    with live_deployment(described, out, _say) as running:
        hold({"port": running.spec.port, "epoch_s": running.spec.epoch_s, "ready_s": running.ready_s})


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
