"""A lane's CPU time stays within its share, on clocks that the test moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference_impl.engine.api import EngineError
from reference_impl.engine.share import BURST_S, SHORTEST_SLEEP_S, Share, Throttle
from reference_impl.engine.yardstick import STANDARD_S, Yardstick


class Core:
    """A core on which one thread computes and sleeps."""

    def __init__(self) -> None:
        self.wall_s = 100.0
        self.cpu_s = 7.0
        self.slept_s = 0.0
        self.speed = 1.0
        """Standard seconds that it computes in one."""

    def compute(self, standard_s: float) -> None:
        seconds = standard_s / self.speed
        self.wall_s += seconds
        self.cpu_s += seconds

    def yardstick(self) -> Yardstick:
        return Yardstick(lambda: self.compute(STANDARD_S), lambda: self.cpu_s)

    def wait(self, seconds: float) -> None:
        self.wall_s += seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept_s += seconds
        self.wall_s += seconds

    def throttle(self, share: Share, yardstick: Yardstick | None = None) -> Throttle:
        return Throttle(share, yardstick, wall_s=lambda: self.wall_s, cpu_s=lambda: self.cpu_s, sleep=self.sleep)


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_a_busy_lane_gets_its_share_of_the_time(core: Core, tmp_path: Path, share: float) -> None:
    throttle = core.throttle(Share(tmp_path / "share", share))
    started_s = core.wall_s
    for layer in range(1000):
        core.compute(0.003)
        throttle(layer)
    assert 3.0 / (core.wall_s - started_s) == pytest.approx(share, rel=0.02)


def test_a_share_of_one_never_sleeps(core: Core, tmp_path: Path) -> None:
    throttle = core.throttle(Share(tmp_path / "share", 1.0))
    for layer in range(100):
        core.compute(0.01)
        throttle(layer)
    assert core.slept_s == 0


def test_waiting_saves_up_no_more_than_a_burst(core: Core, tmp_path: Path) -> None:
    throttle = core.throttle(Share(tmp_path / "share", 0.5))
    core.wait(60.0)
    throttle()
    core.compute(1.0)
    throttle()
    assert core.slept_s == pytest.approx((0.5 - BURST_S) / 0.5)  # half of the second was earned while computing it


def test_an_iteration_starts_with_nothing_saved_up(core: Core, tmp_path: Path) -> None:
    throttle = core.throttle(Share(tmp_path / "share", 0.5))
    core.wait(60.0)
    throttle.begin()
    core.compute(1.0)
    throttle()
    assert core.slept_s == pytest.approx(1.0)


def test_a_new_share_holds_from_the_next_layer_on(core: Core, tmp_path: Path) -> None:
    mine, theirs = Share(tmp_path / "share", 0.5), Share(tmp_path / "share")
    throttle = core.throttle(mine)
    for _ in range(200):
        core.compute(0.01)
        throttle()
    assert core.slept_s == pytest.approx(2.0, rel=0.05)
    theirs.set(1.0)
    core.slept_s = 0.0
    for _ in range(50):
        core.compute(0.01)
        throttle()
    assert core.slept_s == 0
    theirs.set(0.25)
    for _ in range(100):
        core.compute(0.01)
        throttle()
    assert core.slept_s == pytest.approx(3.0, rel=0.1)


def test_sleep_that_ends_too_early_is_continued(core: Core, tmp_path: Path) -> None:
    def doze(seconds: float) -> None:
        core.sleep(seconds / 2 + 1e-4)

    throttle = Throttle(
        Share(tmp_path / "share", 0.5), wall_s=lambda: core.wall_s, cpu_s=lambda: core.cpu_s, sleep=doze
    )
    core.compute(0.5)
    throttle()
    assert core.slept_s >= 0.5 - 2 * SHORTEST_SLEEP_S


def test_a_share_is_shared_through_its_file(tmp_path: Path) -> None:
    first = Share(tmp_path / "share", 0.4)
    second = Share(tmp_path / "share")
    assert second.value == 0.4
    second.set(0.75)
    assert first.value == 0.75
    assert Share(tmp_path / "share", 0.2).value == first.value == 0.2


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_what_is_no_share_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(EngineError, match=r"a CPU share of .*; allowed: above 0, at most 1"):
        Share(tmp_path / "share", share)
    assert not (tmp_path / "share").exists()


def test_a_steady_lane_keeps_its_speed_on_a_core_that_does_not(core: Core, tmp_path: Path) -> None:
    throttle = core.throttle(Share(tmp_path / "share", 0.2), core.yardstick())
    taken_s = {}
    for core.speed in (1.0, 0.7, 1.5):
        for iteration in range(40):
            throttle.begin()
            started_s = core.wall_s
            for layer in range(4):
                core.compute(0.002)
                throttle(layer)
            if iteration >= 20:  # the yardstick has seen the change
                taken_s[core.speed] = core.wall_s - started_s
    assert taken_s == pytest.approx(dict.fromkeys(taken_s, 4 * 0.002 / 0.2), rel=0.01)


def test_a_lane_that_is_not_steady_is_as_slow_as_its_core(core: Core, tmp_path: Path) -> None:
    throttle = core.throttle(Share(tmp_path / "share", 0.2))
    core.speed = 0.5
    throttle.begin()
    started_s = core.wall_s
    core.compute(0.002)
    throttle()
    assert core.wall_s - started_s == pytest.approx(2 * 0.002 / 0.2)


def test_measuring_the_core_costs_the_lane_nothing(core: Core, tmp_path: Path) -> None:
    throttle = core.throttle(Share(tmp_path / "share", 0.2), core.yardstick())
    for _ in range(50):
        throttle.begin()
    throttle()
    assert core.slept_s == 0.0


def test_one_measurement_that_was_interrupted_changes_nothing(core: Core) -> None:
    yardstick = core.yardstick()
    core.speed = 0.01
    yardstick.measure()
    assert yardstick.speed == pytest.approx(1.0)


def test_the_standard_work_takes_time() -> None:
    assert 0.01 < Yardstick().speed < 100
