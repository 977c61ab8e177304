from __future__ import annotations

import pytest

from policies.api import Role
from reference_impl.serve.messages import Beat, Join, Kind
from reference_impl.serve.registry import Entry, Registry, SeatRefusedError


@pytest.fixture
def registry() -> Registry:
    return Registry({"front_door": 1, "job_executor": 2}, ["prefill", "decode", "decode"], silence_s=5.0, absence_s=1.0)


def asked(kind: Kind, role: Role | None = None, seat: int = -1, generation: int = 0) -> Join:
    return Join(kind, seat, generation, "unix:/x", 100, role)


def seated(registry: Registry, kind: Kind, role: Role | None = None, now_s: float = 0.0) -> Entry:
    entry = registry.join(asked(kind, role), now_s)
    assert entry is not None
    return entry


def test_instances_get_the_ids_of_their_role(registry: Registry) -> None:
    assert seated(registry, "task_executor", "decode").seat == 1
    assert seated(registry, "task_executor", "prefill").seat == 0
    assert seated(registry, "task_executor", "decode").seat == 2


def test_an_instance_beyond_the_configured_ones_gets_a_new_id(registry: Registry) -> None:
    for role in ("prefill", "decode", "decode"):
        seated(registry, "task_executor", role)
    assert seated(registry, "task_executor", "prefill").seat == 3
    assert registry.roles == ["prefill", "decode", "decode", "prefill"]


def test_who_finds_its_place_about_to_be_free_waits_for_it(registry: Registry) -> None:
    first = seated(registry, "task_executor", "prefill")
    registry.away(first.key, first.generation, 1.0)
    assert registry.join(asked("task_executor", "prefill"), 1.5) is None
    registry.give_up(first)
    assert seated(registry, "task_executor", "prefill", 2.1).seat == 0


def test_there_are_no_more_front_doors_than_configured(registry: Registry) -> None:
    first = seated(registry, "front_door")
    assert registry.join(asked("front_door"), 0.0) is None
    registry.give_up(first)
    assert seated(registry, "front_door").generation > first.generation


def test_a_process_takes_its_place_again_after_its_line_broke(registry: Registry) -> None:
    first = seated(registry, "job_executor")
    registry.heard(first.key, first.generation, Beat("ready"), 0.5)
    registry.away(first.key, first.generation, 1.0)
    again = registry.join(asked("job_executor", seat=0, generation=first.generation), 1.5)
    assert again is not None
    assert (again.seat, again.generation, again.beat.state) == (0, first.generation, "ready")
    assert registry.overdue(3.0) == []


def test_who_was_given_up_cannot_come_back(registry: Registry) -> None:
    first = seated(registry, "job_executor")
    registry.give_up(first)
    with pytest.raises(SeatRefusedError, match="it was given up"):
        registry.join(asked("job_executor", seat=0, generation=first.generation), 1.0)


def test_a_place_is_not_taken_from_who_has_it(registry: Registry) -> None:
    seated(registry, "job_executor")
    with pytest.raises(SeatRefusedError, match="another process has its seat"):
        registry.join(asked("job_executor", seat=0, generation=77), 1.0)


def test_a_new_cluster_manager_takes_places_as_they_are_claimed(registry: Registry) -> None:
    entry = registry.join(asked("task_executor", "prefill", seat=4, generation=7), 0.0)
    assert entry is not None
    assert (entry.seat, registry.roles[4]) == (4, "prefill")


def test_the_silent_and_the_gone_are_overdue(registry: Registry) -> None:
    silent, gone, well = (
        seated(registry, "job_executor"),
        seated(registry, "front_door"),
        seated(registry, "task_executor", "decode"),
    )
    registry.away(gone.key, gone.generation, 4.0)
    registry.heard(well.key, well.generation, Beat("ready"), 4.0)
    assert {entry.key: reason for entry, reason in registry.overdue(5.5)} == {
        silent.key: "it was silent for 5.5 s",
        gone.key: "it is gone",
    }
    registry.forgive(5.5)
    assert [entry for entry, _ in registry.overdue(5.5)] == [gone]


def test_words_of_a_predecessor_are_passed_over(registry: Registry) -> None:
    entry = seated(registry, "job_executor")
    assert not registry.heard(entry.key, entry.generation - 1, Beat("failed"), 1.0)
    registry.away(entry.key, entry.generation - 1, 1.0)
    assert (entry.beat.state, entry.away_since_s) == ("starting", None)


def test_the_others_hear_of_a_change_of_state_only(registry: Registry) -> None:
    entry = seated(registry, "job_executor")
    assert registry.heard(entry.key, entry.generation, Beat("ready"), 1.0)
    assert not registry.heard(entry.key, entry.generation, Beat("ready", in_flight=3), 2.0)


def test_who_is_missing_is_named(registry: Registry) -> None:
    for role in ("prefill", "decode", "decode"):
        entry = seated(registry, "task_executor", role)
        registry.heard(entry.key, entry.generation, Beat("ready"), 1.0)
    seated(registry, "front_door")
    assert registry.missing() == ["front door 0", "job executor 0", "job executor 1"]
