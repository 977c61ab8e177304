"""Policies as third parties have them: a module on the import path, or an installed package with entry points."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from policies.loading import plugins

ROUTER = """
    from dataclasses import dataclass, field
    from random import Random
    from typing import Annotated, ClassVar
    from policies.api import Choice, Dispatch, Range

    @dataclass
    class Mine:
        '''My router.

        Idea
            Always the last.
        Parameters
            weight: how much,
                and why.
        '''
        kind: ClassVar = "dispatch"
        name: ClassVar = "mine"
        weight: Annotated[float, Range(0, 4)] = 1.0
        limit: Annotated[int | None, Range(1, 9)] = None
        mode: Annotated[str, Choice("fast", "slow")] = "fast"
        on: bool = False
        label: str | None = "x"
        count: int = 0
        rng: Random = field(init=False)

        def dispatch(self, request, cluster):
            return Dispatch(cluster.instances[-1].instance_id)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes a module of the given name and source on the import path; the source defaults to a valid router."""
    written: list[str] = []

    def write(name: str, source: str = ROUTER) -> None:
        (tmp_path / f"{name}.py").write_text(dedent(source))
        written.append(name)

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def package(tmp_path: Path, module: Callable[..., None]) -> Iterator[Callable[[str, str], None]]:
    """Installs a package of the given name with these entry points (``name = module:Class`` lines)."""

    def install(name: str, entries: str) -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[semiflow.policies]\n{entries}\n")
        plugins.cache_clear()

    yield install
    plugins.cache_clear()
