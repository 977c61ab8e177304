"""Figures of SLO classes and tenants: judged by their own targets, named by their own keys."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog, definition, group_of, summarise
from reference_impl.metrics.client_clock import on_client_clock
from reference_impl.metrics.groups import MOST_GROUPS
from reference_impl.request_labels import packed, unpacked

MakeRun = Callable[..., RunLog]
SLO = {"ttft_s": 1.0, "tpot_s": None, "classes": {"urgent": {"ttft_s": 0.2, "tpot_s": None}}}


def _request(number: int, first_s: float) -> list[Event]:
    return [
        Event(0.0, "arrive", number, tokens=4),
        Event(first_s, "prefilled", number, 0, tokens=1),
        Event(2.0, "finish", number, 0, tokens=1),
    ]


@pytest.fixture
def run(make_run: MakeRun) -> RunLog:
    """First tokens after 0.1, 0.5, 0.5, 0.5 and 1.5 s; the last request has neither tenant nor class."""
    events = [event for number, s in enumerate((0.1, 0.5, 0.5, 0.5, 1.5)) for event in _request(number, s)]
    labels = packed({"tenant": ["b", "b", "a", "a", None], "slo_class": ["urgent", "urgent", "", "other", ""]})
    return make_run(events, slo=SLO, **labels)


def test_a_request_is_judged_by_the_targets_of_its_class_or_else_by_the_general_ones(run: RunLog) -> None:
    found = summarise(run)
    assert found["attainment"] == found["attainment_ttft"] == 3 / 5
    assert found["goodput_rps"] == 1.5


def test_each_class_and_tenant_has_its_own_figures(run: RunLog) -> None:
    found = summarise(run)
    assert {key: found[key] for key in found if key.startswith("attainment[")} == {
        "attainment[class=other]": 1.0,
        "attainment[class=urgent]": 0.5,
        "attainment[tenant=a]": 1.0,
        "attainment[tenant=b]": 0.5,
    }
    assert found["arrived[tenant=b]"] == 2
    assert found["goodput_rps[class=urgent]"] == 0.5
    assert found["ttft_p99_ms[tenant=a]"] == pytest.approx(500)
    assert all(definition(key) for key in found)


def test_without_an_slo_groups_are_still_counted(make_run: MakeRun) -> None:
    found = summarise(make_run(_request(0, 0.5), **packed({"tenant": ["a"]})))
    assert found["arrived[tenant=a]"] == 1
    assert not [key for key in found if key.startswith(("attainment", "goodput"))]


def test_of_very_many_tenants_those_with_the_most_requests_are_shown(make_run: MakeRun) -> None:
    names = [f"t{number:03}" for number in range(MOST_GROUPS + 5)] + ["t035", "t036"]
    events = [event for number in range(len(names)) for event in _request(number, 0.5)]
    found = summarise(make_run(events, **packed({"tenant": names})))
    shown = [key for key in found if key.startswith("arrived[")]
    assert len(shown) == MOST_GROUPS
    assert "arrived[tenant=t036]" in shown
    assert "arrived[tenant=t034]" not in shown


@pytest.mark.parametrize("name", ["a]b", "x=[y]", "two words\n", "名"])
def test_names_may_hold_anything(make_run: MakeRun, name: str) -> None:
    found = summarise(make_run(_request(0, 0.5), **packed({"tenant": [name]})))
    assert group_of(f"arrived[tenant={name}]") == ("arrived", "tenant", name)
    assert found[f"arrived[tenant={name}]"] == 1
    assert on_client_clock({f"goodput_rps[tenant={name}]": 1.0}) == {f"goodput_rps_client[tenant={name}]": 1.0}


def test_labels_survive_the_log_and_unknown_requests_have_none() -> None:
    metadata = packed({"tenant": ["b", None, "a"], "slo_class": [None, "", None]})
    assert set(metadata["labels"]) == {"tenant"}
    found = unpacked(metadata, "tenant", np.array([2, 1, 0, 7]))
    assert found is not None
    names, codes = found
    assert [names[code] for code in codes] == ["a", "", "b", ""]
    assert packed({"tenant": None, "slo_class": ["", None]}) == {}
