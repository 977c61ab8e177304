"""What a stored outcome depends on besides its configuration: our code, the user's policies, the user's files.

Without it, editing a policy and running the comparison again would show the old policy's results.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from reference_impl.latency.published import published_file

_ROOT = Path(__file__).resolve().parents[2]
_SIMULATION = (
    *("policies", "workloads", "experiments/cases"),
    *(f"reference_impl/{part}" for part in ("core", "latency", "metrics", "simulator")),
)
_COMPOSITION = (
    *("experiments/config_build.py", "experiments/config_costs.py", "experiments/run.py"),
    *("reference_impl/events.py", "reference_impl/event_table.py"),
)
_SOURCES = (".py", ".yaml", ".json", ".csv")


def fingerprint(config: RunConfig) -> str:
    """Digest of all files that a run of ``config`` reads, so far as they are named in it or ours.

    Not covered: what a user's policy imports in turn, and traces that are found by name (the catalogue pins those).
    """
    named = [config.workload.trace, config.fleet.model]
    for fleet in (config.fleet, *(config.fleet.of(group) for group in config.fleet.groups)):
        named += [name for name in (fleet.hardware, fleet.hardware_profile) if name is not None]
        named.append((fleet.hardware_profile or "").rpartition(":")[0])  # FILE.json:fp8
    described = _texts([config.workload.synthetic, config.policies.model_dump()])
    named += [part for text in described for part in re.split("[:=,]", text)]  # kind:trace=FILE,column=output
    files = [path for name in named if name and (path := published_file(name) or Path(name)).is_file()]
    modules = [module for text in config.policies.model_dump().values() for module in _modules(str(text))]
    files += [origin for module in modules if (origin := _origin(module)) is not None]
    digest = hashlib.sha256(own_code().encode())
    for path in files:
        digest.update(_file_digest(path, path.stat().st_mtime_ns).encode())
    return digest.hexdigest()[:20]


def _texts(content: Any) -> Iterator[str]:
    """All texts in lists and mappings."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping | list):
        for each in content.values() if isinstance(content, Mapping) else content:
            yield from _texts(each)


def _modules(policy: str) -> Iterator[str]:
    """Modules of ``module:Class`` and of an installed policy; nothing for a built-in one."""
    head, _, rest = policy.partition(":")
    if rest and "=" not in rest.split(":")[0]:
        yield head
    if head in _installed():
        yield _installed()[head]


@lru_cache
def _installed() -> Mapping[str, str]:
    """Name -> module of the installed policies; looking them up reads every distribution's metadata."""
    return {entry.name: entry.module for entry in entry_points(group="semiflow.policies")}


def _origin(module: str) -> Path | None:
    """The module's file; None where there is none (the registry says so, better than we could)."""
    try:
        spec = find_spec(module)
    except (Exception, SystemExit):  # noqa: BLE001 - looking for pkg.mod imports pkg, which may do anything
        return None
    path = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return path if path is not None and path.is_file() else None


@lru_cache
def own_code(*more: Path) -> str:
    """Digest of what every simulated run is made with, and of the folders ``more`` of ours."""
    digest = hashlib.sha256()
    folders = (*(_ROOT / package for package in _SIMULATION), *more)
    packages = [path for folder in folders for path in sorted(folder.rglob("*"))]
    for path in [*packages, *(_ROOT / name for name in _COMPOSITION)]:
        if path.suffix in _SOURCES and path.is_file():
            digest.update(str(path.relative_to(_ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


@lru_cache
def _file_digest(path: Path, _mtime_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
