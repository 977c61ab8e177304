"""A run's folder appears complete or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from experiments.config_base import ConfigError
from experiments.run_folder import new_folder, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_not_there_before_the_end(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a" / "run") as folder:
        (folder / "x").write_text("1", encoding="utf-8")
        assert not (tmp_path / "a" / "run").exists()
    assert names(tmp_path / "a") == ["run"]
    assert names(tmp_path / "a" / "run") == ["x"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), ValueError()])
def test_an_error_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), new_folder(tmp_path / "run") as folder:
        (folder / "x").write_text("1", encoding="utf-8")
        raise error
    assert names(tmp_path) == []


def test_a_folder_in_use_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("1", encoding="utf-8")
    with pytest.raises(ConfigError, match="not empty; choose another one or replace it with --force"):
        new_folder(tmp_path).__enter__()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with new_folder(tmp_path / "run") as folder:
        (folder / "x").touch()
    assert names(tmp_path / "run") == ["x"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(ConfigError, match="a file of that name is in the way"):
        new_folder(tmp_path / "run", force=True).__enter__()


def test_force_replaces_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").touch()
    with new_folder(tmp_path / "run", force=True) as folder:
        (folder / "new").touch()
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["new"]


def test_a_failing_run_keeps_what_force_would_have_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").touch()
    with pytest.raises(RuntimeError, match="boom"), new_folder(tmp_path / "run", force=True):
        raise RuntimeError("boom")
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["metrics.json"]


@pytest.mark.parametrize("foreign", ["notes.txt", "config.yaml/"])
def test_force_replaces_no_folder_with_anything_else_in_it(tmp_path: Path, foreign: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").touch()
    place = tmp_path / "run" / foreign
    place.mkdir() if foreign.endswith("/") else place.touch()
    with pytest.raises(ConfigError, match=f"holds '{foreign.rstrip('/')}', which no run of semiflow wrote"):
        new_folder(tmp_path / "run", force=True).__enter__()
    assert names(tmp_path / "run") == sorted(["manifest.json", foreign.rstrip("/")])
    assert names(tmp_path) == ["run"]


def test_a_symbolic_link_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match=f"is a symbolic link; name the folder itself, {tmp_path / 'real'}"):
        new_folder(tmp_path / "link", force=True).__enter__()
    assert names(tmp_path) == ["link", "real"]


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="is the current folder"):
        new_folder(Path("."), force=True).__enter__()


def test_a_figure_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"x": float("nan")})
    assert names(tmp_path) == []


def test_json_keeps_its_order(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"b": 1, "a": 2})
    assert list(json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))) == ["b", "a"]


def test_a_place_that_takes_no_folder_is_named_as_the_user_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(**_: object) -> str:
        raise PermissionError(13, "Permission denied", "hidden")

    monkeypatch.setattr("tempfile.mkdtemp", refusing)
    expected = "run: cannot be made there: Permission denied; choose another folder"
    with pytest.raises(ConfigError, match=expected), new_folder(tmp_path / "run"):
        pass
