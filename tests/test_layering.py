"""Imports point one way: policies, workloads <- reference_impl <- experiments, and no torch or ray outside of hosts."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("policies", "workloads", "reference_impl", "experiments")
ALLOWED = {
    "policies": ("policies",),
    "workloads": ("workloads",),
    "reference_impl/events.py": ("reference_impl.event_table",),
    "reference_impl/event_table.py": (),
    "reference_impl/request_labels.py": (),
    "reference_impl/latency": ("policies.api", "reference_impl.latency"),
    "reference_impl/core": (
        *("policies", "workloads", "reference_impl.core"),
        *("reference_impl.latency.api", "reference_impl.events"),
    ),
    "reference_impl/simulator": (
        *("policies", "workloads", "reference_impl.core", "reference_impl.latency"),
        *("reference_impl.simulator", "reference_impl.events"),
    ),
    "reference_impl/metrics": (
        *("workloads", "reference_impl.metrics"),
        *("reference_impl.events", "reference_impl.request_labels", "reference_impl.core.spec"),
    ),
    "reference_impl/recording": ("policies", "reference_impl.recording"),
    "reference_impl/engine": (
        *("policies", "workloads", "reference_impl.core", "reference_impl.engine", "reference_impl.events"),
        *("reference_impl.latency",),
    ),
    "reference_impl/serve": (
        *("policies", "workloads", "reference_impl.core", "reference_impl.engine", "reference_impl.events"),
        *("reference_impl.latency", "reference_impl.recording", "reference_impl.serve"),
        "reference_impl.request_labels",
    ),
    "reference_impl/serve/http": (
        *("policies.api", "reference_impl.engine.api", "reference_impl.engine.models", "reference_impl.serve.http"),
    ),
    "reference_impl": OURS[:3],
    "experiments": OURS,
}
"""Folder or file -> prefixes of our own modules that it may import. The longest key that fits a file counts."""
LIVE_ONLY = {"torch", "ray", "transformers", "safetensors", "tokenizers", "triton", "fastapi", "msgpack"}
LIVE = {
    "reference_impl/engine": ("torch", "transformers", "safetensors", "tokenizers", "triton"),
    "reference_impl/serve": ("ray", "fastapi", "msgpack"),
    "reference_impl/serve/http": ("tokenizers",),
    "experiments/bench": ("torch", "transformers", "ray"),
    "workloads/client": ("tokenizers",),
}
"""Folder -> what of the live stack it may import; policies, core and simulator never do."""
SLOW = {"pandas", "seaborn", "matplotlib", "optuna", "scipy", "numpy", "pyarrow"}


def sources(*folders: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            submodules = [f"{module}.{alias.name}" for alias in node.names if is_module(f"{module}.{alias.name}")]
            yield from submodules or [module]


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def rule_of(path: Path) -> tuple[str, ...]:
    fitting = [key for key in ALLOWED if path == Path(key) or Path(key) in path.parents]
    return ALLOWED[max(fitting, key=len)]


def within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


@pytest.mark.parametrize("path", sources(*OURS), ids=str)
def test_imports_follow_the_arrows(path: Path) -> None:
    ours = [module for module in imported_modules(path) if module.split(".")[0] in OURS]
    wrong = [module for module in ours if not any(within(module, prefix) for prefix in rule_of(path))]
    assert not wrong, f"{path} must not import {wrong}"


@pytest.mark.parametrize("path", sources("policies"), ids=str)
def test_policies_use_the_standard_library_only(path: Path) -> None:
    tops = {module.split(".")[0] for module in imported_modules(path)}
    assert tops <= {"policies", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", sources(*OURS), ids=str)
def test_the_live_stack_is_imported_only_where_it_is_used(path: Path) -> None:
    tops = {module.split(".")[0] for module in imported_modules(path)}
    allowed = {name for folder, names in LIVE.items() if Path(folder) in path.parents for name in names}
    assert tops & LIVE_ONLY <= allowed


def test_every_package_folder_has_an_init() -> None:
    folders = {path.parent for path in sources(*OURS)}
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()] == []


def test_tests_are_no_package() -> None:
    assert sources("tests")
    assert not [path for path in sources("tests") if path.name == "__init__.py"]


def test_the_command_line_starts_without_heavy_modules() -> None:
    every = "import sys; from experiments.cli.app import command_line; command_line([])"
    code = f"{every}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not set(loaded.split()) & (SLOW | LIVE_ONLY)


def test_a_foreign_policies_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "__init__.py").write_text("", encoding="utf-8")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import reference_impl"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert answer.returncode == 1
    assert f"ImportError: {tmp_path / 'policies'} hides semiflow's own 'policies'" in answer.stderr
    assert "PYTHONSAFEPATH=1" in answer.stderr
