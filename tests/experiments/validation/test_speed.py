"""A machine's speed over a recorded run: measured by the steps of another engine, kept, followed by the simulation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from experiments.config_base import ConfigError
from experiments.validate import validate_vllm_run
from experiments.validation.recorded_steps import Step
from experiments.validation.speed import SPEED, read_speed, slowness_over, write_speed
from reference_impl.core.fleet_events import Slow
from reference_impl.latency.api import Work
from reference_impl.latency.measured import Coefficients, Measured

RECORDED = Path(__file__).resolve().parents[3] / "results" / "validation" / "recorded" / "vllm_cpu_full_pool_1"
STEP_S = 0.5
COST = Measured(Coefficients(STEP_S, (0,), (0.0,)), "made up")


def step(planned_s: float, done_s: float, real_s: float) -> Step:
    return Step(planned_s, done_s, real_s, Work((), 1, 9, 9, 9), 1, 0, 1, 0, 1)


def test_slowness_is_that_of_the_other_engine_at_the_same_moments_of_real_time() -> None:
    """Both have every other half second; the machine halves its speed at 30 s of real time."""
    turns, clock_s = [], 0.0
    for second in range(60):
        took_s = STEP_S if second < 30 else 2 * STEP_S
        turns.append(step(clock_s, clock_s + took_s, second + 0.5))
        clock_s += took_s
    run = [step(100 + second / 2, 100.5 + second / 2, second + 1.0) for second in range(60)]
    found = slowness_over(turns, run, COST, start_s=100.0)
    assert [each.factor for each in found] == pytest.approx([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    assert [each.at_s for each in found] == pytest.approx([0.5, 5.0, 10.0, 15.0, 20.0, 25.0])


def test_the_simulated_instance_follows_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(RECORDED, folder)
    steady = validate_vllm_run(folder).comparison
    write_speed(folder / SPEED, [Slow(0.0, 0, 1.5)])
    slower = {row["metric"] + row["statistic"]: row["simulated"] for row in validate_vllm_run(folder).comparison}
    before = {row["metric"] + row["statistic"]: row["simulated"] for row in steady}
    assert slower["tpotmean"] == pytest.approx(1.5 * before["tpotmean"], rel=0.05)
    assert slower["e2emean"] > 1.5 * before["e2emean"]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    slowness = (Slow(0.0, 0, 1.25), Slow(4.5, 0, 0.875))
    write_speed(tmp_path / SPEED, slowness)
    assert read_speed(tmp_path / SPEED) == slowness
    assert read_speed(tmp_path / "none.csv") == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read as CSV with the columns t, slowness"),
        ("\xff", "cannot be read as CSV"),
        ("t,speed\n0,1\n", "the columns are t, speed; allowed: t, slowness"),
        ("t,slowness\n0,1\n5,fast\n", r"line 3: 5,fast; allowed: seconds from 0 on, and a factor above 0"),
        ("t,slowness\n0,0\n", "line 2: 0,0; allowed"),
        ("t,slowness\n-1,1\n", "line 2: -1,1; allowed"),
        ("t,slowness\n1\n", "line 2: 1; allowed"),
        ("t,slowness\n0,nan\n", "line 2: 0,nan; allowed"),
    ],
)
def test_a_broken_file_is_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / SPEED).write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=said):
        read_speed(tmp_path / SPEED)
