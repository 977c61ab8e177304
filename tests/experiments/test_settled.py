"""Which points of a comparison are marked as not settled."""

from collections.abc import Mapping

import pytest

from experiments.cases.model import Case, Outcome
from experiments.compare import Comparison, compare
from experiments.compare_config import CompareConfig
from experiments.config_file import parse
from experiments.settled import any_growing, is_marked, still_growing

TWO = {"old": {"policies": {"dispatch": "round_robin"}}, "new": {"policies": {"dispatch": "random"}}}
Seeds = Mapping[tuple[str, float | None], int]


def _comparison(growing: Seeds) -> Comparison:
    """``growing``: in how many of four seeds the load of a variant at a rate still grows."""

    def run(case: Case) -> Outcome:
        grows = case.seed < growing.get((case.variant, case.rate), 0)
        return Outcome({"attainment": 0.9, "load_growing": float(grows)})

    content = {"variants": TWO, "rates": [1, 2], "rate_key": "rate_rps", "seeds": [0, 1, 2, 3]}
    return compare(parse(CompareConfig, content, "test"), runner=run)


@pytest.mark.parametrize(("seeds", "marked"), [(1, False), (2, True), (4, True)])
def test_half_of_the_seeds_mark_a_point(seeds: int, marked: bool) -> None:
    found = _comparison({("new", 2.0): seeds})
    assert still_growing(found, "new", "default", 2.0) == marked
    assert any_growing(found) == marked


def test_a_verdict_is_marked_if_either_side_has_not_settled() -> None:
    found = _comparison({("old", 2.0): 4})
    assert {judgement.rate: is_marked(found, judgement) for judgement in found.judgements} == {1.0: False, 2.0: True}


def test_runs_that_do_not_say_are_not_marked() -> None:
    content = {"variants": TWO, "rates": [1], "rate_key": "rate_rps", "seeds": [0]}
    found = compare(parse(CompareConfig, content, "test"), runner=lambda case: Outcome({"attainment": 0.9}))
    assert not any_growing(found)
