"""Markdown for a comment on a change: the verdict first, then the gated cells, the rest folded away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from experiments.compare import Comparison, Judgement, cell_name
from experiments.report import metric_label
from experiments.report.labels import number
from experiments.settled import LEGEND, MARK, any_growing, is_marked
from experiments.stats import Verdict

_SIGNS: Mapping[Verdict, str] = {"better": "✅", "worse": "❌", "no difference": "➖", "inconclusive": "❔"}


def markdown_text(comparison: Comparison, regressions: Collection[Judgement], *, gated: bool) -> str:
    """The comment; ``gated``: whether ``regressions`` decide over it."""
    config = comparison.config
    watched = [each for each in comparison.judgements if each.metric in config.gate_metrics]
    others = [each for each in comparison.judgements if each.metric not in config.gate_metrics]
    watched.sort(key=lambda each: each not in regressions)
    lines = [_headline(watched, regressions, gated), "", *_table(comparison, watched)]
    if others:
        lines += ["", f"<details><summary>{len(others)} more verdicts</summary>", ""]
        lines += [*_table(comparison, others), "", "</details>"]
    seeds = f"{len(config.seeds)} seeds, {100 * config.confidence:g} % intervals of paired differences"
    growing = f"; {_cell(LEGEND)}" if any_growing(comparison) else ""
    return "\n".join(
        [*lines, "", f"{_cell(config.title)} · baseline {_code(config.baseline_name)} · {seeds}{growing}\n"]
    )


def _headline(watched: Sequence[Judgement], regressions: Collection[Judgement], gated: bool) -> str:
    counts = Counter(each.verdict for each in watched)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _SIGNS if counts[verdict])
    if not gated:
        return f"**semiflow: {told}**"
    if not regressions:
        return f"✅ **semiflow: no regression** ({told})"
    return f"❌ **semiflow: {len(regressions)} regression{'s' if len(regressions) > 1 else ''}** ({told})"


def _table(comparison: Comparison, judgements: Sequence[Judgement]) -> Iterator[str]:
    yield "| | policy | traffic | metric | baseline | policy's | difference | interval | d |"
    yield "|---|---|---|---|--:|--:|--:|---|--:|"
    for each in judgements:
        mark = MARK.replace("*", r"\*") if is_marked(comparison, each) else ""
        cells = [f"{_SIGNS[each.verdict]} {each.verdict}{mark}", _code(each.variant), _code(cell_name(each))]
        cells += [_cell(metric_label(each.metric)), number(each.baseline_mean), number(each.variant_mean)]
        yield f"| {' | '.join([*cells, *_effect(each)])} |"


def _effect(judgement: Judgement) -> tuple[str, str, str]:
    found, relative = judgement.difference, judgement.relative_difference
    if found is None:
        return "–", "fewer than two seeds", "–"
    share = "" if relative is None else f" ({relative:+.1%})".replace("-", "−")
    between = f"[{number(found.low, signed=True)}, {number(found.high, signed=True)}]"
    return f"{number(found.mean, signed=True)}{share}", between, number(judgement.paired_d, signed=True)


def _cell(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    line = " ".join(text.split())
    for character in r"\`*_{}[]<>|#":
        line = line.replace(character, f"\\{character}")
    return line


def _code(text: str) -> str:
    line = " ".join(text.split()).replace("`", "'").replace("|", r"\|")
    return f"`{line}`"
