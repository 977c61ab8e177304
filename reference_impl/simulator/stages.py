"""Pipeline parallelism in virtual time: when an iteration gets through stages that others are in, too."""

from __future__ import annotations

from reference_impl.core.spec import Pipeline


class Stages:
    """The stages of one pipeline; each works on one iteration at a time, in the order in which they were started.

    An iteration waits before a stage that is not free, never in the one that it has left.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._shares = pipeline.shares
        self._free_s = [0.0] * len(pipeline.shares)

    def enter(self, now_s: float, alone_s: float) -> float:
        """When an iteration that is ready at ``now_s`` leaves the last stage; alone it would take ``alone_s``."""
        at_s = now_s
        for stage, share in enumerate(self._shares):
            at_s = max(at_s, self._free_s[stage]) + share * alone_s
            self._free_s[stage] = at_s
        return at_s
