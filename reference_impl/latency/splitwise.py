"""A cost model interpolated in Splitwise's table of prompt and token times."""

from __future__ import annotations

from math import inf
from pathlib import Path
from statistics import median
from typing import ClassVar, Literal

from reference_impl.latency.api import Piece, Work
from reference_impl.latency.csv_table import number, rows
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.interpolate import Curve, curve_of, line, value

_ENDLESS = 1 << 40
_MIXED = 1.1
"""splitwise-sim (performance_model.py): decodes make an iteration of prompts take a tenth longer."""
_COLUMNS = ("prompt_size", "batch_size", "tensor_parallel", "prompt_time", "token_time")
_MODELS = {"llama-2-70b": "llama2-70b", "bloom-176b": "bloom-176b"}
"""Our name of a model -> the table's."""
DecodeAxis = Literal["context", "sequences"]


class PromptTokenTable:
    """Prompt time over the tokens of an iteration, token time over the tokens that its decodes read.

    Both linear between the medians of the measured points, extrapolated beyond them. The table has no chunks (a prompt
    costs the same whatever was computed before it) and no mixed iterations (then prompts and decodes count together as
    prompt tokens, and the iteration takes a tenth longer: splitwise-sim's assumption).

    ``decode_axis``: a token time was measured with batch x prompt tokens of context, so it is looked up at the context
    of the batch. ``sequences`` looks it up at the number of decodes, as splitwise-sim does: then a decode costs nearly
    the same whatever the batch, since the first point is 128.
    """

    needs_spread: ClassVar[bool] = False

    def __init__(
        self, name: str, provenance: str, prompt: Curve, token: Curve, decode_axis: DecodeAxis = "context"
    ) -> None:
        self.name, self.provenance = name, provenance
        self._prompt, self._token = prompt, token
        self._by_context = decode_axis == "context"

    def iteration_s(self, work: Work) -> float:
        """Seconds of one iteration."""
        return self.piece(work).first_s

    def piece(self, work: Work) -> Piece:
        """Linear until the context of the decodes passes the next measured point."""
        chunks, decodes, context, _, _ = work
        if chunks:
            prompts_s = value(self._prompt, sum(new for new, _ in chunks) + decodes)
            return Piece(prompts_s * (_MIXED if decodes else 1.0), 0.0, _ENDLESS)
        if not self._by_context:
            return Piece(value(self._token, decodes), 0.0, _ENDLESS)
        first_s, slope, end = line(self._token, context)
        return Piece(first_s, slope * decodes, _ENDLESS if end == inf else int((end - context) // decodes) + 1)


def read_splitwise(
    path: Path, hardware: str, model: str, tp: int, decode_axis: DecodeAxis = "context"
) -> PromptTokenTable:
    """From splitwise-sim's ``perf_model.csv``: the rows of ``hardware`` (``a100-80gb``), ``model`` and ``tp``.

    Raises :class:`ProfileError` naming what the table has instead, or file, line and column.
    """
    wanted = (_MODELS.get(model, model), hardware, tp)
    points: dict[tuple[str, str, int], dict[int, list[tuple[float, float]]]] = {}
    for number_of_line, row in rows(path, "model", "hardware", *_COLUMNS):
        prompt, batch, degree = (int(number(path, number_of_line, row, column)) for column in _COLUMNS[:3])
        times_s = [1e-3 * number(path, number_of_line, row, column, positive=True) for column in _COLUMNS[3:]]
        of_device = points.setdefault((row["model"], row["hardware"], degree), {})
        of_device.setdefault(prompt * batch, []).append((times_s[0], times_s[1]))
    found = points.get(wanted)
    if found is None:
        choices = sorted(f"{name} on {device} with tp {degree}" for name, device, degree in points)
        raise ProfileError(f"{path} has no {model} on {hardware} with tp {tp}; it has {', '.join(choices)}")
    prompt_s, token_s = (
        curve_of({tokens: median(times[place] for times in all_times) for tokens, all_times in found.items()})
        for place in (0, 1)
    )
    provenance = f"Splitwise's measured table ({path.name}), medians, decodes by {decode_axis}; error not published"
    return PromptTokenTable(f"splitwise({model}, {hardware}, tp={tp})", provenance, prompt_s, token_s, decode_axis)
