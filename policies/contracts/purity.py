"""Catching a policy that reads a clock or draws luck of its own."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

_CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time")


@contextmanager
def no_hidden_inputs() -> Iterator[None]:
    """While this is open, reading a clock of module ``time`` fails, and so does, at the end, use of global randomness.

    Only in this thread, so that a test runner's own threads are left alone. ``from time import time`` in a policy's
    module escapes; the determinism tests and the linter's banned imports are the other nets.
    """
    luck = random.getstate()
    with ExitStack() as stack:
        for name in _CLOCKS:
            stack.enter_context(patch.object(time, name, _refuse(name, getattr(time, name), threading.get_ident())))
        yield
    assert random.getstate() == luck, "the policy draws from the global random module; it must draw from self.rng"


def _refuse(name: str, real: Callable[[], Any], thread: int) -> Callable[[], Any]:
    def clock() -> Any:
        assert threading.get_ident() != thread, f"the policy reads the clock (time.{name}); it must read view.now_s"
        return real()

    return clock
