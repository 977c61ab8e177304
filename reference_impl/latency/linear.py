"""Cost models that are linear in totals: DistServe's fits, and constant service for queueing theory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from reference_impl.latency.api import Piece, Work
from reference_impl.latency.errors import ProfileError, reason

_ENDLESS = 1 << 40


@dataclass(frozen=True)
class DecodeFit:
    """``base + per_context x context tokens + per_sequence x decodes``, for batches below ``below`` decodes."""

    base_s: float
    per_context_token_s: float = 0.0
    per_sequence_s: float = 0.0
    below: int | None = None
    """None: every batch that no earlier fit took."""

    def seconds(self, decodes: int, context: int) -> float:
        return self.base_s + self.per_context_token_s * context + self.per_sequence_s * decodes


@dataclass(frozen=True)
class Linear:
    """Prefill ``base + per_token x n + per_square x ((c + n)^2 - c^2)``, summed over chunks of n tokens after c.

    Decodes: the first of the fits that takes the batch. An iteration with both takes both, less the smaller of the
    two bases (one pass over the weights serves both).
    """

    prefill_base_s: float
    prefill_token_s: float
    prefill_square_s: float
    decode_fits: tuple[DecodeFit, ...]
    name: str = "linear"
    provenance: str = "coefficients given; uncalibrated"
    needs_spread: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.decode_fits or self.decode_fits[-1].below is not None:
            raise ProfileError(f"{self.name}: the last decode fit must have below=None, so that it takes every batch")
        figures = [self.prefill_base_s, self.prefill_token_s, self.prefill_square_s]
        for fit in self.decode_fits:
            figures += [fit.base_s, fit.per_context_token_s, fit.per_sequence_s]
            if not fit.base_s + fit.per_sequence_s > 0:
                raise ProfileError(f"{self.name}: a decode iteration would take no time; give base_s or per_sequence_s")
        if min(figures) < 0 or not self.prefill_base_s + self.prefill_token_s > 0:
            raise ProfileError(f"{self.name}: coefficients must be 0 or more, and a prefill must take time")

    def iteration_s(self, work: Work) -> float:
        """Seconds of one iteration."""
        chunks, decodes, context, _, _ = work
        total = 0.0
        fit = self._fit(decodes) if decodes else None
        if fit is not None:
            total = fit.seconds(decodes, context)
        if chunks:
            total += self.prefill_base_s - (min(fit.base_s, self.prefill_base_s) if fit is not None else 0.0)
            for new, computed in chunks:
                total += self.prefill_token_s * new + self.prefill_square_s * new * (new + 2 * computed)
        return total

    def piece(self, work: Work) -> Piece:
        """Linear without end."""
        chunks, decodes, _, _, _ = work
        growth = self._fit(decodes).per_context_token_s * decodes if decodes else 0.0
        for new, _ in chunks:
            growth += 2.0 * self.prefill_square_s * new * new
        return Piece(self.iteration_s(work), growth, _ENDLESS)

    def _fit(self, decodes: int) -> DecodeFit:
        for fit in self.decode_fits:
            if fit.below is None or decodes < fit.below:
                return fit
        raise AssertionError("the last fit takes every batch")


def constant(prefill_s: float, decode_s: float) -> Linear:
    """Every prefill iteration takes ``prefill_s``, every decode iteration ``decode_s``, whatever is in it."""
    fits = (DecodeFit(decode_s),)
    return Linear(prefill_s, 0.0, 0.0, fits, name="constant", provenance="constant by definition; uncalibrated")


def distserve(path: str | Path, model: str, tp: int = 1, pp: int = 1) -> Linear:
    """DistServe's fit for ``model`` (such as ``facebook/opt-13b``) at degree ``tp`` from its profile JSON.

    ``overheads``, where the file has them, are added: to a prefill ``pp`` times ``prefill_ms`` in each of ``pp``
    stages, whose times are added up here (simdistserve/estimators/time_estimator.py), the others once. Raises
    :class:`ProfileError` naming the missing model, degree or key.
    """
    data = read_fits(path)
    models = [name for name in data if "/" in name]
    if model not in models:
        raise ProfileError(f"{path} has no model {model!r}; it has {', '.join(models)}")
    if str(tp) not in data[model]:
        raise ProfileError(f"{path} has no degree {tp} for {model}; it has {', '.join(data[model])}")
    fits, added = data[model][str(tp)], data.get("overheads", {})
    iteration_ms, token_ms = (float(added.get(key, 0.0)) for key in ("iteration_ms", "token_ms"))
    try:
        base, token, square = (float(figure) for figure in fits["prefill"])
        below = int(fits["decoding_large_small_bs_threshold"])
        decodes = tuple(
            DecodeFit(1e-3 * (first + iteration_ms), 1e-3 * (context + token_ms), 1e-3 * sequence, limit)
            for key, limit in (("decoding_smallbs", below), ("decoding_largebs", None))
            for first, context, sequence in [map(float, fits[key])]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"{path}: {model}, degree {tp}: {error} is missing or no list of numbers") from error
    base += iteration_ms + pp * pp * float(added.get("prefill_ms", 0.0))
    note = f"DistServe's fit for {model} at tensor parallelism {tp} on A100-80G; error not published"
    name = f"distserve({model}, tp={tp})"
    return Linear(1e-3 * base, 1e-3 * (token + token_ms), 1e-3 * square, decodes, name, note)


def read_fits(path: str | Path) -> dict[str, Any]:
    """The content of a file in DistServe's format. Raises :class:`ProfileError` where it is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot read {path}: {reason(error)}") from error
    if not isinstance(data, dict):
        raise ProfileError(f"{path}: allowed: an object of models, each with fits by degree")
    return data
