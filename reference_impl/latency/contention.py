"""How fast a lane progresses on a part of a device, alone and beside the other lane."""

from __future__ import annotations

from dataclasses import dataclass

from policies.api import LaneKind
from reference_impl.latency.errors import ProfileError

SEMI_PD_DECODE_FLOOR = 0.3818 / (0.6284 + 0.3818)
"""Part of a decode iteration that does not shrink with the compute share: the fit TPOT = 0.6284/y + 0.3818 in Fig 10
of semi-PD (arXiv 2504.19867; Llama-3-8B, ShareGPT, A100), scaled to 1 at the whole device."""


@dataclass(frozen=True)
class ContentionModel:
    """Rate of progress of a lane, 1 being the whole device alone.

    Share dependence: an iteration takes ``(1 - floor)/share + floor`` times as long; ``floor`` is the part bound by
    bandwidth. Prefill: about 1/share (floor 0); decode: calibrated from semi-PD Fig 10. Two busy lanes whose shares
    add up to more than 100 % get their part of the sum.
    Co-run contention: while both lanes are busy, a lane takes ``1 + gamma`` times as long. No public measurement
    exists; both gammas are our assumption and should be swept.
    """

    prefill_floor: float = 0.0
    decode_floor: float = SEMI_PD_DECODE_FLOOR
    gamma_prefill: float = 0.1
    gamma_decode: float = 0.1

    def __post_init__(self) -> None:
        for name in ("prefill_floor", "decode_floor"):
            if not 0 <= getattr(self, name) < 1:
                raise ProfileError(f"{name} is {getattr(self, name)!r}; it must be in [0, 1)")
        for name in ("gamma_prefill", "gamma_decode"):
            if not getattr(self, name) >= 0:
                raise ProfileError(f"{name} is {getattr(self, name)!r}; it must be 0 or more")

    @property
    def provenance(self) -> str:
        """Where each number comes from."""
        return (
            f"prefill ~ 1/share (floor {self.prefill_floor:g}); decode floor {self.decode_floor:.4g} "
            f"(semi-PD Fig 10: {SEMI_PD_DECODE_FLOOR:.4g}); co-run gamma prefill {self.gamma_prefill:g}, "
            f"decode {self.gamma_decode:g}: assumed, uncalibrated"
        )

    def rate(self, lane: LaneKind, own_pct: int, other_pct: int, other_busy: bool) -> float:
        """Progress per second of a lane, in (0, 1]; a ``mixed`` lane counts as prefill.

        ``own_pct`` and ``other_pct`` are the shares in percent, 1..100; the other's matters only while it is busy.
        """
        total = own_pct + other_pct
        share = own_pct / total if other_busy and total > 100 else own_pct / 100
        if lane == "decode":
            floor, gamma = self.decode_floor, self.gamma_decode
        else:
            floor, gamma = self.prefill_floor, self.gamma_prefill
        slowdown = (1.0 - floor) / share + floor
        return 1.0 / (slowdown * (1.0 + gamma)) if other_busy else 1.0 / slowdown
