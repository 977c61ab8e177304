"""Are the engine's greedy tokens those of ``generate``, with chunks, prefix hits and preemptions on the way?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.bench import engine_hf
from experiments.bench.engine_host import Host, HostSettings, Served
from experiments.bench.engine_load import BenchRequest, described, mixed
from experiments.bench.figures import Figure
from reference_impl.engine.model_facts import read_facts

NEAR_TIE = 1e-5
"""Logits closer than this may change places with the order of a sum."""
_TIGHT = HostSettings(kv_blocks=100, batch="chunked_prefill:chunk_tokens=96", max_sequences=32)
_TIGHT_FOR_FEW = _TIGHT._replace(kv_blocks=48, max_sequences=10)
"""Too few blocks for what is admitted: decodes that grow preempt."""


def exactness(folder: Path, quick: bool) -> list[Figure]:
    """One figure for planning after, one for planning ahead of, each iteration's outcome."""
    requests = mixed(16 if quick else 64, read_facts(folder).vocab_tokens)
    model = engine_hf.load(folder)
    wanted = [engine_hf.static_batches(model, [request], 1).tokens[0] for request in requests]
    settings = _TIGHT_FOR_FEW if quick else _TIGHT
    host = Host(folder, settings.kv_blocks)
    figures = []
    for ahead in (False, True):
        served = host.serve(requests, settings._replace(plan_ahead=ahead))
        figures.append(_figure(model, requests, wanted, served, ahead))
    return figures


def _figure(
    model: Any, requests: list[BenchRequest], wanted: list[tuple[int, ...]], served: Served, ahead: bool
) -> Figure:
    ties: list[str] = []
    wrong: list[str] = []
    for number, (request, given, right) in enumerate(zip(requests, served.tokens, wanted, strict=True)):
        place = next((i for i, pair in enumerate(zip(given, right, strict=True)) if pair[0] != pair[1]), None)
        if place is not None:
            gap = _gap(model, request.prompt + right[:place])
            (ties if gap < NEAR_TIE else wrong).append(f"request {number} from token {place} on (gap {gap:.1e})")
    happened = (
        f"{served.unfinished_chunks} chunks within prompts, {served.hit_tokens} prompt tokens from the prefix cache,"
        f" {served.preemptions} preemptions in {served.iterations} iterations"
    )
    if not (served.unfinished_chunks and served.hit_tokens and served.preemptions):
        wrong.append("not everything that was to be tried happened")
    listed = f"; near ties: {', '.join(ties) or 'none'}" + (f"; WRONG: {', '.join(wrong)}" if wrong else "")
    return Figure(
        f"requests whose greedy tokens are not generate's{', planned ahead' if ahead else ''}",
        float(len(wrong)),
        "requests",
        "lower",
        None,
        1,
        floor=0.0,
        aim=0.0,
        note=f"{described(requests)}; {happened}{listed}",
    )


def _gap(model: Any, tokens: tuple[int, ...]) -> float:
    """Between the two likeliest next tokens."""
    import torch

    with torch.inference_mode():
        best = model(torch.tensor([tokens]), logits_to_keep=1).logits[0, -1].topk(2).values
    return float(best[0] - best[1])
