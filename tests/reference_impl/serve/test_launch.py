"""What can be said of bringing a deployment up without bringing one up; the rest is in ``test_ray``."""

from __future__ import annotations

import os
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from policies.registry import PolicySpec
from reference_impl.engine.shared_files import RunLock, shared_folder
from reference_impl.engine.testing import fake_spec
from reference_impl.serve.http.settings import HttpSettings
from reference_impl.serve.launch import _Arrivals as Arrivals
from reference_impl.serve.launch import launched
from reference_impl.serve.messages import Status
from reference_impl.serve.ray_cluster import LaunchError
from reference_impl.serve.spec import LiveSpec


def run_name() -> str:
    return f"{os.getpid()}_{secrets.token_hex(3)}"


def folder_of(run: str) -> Path:
    return Path(tempfile.gettempdir()) / f"semiflow-{run}"


@pytest.fixture
def spec(free_port: int) -> LiveSpec:
    run = run_name()
    return LiveSpec(
        run=run,
        folder=folder_of(run),
        epoch_s=time.monotonic(),
        token="secret",
        instances=(fake_spec(),),
        dispatch=PolicySpec.parse("round_robin", "dispatch"),
        scaling=PolicySpec.parse("fixed", "scaling"),
        predictor=PolicySpec.parse("none", "prediction"),
        http=HttpSettings("fake", 1024, 1000),
        port=free_port,
    )


@pytest.fixture
def left() -> Iterator[tuple[str, str]]:
    """Folders of a deployment whose operator was killed, and of one that lives."""
    dead, alive = run_name(), run_name()
    for run in (dead, alive):
        folder_of(run).mkdir()
    lock = RunLock(alive)
    yield dead, alive
    lock.release()
    for run in (dead, alive):
        if folder_of(run).exists():
            folder_of(run).rmdir()


def fails(spec: LiveSpec, **options: tuple[int, ...]) -> str:
    said: list[str] = []
    with pytest.raises(LaunchError) as error, launched(spec, said.append, **options):  # type: ignore[arg-type]
        pass
    assert said == [], "nothing was started"
    return str(error.value)


def test_cores_that_are_not_there_are_refused_and_nothing_is_left(spec: LiveSpec) -> None:
    before = os.sched_getaffinity(0)
    assert "cores [4000] cannot be used" in fails(spec, cores=(4000,))
    assert os.sched_getaffinity(0) == before
    assert not spec.folder.exists()
    assert not list(shared_folder().glob(f"semiflow-{spec.run}*"))


def test_an_address_that_is_not_ours_is_refused(spec: LiveSpec) -> None:
    elsewhere = replace(spec, http=replace(spec.http, host="192.0.2.77", open_to_all=True))
    assert f"192.0.2.77:{spec.port} cannot be listened at" in fails(elsewhere)


def test_a_port_of_one_front_door_that_is_taken_is_refused(spec: LiveSpec) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        several = replace(spec, port=port - 2, front_doors=2)
        assert re.search(rf"127.0.0.1:({port - 1}|{port}) cannot be listened at", fails(several))


def test_each_loss_of_rows_is_reported_once() -> None:
    said: list[str] = []
    arrivals = Arrivals(said.append, 0.0)
    for error in ("", "a", "a", "", "a", "a; b"):
        arrivals.note(Status((), (), False, error, 1))
    assert said == [
        f"the record of this run is not whole: {error}; serving goes on without it" for error in ("a", "a; b")
    ]


def test_what_a_killed_operator_left_is_swept(spec: LiveSpec, left: tuple[str, str]) -> None:
    dead, alive = left
    fails(spec, cores=(4000,))
    assert not folder_of(dead).exists()
    assert folder_of(alive).exists()
