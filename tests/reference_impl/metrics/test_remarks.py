"""What is said about a run's figures."""

from reference_impl.metrics import STILL_GROWING, remarks


def test_a_load_that_never_settled_is_said_with_its_growth() -> None:
    (said,) = remarks({"load_growing": 1.0, "load_growth": 0.32, "arrived": 9.0, "warmup_requests": 3.0})
    assert said.startswith(STILL_GROWING)
    assert "32%" in said


def test_missing_figures_after_warm_up_are_explained() -> None:
    (said,) = remarks({"load_growing": 0.0, "arrived": 1500.0, "warmup_requests": 2048.0})
    assert "2,048 concurrent requests" in said
    assert "only 1,500" in said


def test_a_settled_long_run_needs_no_remark() -> None:
    assert not list(remarks({"load_growing": 0.0, "load_growth": 0.05, "arrived": 3000.0, "warmup_requests": 2048.0}))
    assert not list(remarks({}))
