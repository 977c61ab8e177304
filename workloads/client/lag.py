"""How late the client itself was: actual sending less schedule. A client that is late changes the traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workloads.client.record import Record


class Lag(NamedTuple):
    """Seconds, over the requests that were sent."""

    median_s: float
    p99_s: float
    max_s: float


def lag(records: Sequence[Record]) -> Lag | None:
    """None where nothing was sent."""
    late = [record.sent_s - record.scheduled_s for record in records if record.sent_s is not None]
    if not late:
        return None
    median, p99 = np.percentile(late, (50, 99))
    return Lag(float(median), float(p99), max(late))
