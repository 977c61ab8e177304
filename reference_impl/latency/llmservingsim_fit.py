"""From a profile in LLMServingSim's format to the coefficients of ``measured.py``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reference_impl.latency.identified import Error, Floats, error_of, held_out, solve
from reference_impl.latency.llmservingsim import Cell, Profile
from reference_impl.latency.measured import Coefficients, along

RULE = (
    "a quarter of the grid's lines, drawn by the seed, whole: of the token counts, of the numbers of sequences, and of "
    "the pairs (prefill chunk, decodes) with all their contexts. The coefficients are of all rows, the errors of a fit "
    "without these"
)
_KNOTS = (0, 16, 128, 512)
"""Token counts at which the cost of a further token changes: few tokens wait for the weights, many for arithmetic."""
_ATTENTION = ("launch", "chunk", "sequence", "pair", "chunk context", "decode context")
Terms = Mapping[str, Floats]


class ProfileFit(NamedTuple):
    """The model of all rows, and the errors per operator on rows kept aside."""

    coefficients: Coefficients
    errors: Mapping[str, Error]


def fit_profile(profile: Profile, layers: int, seed: int) -> ProfileFit:
    """Each operator for itself. Raises :class:`ProfileError` where its rows do not determine its coefficients."""
    tokens, dense_s = _dense(profile, layers)
    dense, dense_error = _fitted("token-dependent operators", _dense_terms(tokens), dense_s, tokens.tolist(), seed)
    grid, head_s = profile.head
    counts = np.array(grid)
    head_terms = {"launch": np.ones(len(counts)), "sequence": counts}
    head, head_error = _fitted("head by sequences", head_terms, np.array(head_s), list(grid), seed)
    lines, attention_s, terms = _attention(profile)
    attention, attention_error = _fitted("attention", terms, attention_s, lines, seed)
    launch, chunk, sequence, pair, chunk_context, decode_context = layers * attention
    coefficients = Coefficients(
        iteration_s=float(dense[0] + head[0] + launch),
        knots=_KNOTS,
        token_s=tuple(dense[1:].tolist()),
        sequence_s=float(head[1] + sequence),
        chunk_s=float(chunk),
        pair_s=float(pair),
        chunk_context_s=float(chunk_context),
        decode_context_s=float(decode_context),
    )
    return ProfileFit(coefficients, {"dense": dense_error, "head": head_error, "attention": attention_error})


def _fitted(what: str, terms: Terms, seconds: Floats, lines: Sequence[Hashable], seed: int) -> tuple[Floats, Error]:
    whole = solve(what, terms, seconds)
    aside = held_out(what, lines, seed)
    part = solve(what, {name: column[~aside] for name, column in terms.items()}, seconds[~aside])
    predicted = np.stack(list(terms.values()), axis=1)[aside] @ part
    groups = len({line for line, kept in zip(lines, aside, strict=True) if kept})
    return whole, error_of(predicted, seconds[aside], groups)


def _dense(profile: Profile, layers: int) -> tuple[Floats, Floats]:
    """Token counts, and seconds of all layers' token-dependent operators, embedding and final norm."""
    grid = profile.layer[0]
    once = np.interp(grid, *profile.once)
    return np.array(grid), layers * np.array(profile.layer[1]) + once


def _dense_terms(tokens: Floats) -> dict[str, Floats]:
    spent = np.array([along(_KNOTS, int(count)) for count in tokens], np.float64)
    return {"launch": np.ones(len(tokens)), **{f"token from {knot}": spent[:, i] for i, knot in enumerate(_KNOTS)}}


def _attention(profile: Profile) -> tuple[list[Cell], Floats, dict[str, Floats]]:
    """Of each measured point: the pair of chunk and decodes, seconds of one layer, and the terms of its cost."""
    cells, rows = [], []
    for cell, (befores, curves) in sorted(profile.attention.items()):
        chunk, decodes = cell
        chunks = 1 if chunk else 0
        for before, (contexts, values) in zip(befores, curves, strict=True):
            for context, seconds in zip(contexts, values, strict=True):
                pairs, read = chunk * (before + 0.5 * chunk), chunks * (before + chunk)
                rows.append((seconds, 1.0, chunks, decodes + chunks, pairs, read, decodes * context))
                cells.append(cell)
    columns = np.array(rows, np.float64).T
    return cells, columns[0], dict(zip(_ATTENTION, columns[1:], strict=True))
