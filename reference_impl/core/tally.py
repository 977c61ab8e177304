"""What a host counts of its traffic for the scaling policy: totals since its start, and what an interval adds."""

from __future__ import annotations

from typing import NamedTuple

from policies.api import ServedView
from reference_impl.core.spec import Slo


class Counts(NamedTuple):
    """Totals since the start; those after ``arrived`` are of finished requests."""

    arrived: int = 0
    finished: int = 0
    met_slo: int = 0
    met_ttft: int = 0
    met_tpot: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    started: int = 0
    """That had a first token."""
    ttft_s: float = 0.0
    """Summed over those."""
    spaced: int = 0
    """That had two tokens or more."""
    tpot_s: float = 0.0
    """Summed over those."""

    def since(self, before: Counts) -> Counts:
        """What came on top of ``before``."""
        return Counts._make(now - then for now, then in zip(self, before, strict=True))

    def served(self) -> ServedView:
        """The finished requests of an interval, as a policy sees them."""
        if not self.finished:
            return ServedView()
        return ServedView(
            requests=self.finished,
            attainment_ttft=self.met_ttft / self.finished,
            attainment_tpot=self.met_tpot / self.finished,
            prompt_tokens=self.prompt_tokens / self.finished,
            output_tokens=self.output_tokens / self.finished,
            ttft_s=self.ttft_s / self.started if self.started else None,
            tpot_s=self.tpot_s / self.spaced if self.spaced else None,
        )

    @property
    def attainment(self) -> float | None:
        """Share of the finished requests that met every target; None: there were none."""
        return self.met_slo / self.finished if self.finished else None


NONE = Counts()


def finished(
    prompt_tokens: int, output_tokens: int, first_token_s: float | None, last_token_s: float, slo: Slo | None
) -> Counts:
    """One finished request; times since its arrival, ``first_token_s`` None where it had no token.

    A request meets a target that is not given, and the one on TPOT with a single token.
    """
    if first_token_s is None:
        return Counts(0, 1, slo is None, slo is None, slo is None, prompt_tokens, output_tokens)
    tpot_s = (last_token_s - first_token_s) / (output_tokens - 1) if output_tokens > 1 else None
    met_ttft = slo is None or slo.ttft_s is None or first_token_s <= slo.ttft_s
    met_tpot = slo is None or slo.tpot_s is None or tpot_s is None or tpot_s <= slo.tpot_s
    gap = (0, 0.0) if tpot_s is None else (1, tpot_s)
    met = (met_ttft and met_tpot, met_ttft, met_tpot)
    return Counts(0, 1, *met, prompt_tokens, output_tokens, 1, first_token_s, *gap)


def total(first: Counts, *more: Counts) -> Counts:
    """Added up."""
    return Counts._make(sum(column) for column in zip(first, *more, strict=True))
