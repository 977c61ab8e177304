"""Every YAML in the repository's configurations loads, and names only things that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.compare_config import CompareConfig, expand
from experiments.config import RunConfig
from experiments.config_build import build_cluster
from experiments.config_file import load, read_mapping
from experiments.fidelity.config import FidelityConfig, calibrations, settings

FILES = sorted((Path(__file__).resolve().parents[1] / "experiments" / "configs").glob("*.yaml"))


def runs_of(path: Path) -> list[RunConfig]:
    content = read_mapping(path)
    if "variants" in content:
        return [case.config for case in expand(load(path, CompareConfig), str(path))]
    if "traces" in content:
        study = load(path, FidelityConfig)
        return [*(setting.config for setting in settings(study, str(path))), *calibrations(study, str(path)).values()]
    return [load(path, RunConfig)]


def test_there_are_configurations() -> None:
    assert len(FILES) >= 4


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_loads_and_its_cluster_can_be_built(path: Path) -> None:
    distinct = {config.model_copy(update={"seed": 0, "workload": RunConfig().workload}) for config in runs_of(path)}
    for config in distinct:
        assert len(build_cluster(config).instances) == config.fleet.instances
