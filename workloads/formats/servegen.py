"""ServeGen's client profiles: a tar with ``chunk-N-trace.csv`` and ``chunk-N-dataset.json`` per client.

The CSV has a row per 10 minutes: start, rate, CV, family (Gamma or Weibull; empty: no traffic), two parameters, shape
first. The JSON has per 6 hours the distribution of each field. Requests are drawn for a stretch that the user names:
per client and row a stationary renewal process of the published family and shape at the published rate; prompt and
output lengths each by a draw of their own (the published generator lets one draw select all fields of a request, which
makes long prompts always have long answers). Each client is a tenant. Fields other than ``input_tokens`` and
``output_tokens`` are not drawn; images, audio and video are refused. A client with traffic but without lengths is a
hole: refused, or left out and counted. Source: github.com/alibaba/ServeGen.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workloads.errors import TraceError, shown
from workloads.formats.reading import Reading
from workloads.formats.renewal import FAMILIES, MAX_SHAPE, arrivals_s
from workloads.settle import Invalid, Problem, RawRows, settle
from workloads.trace import Trace
from workloads.validate import MAX_TOKENS

_RATES = re.compile(r"(?:^|/)([^/]*chunk-(\d{1,9}))-trace\.csv$")
_FIELDS = ("input_tokens", "output_tokens")
_MAX_REQUESTS = 50_000_000
_SUM_TOLERANCE = 0.01


class ProfileError(Exception):
    """A hole or a mistake in one client's profile: what, the value, and what is allowed."""

    def __init__(self, column: str, value: object, allowed: str) -> None:
        super().__init__(column)
        self.column, self.value, self.allowed = column, value, allowed


class Stretch(NamedTuple):
    """One row of a client's rates, cut to the wanted window."""

    start_s: float
    end_s: float
    rate_rps: float
    family: str
    shape: float


class Drawn(NamedTuple):
    """The requests of one client."""

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]


def is_profile(names: list[str]) -> bool:
    """Whether files of these names are client profiles."""
    return any(_RATES.search(name) for name in names)


def parse(
    source: str,
    files: Mapping[str, bytes],
    name: str,
    metadata: Mapping[str, str],
    invalid: Invalid,
    reading: Reading,
) -> Trace:
    """Requests drawn from the profiles in ``files``. Raises TraceError naming ``source``, the client and the value."""
    reading.check(source, "ServeGen's client profiles", "window_s", "seed")
    if reading.window_s is None:
        raise TraceError(
            f"{source}: holds profiles of clients, not requests; say for which seconds to draw "
            f"(semiflow workloads convert FILE OUT.parquet --window 79200:82800)"
        )
    clients = sorted((int(match[2]), path) for path in files if (match := _RATES.search(path)))
    raw = RawRows(source, row_word="client")
    drawn: list[tuple[int, Drawn]] = []
    for client, path in clients:
        lengths = files.get(path.removesuffix("-trace.csv") + "-dataset.json")
        rng = np.random.default_rng([reading.random_seed, client])
        try:
            drawn.append((client, _draw(files[path], lengths, reading.window_s, rng)))
        except ProfileError as bad:
            raw.problems.append(Problem(client, bad.column, bad.value, bad.allowed))
    start, end = reading.window_s
    drawing = f"seed {reading.random_seed}; each field by its own draw"
    notes = {"arrivals": f"drawn from profiles, {start:g} to {end:g} s, {drawing}"}
    return _settle(raw, drawn, len(clients), name, {**metadata, **notes}, invalid)


def _settle(
    raw: RawRows,
    drawn: list[tuple[int, Drawn]],
    clients: int,
    name: str,
    metadata: Mapping[str, str],
    invalid: Invalid,
) -> Trace:
    """All clients' requests in the order of their times. Rows of a trace are clients until here, requests after."""
    if raw.problems and invalid == "error":
        first = raw.problems[0]
        value = f"client {first.row}, {first.column}: {shown(first.value)} (allowed: {first.allowed})"
        remedy = "leave them out with --invalid drop"
        raise TraceError(f"{raw.source}, {value}; {len(raw.problems)} of {clients} clients are incomplete: {remedy}")
    if not sum(len(part.arrival_s) for _, part in drawn):
        raise TraceError(f"{raw.source}: no client has traffic in this window (allowed: a window with requests)")
    notes = {"clients": str(clients), "clients_left_out": str(len(raw.problems))}
    if raw.problems:
        notes["clients_left_out_examples"] = "; ".join(
            f"client {problem.row}: {problem.column}={shown(problem.value)}" for problem in raw.problems[:3]
        )
    arrivals = np.concatenate([part.arrival_s for _, part in drawn])
    order = np.argsort(arrivals, kind="stable")
    tenants = np.concatenate([np.full(len(part.arrival_s), client) for client, part in drawn])[order]
    requests = RawRows(raw.source, row_word="drawn request", label=np.arange(len(order)))
    requests.arrival_s = arrivals[order]
    requests.prompt_tokens = np.concatenate([part.prompt_tokens for _, part in drawn])[order]
    requests.output_tokens = np.concatenate([part.output_tokens for _, part in drawn])[order]
    requests.labels["tenant"] = [f"client-{client}" for client in tenants.tolist()]
    return settle(requests, name, {**metadata, **notes}, invalid)


