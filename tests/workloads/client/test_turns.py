"""When requests are due: at their times, or after the answers that they wait for."""

from __future__ import annotations

import numpy as np

from workloads.client.turns import Due, Turns
from workloads.trace import Trace


def chain(think_s: float = 2.0) -> Trace:
    """Row 1 follows row 0, row 2 follows row 1; row 3 stands alone."""
    lengths = np.full(4, 8, np.int32), np.full(4, 2, np.int32)
    parents, thinks = np.array([-1, 0, 1, -1]), np.array([0.0, think_s, think_s, 0.0])
    return Trace("c", np.array([0.0, 1.0, 2.0, 9.0]), *lengths, parent_row=parents, think_s=thinks)


def test_an_open_loop_goes_by_the_recorded_times() -> None:
    turns = Turns(chain(), refused=[2], closed_loop=False)
    assert turns.first() == [Due(0.0, 0), Due(1.0, 1), Due(9.0, 3)]
    assert turns.refused == [Due(2.0, 2)]
    assert turns.after(0, 5.0) == []


def test_a_turn_is_due_its_think_time_after_the_answer() -> None:
    turns = Turns(chain(), refused=[], closed_loop=True)
    assert turns.first() == [Due(0.0, 0), Due(9.0, 3)]
    assert turns.after(0, 5.5) == [Due(7.5, 1)]
    assert turns.after(2, 1.0) == []


def test_a_request_that_is_not_sent_ends_when_it_is_due() -> None:
    turns = Turns(chain(), refused=[0, 2], closed_loop=True)
    assert turns.first() == [Due(2.0, 1), Due(9.0, 3)]
    assert turns.refused == [Due(0.0, 0)]
    assert turns.after(1, 7.0) == []
    assert turns.refused == [Due(0.0, 0), Due(9.0, 2)]
