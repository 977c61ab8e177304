"""What an approximate prefix index remembers, and what it forgets."""

from __future__ import annotations

import random

from policies.api import InstanceView
from policies.dispatch.prefix_index import PrefixIndex, hit_tokens, longest_match, unbalanced
from policies.testing import fake_instance, fake_request

READY = tuple(fake_instance(i) for i in range(4))


def index(capacity: int = 100, ttl_s: float | None = None, *sent: tuple[int, tuple[int, ...]]) -> PrefixIndex:
    made = PrefixIndex(capacity, ttl_s)
    for instance_id, ids in sent:
        made.insert(ids, instance_id, READY, 0.0)
    return made


def test_matches_are_the_leading_ids_that_each_instance_was_sent() -> None:
    made = index(100, None, (0, (1, 2, 3)), (1, (1, 2)), (2, (9,)), (3, (1, 5, 6)))
    assert made.matches((1, 2, 3, 4), 0.0) == {0: 3, 1: 2, 3: 1}
    assert made.matches((7, 2, 3), 0.0) == {}
    assert made.matches((), 0.0) == {}


def test_matches_agree_with_a_plain_search() -> None:
    rng = random.Random(3)
    made, plain = index(10_000), [set[int]() for _ in READY]
    for _ in range(300):
        chain = [0]
        for _ in range(rng.randint(1, 6)):
            chain.append(chain[-1] * 3 + rng.randint(1, 3))  # an id tells its whole prefix, as chained ids do
        ids, instance_id = tuple(chain[1:]), rng.randrange(4)
        expected = {
            place: depth
            for place, held in enumerate(plain)
            if (depth := next((i for i, each in enumerate(ids) if each not in held), len(ids)))
        }
        assert made.matches(ids, 0.0) == expected
        made.insert(ids, instance_id, READY, 0.0)
        plain[instance_id].update(ids)


def test_each_instance_forgets_its_own_least_recently_sent_ends_first() -> None:
    made = index(3, None, (0, (1, 2, 3)), (1, (1, 2, 3)), (0, (8,)))
    assert made.matches((1, 2, 3), 0.0) == {0: 2, 1: 3}
    assert (made.size(0), made.size(1), made.size(2)) == (3, 3, 0)


def test_ids_expire_when_they_were_last_sent_too_long_ago() -> None:
    made = index(100, 10.0, (0, (1, 2, 3)))
    made.insert((1, 2), 0, READY, 5.0)
    assert made.matches((1, 2, 3), 10.0) == {0: 3}
    assert made.matches((1, 2, 3), 10.1) == {0: 2}
    assert made.matches((1, 2, 3), 15.1) == {}
    assert made.size(0) == 0


def test_instances_that_went_are_forgotten() -> None:
    made = index()
    for start in range(0, 400, 2):
        ready = (fake_instance(start), fake_instance(start + 1))
        for view in ready:
            made.insert((start, start + 1), view.instance_id, ready, 0.0)
    assert len(made._sent) <= 12
    assert len(made._holders) <= 24


def test_ids_that_are_not_chained_do_no_harm() -> None:
    made = index(100, None, (0, (1, 2)), (1, (2, 1)), (2, (3, 1, 2, 3)))
    for ids in ((1, 2), (2, 1), (3, 3, 3), (1, 9, 2)):
        assert all(0 < depth <= len(ids) for depth in made.matches(ids, 0.0).values())


def test_longest_match_names_the_ready_holders_only() -> None:
    found = {0: 2, 1: 3, 3: 3, 7: 5}
    assert longest_match(found, READY) == (3, [READY[1], READY[3]])
    assert longest_match({7: 5}, READY) == (0, [])


def test_a_hit_leaves_one_token_to_compute() -> None:
    assert hit_tokens(fake_request(0, 100, 1, 2, 3), 2) == 32
    assert hit_tokens(fake_request(0, 32, 1, 2), 2) == 31


def test_loads_are_unbalanced_where_both_bounds_are_passed() -> None:
    def loads(*requests: int) -> tuple[InstanceView, ...]:
        return tuple(fake_instance(i, running_requests=each) for i, each in enumerate(requests))

    assert not unbalanced(loads(0, 32), 32, 1.1)
    assert unbalanced(loads(0, 33), 32, 1.1)
    assert not unbalanced(loads(400, 440), 32, 1.1)
    assert unbalanced(loads(400, 441), 32, 1.1)
