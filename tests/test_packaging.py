"""The wheel: complete, installable into a clean environment, and usable from any other folder."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("policies", "workloads", "reference_impl", "experiments")
DISTRIBUTION = {"yaml": "pyyaml", "markupsafe": "jinja2", "pydantic_core": "pydantic"}
DISTRIBUTION |= {"fastapi": "ray", "starlette": "ray", "uvicorn": "ray", "prometheus_client": "prometheus-client"}
"""Imported name -> the declared distribution that brings it, where the names differ."""
LIVE_PARTS = ("reference_impl/engine", "reference_impl/serve", "experiments/bench", "workloads/client/words.py")
"""What needs the extra ``serve``."""
COMES_WITH_TORCH = {"triton"}
"""Builds of torch for a GPU bring it; without one it is not used."""
IN_VLLM = ("experiments/validation/in_vllm.py", "experiments/validation/record_in_vllm.py")
"""Run in an interpreter of the user's that has vLLM."""
OWN_POLICY = '''\
"""A user's policy, in a file of their own."""

import random
from dataclasses import dataclass, field

from policies.api import ClusterView, Dispatch, RequestView


@dataclass
class First:
    """Always the first instance."""

    kind = "dispatch"
    name = "first"
    rng: random.Random = field(default_factory=random.Random, init=False)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        return Dispatch(cluster.instances[0].instance_id)
'''


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the back end itself: isolation would need a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("semiflow-*.whl")
    return built


@pytest.fixture(scope="module")
def clean_bin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts of a new environment that holds the wheel, and sees the dependencies of the one that runs the tests.

    The dependencies come through a ``.pth`` line, behind the environment's own packages; ``.pth`` files that lie there
    are not followed, so an editable install of this checkout stays out of sight.
    """
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return folder / "bin"


def run(command: list[str], cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def declared_distributions(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return {re.split(r"[<>=\[]", line)[0] for line in [*project["dependencies"], *optional]}


def imported_distributions(paths: Iterable[Path]) -> set[str]:
    imported: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    foreign = imported - set(PACKAGES) - set(sys.stdlib_module_names)
    return {DISTRIBUTION.get(name, name) for name in foreign}


def test_every_imported_distribution_is_declared() -> None:
    sources = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")} - {
        ROOT / path for path in IN_VLLM
    }
    live = [path for path in sources if any(path.is_relative_to(ROOT / part) for part in LIVE_PARTS)]
    assert imported_distributions(sources - set(live)) <= declared_distributions()
    assert imported_distributions(live) <= declared_distributions("serve") | COMES_WITH_TORCH


def test_the_wheel_holds_every_source_and_data_file_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*")}
    wanted = {name for name in files if (ROOT / name).is_file() and "__pycache__" not in name and "/." not in name}
    assert names == {name for name in wanted if not name.endswith("ruff.toml")}
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_installed_command_runs_from_another_folder(clean_bin: Path, tmp_path: Path) -> None:
    code = "import policies, experiments; print(policies.__file__); print(experiments.__file__)"
    for place in run([str(clean_bin / "python"), "-c", code], tmp_path).split():
        assert Path(place).is_relative_to(clean_bin.parent)
    assert run([str(clean_bin / "semiflow"), "--version"], tmp_path).startswith("semiflow 0.")


def test_the_installed_simulator_runs_a_users_policy(clean_bin: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN_POLICY, encoding="utf-8")
    arguments = ["--trace", "bundled:sharegpt-like", "--instances", "2", "--max-requests", "20", "--json"]
    command = [str(clean_bin / "semiflow"), "simulate", "--dispatch", "mine:First", *arguments]
    assert json.loads(run(command, tmp_path))["metrics"]["completed"] == 20
