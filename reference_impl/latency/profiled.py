"""A cost model from a measured profile: mixed prefill and decode batches, looked up and interpolated."""

from __future__ import annotations

from math import inf

from reference_impl.latency.api import Piece, Work
from reference_impl.latency.collective import all_reduce_s
from reference_impl.latency.devices import HARDWARE, Hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.hf_config import model as find_model
from reference_impl.latency.interpolate import Curve, blend, line, value, weighted
from reference_impl.latency.llmservingsim import Plane, Profile
from reference_impl.latency.shapes import ModelShape

_ENDLESS = 1 << 40


class Profiled:
    """``layers x (operators by tokens + attention + all-reduces) + embedding + head by sequences``, nothing fitted.

    Operators and head: linear between the measured token counts. Attention: linear in each of its four axes between
    the measured points, and extrapolated beyond them. Several chunks in one iteration are looked up as one chunk of
    as many tokens and query-key pairs (that is what the kernel works through); its KV tokens before may then come
    out negative, where the line is mirrored. Unequal contexts: see :mod:`reference_impl.latency.skew`.
    Tensor parallelism: the profile holds one device's shard; two all-reduces a layer are added from the hardware's
    link, which the profile does not measure.
    """

    def __init__(self, profile: Profile, tp: int = 1, model: ModelShape | None = None) -> None:
        self.profile, self.tp = profile, tp
        self.model = find_model(profile.model) if model is None else model
        if self.model.experts is not None or self.model.latent is not None:
            raise ProfileError(
                f"{profile.folder}: {self.model.name} is no dense decoder; allowed: profiles of dense ones"
            )
        self.hardware = _hardware(profile, tp)
        self.needs_spread = profile.skew is not None
        self.name = f"profiled({profile.device or profile.folder.name}, {self.model.name}, tp={tp})"
        self.provenance = _provenance(profile, self.model, tp)
        chunks = sorted({chunk for chunk, _ in profile.attention})
        self._chunks = [chunk for chunk in chunks if chunk]
        self._decodes = {chunk: sorted(n for other, n in profile.attention if other == chunk and n) for chunk in chunks}
        self._least_s = min(curves[0][1][0] for _, curves in profile.attention.values())
        self._dense_by_tokens: dict[int, float] = {}
        self._head_by_sequences: dict[int, float] = {}
        self._column_by_decodes: dict[int, Curve] = {}

    def iteration_s(self, work: Work) -> float:
        """Seconds of one iteration."""
        chunks, decodes, context, least, largest = work
        tokens = decodes + sum(new for new, _ in chunks)
        base = self._dense_s(tokens) + self._head_s(decodes + len(chunks))
        mean = context / decodes if decodes else 0.0
        if not chunks:
            return base + self.model.layers * self._decode_attention(decodes, context, least, largest)[0]
        before = equivalent_context(chunks)
        attention = self._attention_s(tokens - decodes, before, decodes, mean)
        if decodes > 1 and largest > least and self.profile.skew is not None:
            at_most = self._attention_s(tokens - decodes, before, decodes, largest)
            rate = skew_rate(decodes, context, least, largest)
            alpha = self.profile.skew.alpha(tokens - decodes, decodes, rate, largest, before)
            attention += alpha * max(0.0, at_most - attention)
        return base + self.model.layers * attention

    def piece(self, work: Work) -> Piece | None:
        """Decodes alone: up to the next measured context of their mean or largest, or the edge of a skew bucket.

        None with chunks: two axes then move at once and the interpolant bends everywhere.
        """
        if work.chunks:
            return None
        decodes, context, least, largest = work.decodes, *work[2:]
        first, slope, room = self._decode_attention(decodes, context, least, largest)
        base = self._dense_s(decodes) + self._head_s(decodes)
        iterations = _ENDLESS if room == inf else int(room) + 1
        return Piece(base + self.model.layers * first, self.model.layers * slope, iterations)

    def _decode_attention(self, decodes: int, context: int, least: int, largest: int) -> tuple[float, float, float]:
        """Seconds of one layer, their growth per token of context, and how far contexts may grow on that line."""
        column, mean = self._column(decodes), context / decodes
        seconds, slope, end = line(column, mean)
        room = end - mean
        if decodes == 1 or largest <= least or self.profile.skew is None:
            return seconds, slope, room
        at_most, steeper, ceiling = line(column, largest)
        alpha = self.profile.skew.alpha(0, decodes, skew_rate(decodes, context, least, largest), largest, 0)
        room = min(room, ceiling - largest, self.profile.skew.axes["kv_big"].room(largest))
        return seconds + alpha * (at_most - seconds), slope + alpha * (steeper - slope), room

    def _column(self, decodes: int) -> Curve:
        """Decode attention over the context, for this many decodes."""
        column = self._column_by_decodes.get(decodes)
        if column is None:
            counts = self._decodes[0]
            parts = [
                (self.profile.attention[0, counts[index]][1][0], weight) for index, weight in blend(counts, decodes)
            ]
            column = self._column_by_decodes[decodes] = weighted(parts)
        return column

    def _attention_s(self, chunk: int, before: float, decodes: int, context: float) -> float:
        """One layer of a chunk beside decodes of equal contexts. Linear in all four axes."""
        if before < 0:
            here = self._attention_s(chunk, 0.0, decodes, context)
            mirrored = 2 * here - self._attention_s(chunk, -before, decodes, context)
            alone = value(self._column(decodes), context) if decodes else 0.0
            return max(mirrored, alone, self._attention_s(self._chunks[0], 0.0, decodes, context))
        total = 0.0
        for index, weight in blend(self._chunks, chunk):
            total += weight * self._chunk_attention_s(self._chunks[index], before, decodes, context)
        return max(total, self._least_s)

    def _chunk_attention_s(self, chunk: int, before: float, decodes: int, context: float) -> float:
        """The same for a profiled chunk size."""
        if not decodes:
            return _plane_s(self.profile.attention[chunk, 0], before, 0.0)
        counts, total = self._decodes[chunk], 0.0
        for index, weight in blend(counts, decodes):
            total += weight * _plane_s(self.profile.attention[chunk, counts[index]], before, context)
        return total

    def _dense_s(self, tokens: int) -> float:
        known = self._dense_by_tokens.get(tokens)
        if known is None:
            payload = tokens * self.model.hidden * self.model.bytes_per_value
            reduce_s = 2 * all_reduce_s(self.hardware, self.tp, payload) if self.hardware is not None else 0.0
            layer = _tabled(self.profile.layer, tokens) + reduce_s
            known = self._dense_by_tokens[tokens] = self.model.layers * layer + _tabled(self.profile.once, tokens)
        return known

    def _head_s(self, sequences: int) -> float:
        known = self._head_by_sequences.get(sequences)
        if known is None:
            known = self._head_by_sequences[sequences] = _tabled(self.profile.head, sequences)
        return known