def _draw(rates: bytes, lengths: bytes | None, window_s: tuple[float, float], rng: np.random.Generator) -> Drawn:
    """The requests of one client; a random stream each for times, prompts and outputs."""
    times_rng, *field_rngs = rng.spawn(1 + len(_FIELDS))
    stretches = list(_stretches(rates, window_s))
    if sum((stretch.end_s - stretch.start_s) * stretch.rate_rps for stretch in stretches) > _MAX_REQUESTS:
        raise ProfileError("rate", "too high", f"at most {_MAX_REQUESTS:,} requests in the window")
    times = np.concatenate([np.empty(0), *(_times_s(stretch, times_rng) for stretch in stretches)])
    if not len(times):
        return Drawn(times, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    if lengths is None:
        raise ProfileError("dataset.json", None, "lengths for every client with traffic")
    periods = _periods(lengths)
    prompt, output = (
        _field(periods, field, times, field_rng) for field, field_rng in zip(_FIELDS, field_rngs, strict=True)
    )
    return Drawn(times - window_s[0], prompt, output)


def _times_s(stretch: Stretch, rng: np.random.Generator) -> NDArray[np.float64]:
    length_s = stretch.end_s - stretch.start_s
    return stretch.start_s + arrivals_s(FAMILIES[stretch.family], stretch.shape, stretch.rate_rps, length_s, rng)


def _stretches(rates: bytes, window_s: tuple[float, float]) -> Iterator[Stretch]:
    """The rows with traffic inside the window. A row lasts until the next; the last as long as the one before."""
    rows: list[tuple[float, float, str, float, int]] = []
    for number, line in enumerate(rates.decode(errors="replace").split("\n"), start=1):
        cells = line.strip().split(",")
        if cells == [""]:
            continue
        if len(cells) != 6:
            raise ProfileError(f"trace.csv line {number}", line, "six cells: start, rate, CV, family, two parameters")
        numbers = [_number(number, cell) for cell in (cells[0], cells[1], cells[4])]
        if rows and numbers[0] <= rows[-1][0]:
            raise ProfileError(f"trace.csv line {number}", cells[0], "ascending starts")
        rows.append((numbers[0], numbers[1], cells[3], numbers[2], number))
    ends = [row[0] for row in rows[1:]]
    ends.append(rows[-1][0] + (rows[-1][0] - rows[-2][0] if len(rows) > 1 else 0.0) if rows else 0.0)
    if not rows or ends[-1] < window_s[1] or rows[0][0] > window_s[0]:
        span = f"{rows[0][0]:g} to {ends[-1]:g}" if rows else "nothing"
        raise ProfileError("window", f"{window_s[0]:g} to {window_s[1]:g} s", f"inside the profile: {span} s")
    for (start, rate, family, shape, number), end in zip(rows, ends, strict=True):
        inside = max(start, window_s[0]), min(end, window_s[1])
        if inside[0] >= inside[1] or rate == 0.0:
            continue
        law = FAMILIES.get(family)
        if rate < 0.0 or law is None or not law.least_shape <= shape <= MAX_SHAPE:
            known = " or ".join(f"{name} of shape {law.least_shape}..{MAX_SHAPE:g}" for name, law in FAMILIES.items())
            what = f"rate {rate:g}, family {family!r}, shape {shape:g}"
            raise ProfileError(f"trace.csv line {number}", what, f"rate >= 0, {known}")
        yield Stretch(*inside, rate, family, shape)


def _number(line: int, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ProfileError(f"trace.csv line {line}", text, "finite numbers")
    return number


def _periods(lengths: bytes) -> list[tuple[float, Mapping[str, object]]]:
    """Start and fields of each period, in order."""
    allowed = "a JSON object: start in seconds -> field -> '{tokens: probability, ...}'"
    try:
        document = json.loads(lengths)
        periods = sorted((float(start), fields) for start, fields in document.items())
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ProfileError("dataset.json", lengths[:40], allowed) from error
    if not periods or not all(isinstance(fields, dict) for _, fields in periods):
        raise ProfileError("dataset.json", lengths[:40], allowed)
    return periods


def _field(
    periods: list[tuple[float, Mapping[str, object]]],
    field: str,
    times_s: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """One length per time, from the distribution of its period; times before the first period use the first."""
    starts = np.array([start for start, _ in periods])
    period_of = np.maximum(np.searchsorted(starts, times_s, side="right") - 1, 0)
    uniform = rng.random(len(times_s))
    drawn = np.empty(len(times_s), dtype=np.int64)
    for period in np.unique(period_of).tolist():
        fields = periods[period][1]
        if any(key.startswith(("image", "audio", "video", "text_")) for key in fields):
            raise ProfileError("dataset.json", "images, audio or video", "text only: these are not modelled")
        tokens, cumulative = _distribution(field, fields.get(field))
        chosen = period_of == period
        place = np.searchsorted(cumulative, uniform[chosen] * cumulative[-1], side="right")
        drawn[chosen] = tokens[np.minimum(place, len(tokens) - 1)]
    return drawn


def _distribution(field: str, text: object) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Token counts and cumulated probabilities of ``{45: 0.0097, 46: 0.0117}``."""
    allowed = "'{tokens: probability, ...}' with probabilities that add up to 1"
    if not isinstance(text, str) or not text.startswith("{") or not text.endswith("}"):
        raise ProfileError(field, text, allowed)
    pairs = [pair.partition(":") for pair in text[1:-1].split(",") if pair.strip()]
    try:
        tokens = np.array([int(key) for key, _, _ in pairs], dtype=np.int64)
        probability = np.array([float(value) for _, _, value in pairs])
    except (ValueError, OverflowError) as error:
        raise ProfileError(field, text, allowed) from error
    total = float(probability.sum()) if len(pairs) else 0.0
    fine = len(pairs) and (probability >= 0.0).all() and abs(total - 1.0) <= _SUM_TOLERANCE
    if not fine or tokens.min() < 0 or tokens.max() > MAX_TOKENS:
        raise ProfileError(field, f"{len(pairs)} values, sum {total:g}", allowed)
    return tokens, np.cumsum(probability)
