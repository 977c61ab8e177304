"""What unequal contexts of one decode batch cost, in LLMServingSim's skew tables.

``t = t_mean + alpha (t_max - t_mean)``: t_mean and t_max are the times of a batch whose contexts all have the mean
and the largest length. Alpha is tabled by bucket: prefill chunk, decodes, skew rate (mean - min)/(max - min), largest
context, and KV tokens before the chunk.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

from reference_impl.latency.csv_table import number, rows
from reference_impl.latency.errors import ProfileError

_AXES = ("n", "skew_rate", "kv_big", "kp")
Bucket = tuple[int, str, str, str, str]


@dataclass(frozen=True)
class Axis:
    """Buckets by their upper edges (inclusive); above the last edge the last bucket goes on."""

    edges: tuple[float, ...]
    labels: tuple[str, ...]

    def label(self, at: float) -> str:
        return self.labels[min(bisect_left(self.edges, at), len(self.labels) - 1)]

    def room(self, at: float) -> float:
        """How far ``at`` may grow and stay in its bucket."""
        index = bisect_left(self.edges, at)
        return self.edges[index] - at if index < len(self.labels) - 1 else float("inf")


@dataclass(frozen=True)
class SkewTable:
    """Alpha by bucket; a bucket without samples takes the default.

    A chunk between two profiled sizes takes both, weighted on a logarithmic scale. Held against the profile's own
    samples of a size that was left out, this predicts a skewed batch within 3.8 % on average, the default alone
    within 8.1 %. Alpha is kept in [0, 1]: no less than the mean's cost, no more than the largest context's.
    """

    axes: Mapping[str, Axis]
    alphas: Mapping[Bucket, float]
    chunks: tuple[int, ...]
    """The profiled chunk sizes, without 0."""
    default: float

    def alpha(self, chunk: int, decodes: int, skew_rate: float, largest: float, before: float) -> float:
        """Alpha in [0, 1] of a batch; ``chunk`` 0 for decodes alone, ``before`` the KV tokens before the chunk."""
        labels = (
            self.axes["n"].label(decodes),
            self.axes["skew_rate"].label(skew_rate),
            self.axes["kv_big"].label(largest),
            self.axes["kp"].label(before),
        )
        alpha = self.alphas.get((0, *labels), self.default) if chunk == 0 else 0.0
        for size, weight in self._around(chunk):
            alpha += weight * self.alphas.get((size, *labels), self.default)
        return min(1.0, max(0.0, alpha))

    def _around(self, chunk: int) -> tuple[tuple[int, float], ...]:
        """The profiled sizes around ``chunk`` and their weights."""
        if chunk == 0:
            return ()
        index = bisect_left(self.chunks, chunk)
        if index == len(self.chunks):
            return ((self.chunks[-1], 1.0),)
        if index == 0 or self.chunks[index] == chunk:
            return ((self.chunks[index], 1.0),)
        low, high = self.chunks[index - 1], self.chunks[index]
        weight = log(chunk / low) / log(high / low)
        return ((low, 1.0 - weight), (high, weight))


def read_skew(fitted: Path, samples: Path | None, fit: Mapping[str, Any], tp: int) -> SkewTable:
    """Read the fitted table; ``fit`` is the ``skew_fit`` mapping of the meta file, ``samples`` the raw measurement.

    Raises :class:`ProfileError` where the samples are those of another tensor-parallel degree.
    """
    per_degree = {str(key): entry for key, entry in (fit.get("per_tp") or {}).items() if isinstance(entry, dict)}
    if samples is not None:
        _check_degree(samples, per_degree, tp)
    axes = _axes(fitted, fit.get("bucket_axes"))
    alphas: dict[Bucket, float] = {}
    columns = ("pc", "n_label", "skew_rate_label", "kv_big_label", "kp_label", "alpha")
    for line, row in rows(fitted, *columns):
        if row.get("layer", "attention") != "attention":
            continue
        chunk = int(number(fitted, line, row, "pc"))
        labels = (row["n_label"], row["skew_rate_label"], row["kv_big_label"], row["kp_label"])
        alphas[(chunk, *labels)] = _alpha(fitted, line, row["alpha"])
    default = per_degree.get(str(tp), {}).get("alpha_default", 0.0)
    chunks = tuple(sorted({bucket[0] for bucket in alphas} - {0}))
    if not chunks:
        raise ProfileError(f"{fitted} has no row with a prefill chunk (pc above 0)")
    return SkewTable(axes, alphas, chunks, _told(fitted, f"alpha_default of degree {tp}", default))


def _alpha(path: Path, line: int, text: str) -> float:
    """Unlike every other figure of a profile, alpha may be negative (noise)."""
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ProfileError(f"{path}, line {line}: alpha is {text!r}; it must be a number") from None


def _axes(path: Path, described: object) -> dict[str, Axis]:
    if not isinstance(described, dict):
        raise ProfileError(f"{path}: the meta file's skew_fit has no bucket_axes, so its labels cannot be read")
    axes = {}
    for name in _AXES:
        bins, labels = described.get(f"{name}_bins"), described.get(f"{name}_labels")
        if not isinstance(bins, list) or not isinstance(labels, list) or len(bins) != len(labels) + 1:
            raise ProfileError(f"{path}: bucket_axes needs {name}_labels and one more {name}_bins than labels")
        axes[name] = Axis(
            tuple(_told(path, f"{name}_bins", edge) for edge in bins[1:]), tuple(str(label) for label in labels)
        )
    return axes


def _told(path: Path, what: str, value: Any) -> float:
    """A number of the meta file."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ProfileError(f"{path}: the meta file's {what} has {value!r}; it must be a number") from None


def _check_degree(samples: Path, per_degree: Mapping[str, Mapping[str, Any]], tp: int) -> None:
    """The meta file counts the samples of each degree; the files themselves do not say which degree they are."""
    count = sum(1 for _, row in rows(samples, "alpha") if row["alpha"] not in ("", "nan"))
    matching = [degree for degree, entry in per_degree.items() if entry.get("n_samples") == count]
    if matching and str(tp) not in matching:
        raise ProfileError(
            f"{samples} was measured at tensor parallelism {matching[0]} ({count} samples), not {tp}; "
            f"give the profile of degree {tp}"
        )
