"""The story of a request for the eye."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_ROWS = 12
"""Of a longer list the first and the last half."""
PARTS = {
    "dispatch_wait": "waiting for the dispatch policy",
    "queue": "in the instance's queue",
    "prefill": "computing the prompt",
    "prefill_stall": "prompt admitted, not computed",
    "handover_wait": "waiting for hand-over",
    "transfer": "hand-over",
    "decode": "decoding",
    "decode_beside_prompts": "decoding beside prompts",
    "decode_stall": "left out, or between iterations",
    "preempted": "preempted, waiting",
    "lost": "lost with its instance, waiting",
    "recompute": "computing again after a drop",
    "recompute_stall": "admitted again, not computed",
    "until_first_token": "until the first token (client)",
    "streaming": "first to last token (client)",
}


def as_text(story: Mapping[str, Any]) -> str:
    """What a person reads first comes first."""
    parts = (_head, _times, _decided, _waited, _prompt, _decode, _elsewhere, _notes)
    return "\n".join(line for part in parts for line in part(story))


def _head(story: Mapping[str, Any]) -> Iterator[str]:
    path = " -> ".join(map(str, story["path"])) or "none"
    yield f"request {story['request']} of {story['run']} ({story['host']}): {story['outcome']}"
    yield (
        f"arrival {story['arrival_s']:.6f} s, {story['prompt_tokens']} prompt tokens ({story['cached_tokens']} cached),"
        f" {story['output_tokens']} output tokens; instances {path}; preemptions {story['preemptions']}"
    )
    yield f"TTFT {ms(story['ttft_s'])}, TPOT {ms(story['tpot_s'])}, E2E {ms(story['e2e_s'])}"
    slo = story["slo"]
    if slo is None:
        yield "SLO: none"
        return
    targets = [_target(name, slo[name]) for name in ("ttft", "tpot") if name in slo]
    yield f"SLO {'met' if slo['met'] else 'MISSED'}: {'; '.join(targets)}"


def _target(name: str, found: Mapping[str, Any]) -> str:
    left_s = found["left_s"]
    said = "no figure" if left_s is None else f"{ms(abs(left_s))} {'left' if left_s >= 0 else 'over'}"
    return f"{name.upper()} {ms(found['value_s'])} of {ms(found['target_s'])}, {said}"


def _times(story: Mapping[str, Any]) -> Iterator[str]:
    yield "\nwhere the time went"
    total = story["total_ns"]
    for name, spent in story["breakdown_ns"].items():
        yield f"  {PARTS[name]:<34}{spent / 1e6:>16,.6f} ms {spent / total:>7.1%}"
    yield f"  {'sum':<34}{total / 1e6:>16,.6f} ms"


def _decided(story: Mapping[str, Any]) -> Iterator[str]:
    for row in story["reasons"]:
        where = "" if row["instance"] is None else f", instance {row['instance']}"
        yield f"\n{row['kind']} at {row['time_s']:.6f} s{where}: {row['reason']}"
    for number, asked in enumerate(story["decisions"]):
        if 1 <= number < len(story["decisions"]) - 1 and asked["decision"] is None:
            continue
        said = _decision(asked["decision"])
        yield f"\nthe dispatch policy ({asked['phase']}) at {asked['now_s']:.6f} s decided {said}"
        yield from table(_HEADS, [_view(view) for view in asked["instances"]])
        for name, *arguments, seconds in asked["estimates"][:_ROWS]:
            yield f"  asked {name}({', '.join(map(str, arguments))}): {ms(seconds)}"


def _decision(decision: Any) -> str:
    if isinstance(decision, list | tuple):
        kind, *cells = decision
        return " ".join([str(kind), *(str(cell) for cell in cells if cell is not None)])
    return "nothing: it stays queued" if decision is None else str(decision)


_HEADS = ("instance", "age", "waiting", "running", "waiting tokens", "context tokens", "KV use", "prefix hit")


def _view(view: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(view["instance_id"]),
        ms(view["age_s"]),
        *(str(view[name]) for name in ("waiting_requests", "running_requests", "waiting_tokens", "context_tokens")),
        f"{view['kv_use']:.1%}",
        str(view.get("prefix_hit_tokens", "-")),
    )


def _waited(story: Mapping[str, Any]) -> Iterator[str]:
    for wait in story["waits"]:
        where = "at the front door" if wait["instance"] is None else f"on instance {wait['instance']}"
        yield f"\n{PARTS[wait['phase']]} {where} for {ms(wait['duration_s'])} from {wait['start_s']:.6f} s"
        if wait["instance"] is None:
            continue
        first = ", ".join(map(str, wait["admitted_before_first"]))
        yield (
            f"  meanwhile {wait['iterations']} iterations, {wait['iterations_with_prompts']} of them with"
            f" {wait['prompt_tokens_computed']} prompt tokens, up to {wait['most_decodes']} decodes"
        )
        more = ", ..." if wait["admitted_before"] > len(wait["admitted_before_first"]) else ""
        named = f" ({first}{more})" if first else ""
        kv = "" if wait["kv_use_most"] is None else f"; KV use up to {wait['kv_use_most']:.1%}"
        yield f"  admitted before it: {wait['admitted_before']}{named}; preempted: {wait['preemptions']}{kv}"


def _prompt(story: Mapping[str, Any]) -> Iterator[str]:
    if not story["prompt"]:
        return
    yield "\niterations of its prompt"
    heads = ("start", "each", "iterations", "instance", "lane", "own tokens", "all tokens", "decodes", "prompts beside")
    yield from table(heads, [_chunk(part) for part in story["prompt"]])


def _chunk(part: Mapping[str, Any]) -> tuple[str, ...]:
    more = ", ..." if part["prompts_beside_count"] > len(part["prompts_beside"]) else ""
    return (
        f"{part['start_s']:.6f} s",
        ms((part["end_s"] - part["start_s"]) / part["iterations"]),
        *(str(part[name]) for name in ("iterations", "instance", "lane")),
        "?" if part["own_tokens"] is None else str(part["own_tokens"]),
        *(str(part[name]) for name in ("prompt_tokens", "decodes")),
        (", ".join(map(str, part["prompts_beside"])) + more) or "none",
    )


def _decode(story: Mapping[str, Any]) -> Iterator[str]:
    decode = story["decode"]
    if not decode["gaps"]:
        return
    yield f"\n{decode['gaps']} gaps between tokens, median {ms(decode['gap_p50_s'])}; the longest"
    heads = ("before token", "start", "gap", "instance", "iterations", "prompt tokens", "decodes", "phases")
    rows = [
        (
            str(gap["token"]),
            f"{gap['start_s']:.6f} s",
            ms(gap["duration_s"]),
            *(str(gap[name]) for name in ("instance", "iterations", "prompt_tokens", "most_decodes")),
            ", ".join(gap["phases"]),
        )
        for gap in decode["longest"]
    ]
    yield from table(heads, rows)


def _elsewhere(story: Mapping[str, Any]) -> Iterator[str]:
    if "counterfactual" not in story:
        return
    yield "\nhad it been sent elsewhere (* as it was), and what that changes for all others"
    heads = ("instance", "for", "TTFT", "TPOT", "E2E", "cached", "SLO", "mean TTFT", "P99 TTFT", "SLO met")
    yield from table(heads, [_outcome(outcome) for outcome in story["counterfactual"]])
    if story["counterfactual_left_out"]:
        yield f"  not tried: {', '.join(map(str, story['counterfactual_left_out']))}; name some with --instances"


def _outcome(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    slo, others = outcome["slo_met"], outcome["others_slo_met"]
    return (
        f"{outcome['instance']}{'*' if outcome['chosen'] else ''}",
        outcome["phase"],
        *(ms(outcome[name]) for name in ("ttft_s", "tpot_s", "e2e_s")),
        str(outcome["cached_tokens"]),
        ("-" if slo is None else "met" if slo else "missed")
        if outcome["outcome"] == "finished"
        else outcome["outcome"],
        *(ms(outcome[name], "+") for name in ("others_ttft_mean_s", "others_ttft_p99_s")),
        "-" if others is None else f"{others:+d}",
    )


def _notes(story: Mapping[str, Any]) -> Iterator[str]:
    for note in story["notes"]:
        yield f"\nnote: {note}"


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], most: int = _ROWS) -> Iterator[str]:
    """Right-aligned columns; of more than ``most`` rows the first and the last ones."""
    hidden = len(rows) - most
    shown = [*rows] if hidden <= 0 else [*rows[: most // 2], *rows[len(rows) - most // 2 :]]
    widths = [max(map(len, column)) for column in zip(heads, *shown, strict=True)]
    for number, row in enumerate([heads, *shown]):
        if hidden > 0 and number == most // 2 + 1:
            yield f"  ... {hidden} more (--json has all)"
        yield "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))


def ms(seconds: float | None, sign: str = "") -> str:
    """Milliseconds; ``sign``: ``+`` shows it always."""
    return "-" if seconds is None else f"{seconds * 1e3:{sign},.3f} ms"