def equivalent_context(chunks: tuple[tuple[int, int], ...]) -> float:
    """KV tokens before one chunk that has as many tokens and query-key pairs as all of ``chunks`` together."""
    if len(chunks) == 1:
        return chunks[0][1]
    tokens = sum(new for new, _ in chunks)
    twice_pairs = sum(new * (2 * computed + new) for new, computed in chunks)
    return (twice_pairs / tokens - tokens) / 2


def skew_rate(decodes: int, context: int, least: int, largest: int) -> float:
    """(mean - min)/(max - min) of the contexts, from integers, so that it stays the same while all of them grow."""
    return (context - decodes * least) / (decodes * (largest - least))


def _plane_s(plane: Plane, before: float, context: float) -> float:
    befores, curves = plane
    return sum(weight * value(curves[index], context) for index, weight in blend(befores, before))


def _tabled(curve: Curve, at: int) -> float:
    """Between the measured points linear; above them along the line from half of the last point to the last."""
    grid, values = curve
    last = grid[-1]
    if at <= last:
        return value(curve, max(at, grid[0]))
    slope = (values[-1] - value(curve, last / 2)) / (last / 2)
    return values[-1] + slope * (at - last)


def _hardware(profile: Profile, tp: int) -> Hardware | None:
    """The device by the profile's name for it (``RTXPRO6000``); only its link is used, so only with tp > 1."""
    plain = "".join(filter(str.isalnum, profile.device.lower()))
    found = next((item for name, item in HARDWARE.items() if name.replace("-", "") == plain), None)
    if found is None and tp > 1:
        raise ProfileError(
            f"{profile.folder}: hardware {profile.device!r} is unknown, so the all-reduce of tensor parallelism {tp} "
            f"cannot be added; known: {', '.join(HARDWARE)}"
        )
    return found


_MEASURED_ERROR = {
    ("RTXPRO6000", "llama-3.1-8b", 1): "against LLMServingSim's vLLM 0.19 run, nothing fitted: mean TTFT -2.5 %, "
    "P90 TTFT -2.3 %, mean TPOT +0.5 %, mean E2E -0.4 %",
}
"""What ``semiflow validate vllm-run`` said of a profile: (device, model, tensor parallelism)."""


def _provenance(profile: Profile, model: ModelShape, tp: int) -> str:
    skew = "with its skew table" if profile.skew else "without a skew table (unequal contexts cost as much as equal)"
    reduce = "; all-reduce analytic, from the link" if tp > 1 else ""
    error = _MEASURED_ERROR.get((profile.device, model.name, tp), "uncalibrated against any run")
    return (
        f"operator profile of {model.name} on {profile.device or 'an unnamed device'} in LLMServingSim's format, {skew}"
        f"{reduce}; no step overhead; {error}"
    )
