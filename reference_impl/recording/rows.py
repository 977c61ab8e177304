"""The lines of a recording. Each is a JSON list ``[policy, kind, ...]``; ``policy`` counts the policies of one file.

=========== ======================================================================================================
kind        the rest of the line
=========== ======================================================================================================
``policy``  a mapping: kind, spec (as ``PolicySpec.parse`` reads it), seed, version; a policy object starts here
``see``     an InstanceView that is new since the decision before
``observe`` a PolicyEvent
``dispatch`` request, phase, now_s, ids of the instances shown (null: those of the decision before), answers, decision
``request`` a RequestView that turns up in the lane
``plan``    the lane's totals (:class:`LaneTotals`), its waiting, prefilling, decoding and paused sequences
            (:class:`SeenSequence` without the request), answers, decision
=========== ======================================================================================================

``answers`` are the calls that the policy made, each ``[name, arguments..., answer]``. Named tuples are lists of their
fields. A decision is null, ``["dispatch", ...]``, ``["reject", ...]``, ``["plan", ...]``, or the text of what is none.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from policies.api import BatchPlan, Dispatch, LaneKind, Reject, RequestView

VERSION = 1
Row = list[Any]
Answer = tuple[Any, ...]
"""Name of the call, its arguments, what it gave."""
encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode


class LaneTotals(NamedTuple):
    """The plain values of a LaneView."""

    now_s: float
    kind: LaneKind
    instance_id: int
    free_blocks: int
    total_blocks: int
    block_tokens: int
    max_sequences: int
    running_sequences: int
    max_batch_tokens: int
    decode_blocks: int
    decode_iterations: int = 0


class SeenSequence(NamedTuple):
    """A sequence as a policy saw it at one moment; satisfies ``policies.api.SequenceView``."""

    request: RequestView
    target_tokens: int
    computed_tokens: int
    context_tokens: int
    generated_tokens: int

    @property
    def request_id(self) -> int:
        return self.request.request_id


def decision_row(decision: object) -> Row | str | None:
    """A decision in plain values, equal for equal decisions; anything that is none as its text."""
    kind = type(decision)
    if kind is Dispatch:
        return ["dispatch", *decision]  # type: ignore[misc]  # mypy does not narrow by identity of type
    if kind is BatchPlan:
        assert isinstance(decision, BatchPlan)
        return ["plan", *decision._replace(skip=_ordered(decision.skip))]
    if kind is Reject:
        return ["reject", *decision]  # type: ignore[misc]
    return None if decision is None else repr(decision)


def plain(row: object) -> Any:
    """What reading back the written row gives: tuples become lists."""
    return json.loads(encode(row))


def request_of(fields: Row) -> RequestView:
    """A RequestView that was written as a list."""
    request = RequestView(*fields)
    return request._replace(prefix_ids=tuple(request.prefix_ids))


def _ordered(skip: object) -> Any:
    return sorted(skip, key=repr) if isinstance(skip, frozenset | set) else skip
