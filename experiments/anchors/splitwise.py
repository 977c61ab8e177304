"""Splitwise's comparison of clusters: what each carries within nine slowdown targets, and how small it may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from experiments.anchors.anchor import Anchor, Progress
from experiments.anchors.splitwise_claims import claims, draw
from experiments.anchors.splitwise_clusters import DESIGNS, MODEL, TP, Cluster, run_config
from experiments.anchors.splitwise_sizing import smallest
from experiments.anchors.splitwise_targets import TARGETS, keeps_targets
from experiments.capacity import Sample, find_capacity
from experiments.cases.answers import Answers
from experiments.figures.study import Row

_TRACES = {"conv": "azure_2023_conv", "code": "azure_2023_code"}
_SECONDS = 120.0
_LOWEST_RPS, _HIGHEST_RPS = 5.0, 640.0
_TOLERANCE = 0.02
_SIZED_AT_RPS = 70.0
CASES = [(*design, "sequences") for design in DESIGNS] + [("iso-power", "conv", "context")]
"""Design, trace, and what the time of a decode iteration is looked up by."""
_ISO_THROUGHPUT = ("iso-throughput", "conv", "sequences")
Keeps = Callable[[Cluster, str, float, str], bool]


def measure(seeds: Sequence[int], progress: Progress, answers: Answers) -> list[Row]:
    """The highest rate of every cluster of every case; then the smallest clusters of each kind at one rate."""
    ordinal = count(1)

    def keeps(cluster: Cluster, trace: str, rate_rps: float, lookup: str) -> bool:
        progress(next(ordinal), f"{cluster.name} ({cluster.prompts}, {cluster.tokens}), {trace}, {rate_rps:.0f}/s")
        configs = [run_config(cluster, _TRACES[trace], rate_rps, _SECONDS, lookup, seed) for seed in seeds]
        kept: int = sum(answers.ask(keeps_targets, config) for config in configs)
        return kept * 2 > len(configs)

    rows = [_at_its_highest(case, cluster, keeps) for case in CASES for cluster in DESIGNS[case[:2]]]
    return rows + _at_one_rate(keeps)


def _at_its_highest(case: tuple[str, str, str], cluster: Cluster, keeps: Keeps) -> Row:
    _, trace, lookup = case

    def sample(rate_rps: float) -> list[Sample]:
        return [Sample(float(keeps(cluster, trace, rate_rps, lookup)), rate_rps)]

    found = find_capacity(sample, lowest=_LOWEST_RPS, highest=_HIGHEST_RPS, target=0.5, tolerance=_TOLERANCE)
    return _row(case, cluster, found.capacity_rps or 0.0, str(found.monotone))


def _at_one_rate(keeps: Keeps) -> list[Row]:
    _, trace, lookup = _ISO_THROUGHPUT
    return [
        _row(_ISO_THROUGHPUT, cluster, _SIZED_AT_RPS, "")
        for kind in DESIGNS["iso-power", trace]
        for cluster in smallest(kind, lambda cluster: keeps(cluster, trace, _SIZED_AT_RPS, lookup))
    ]


def _row(case: tuple[str, str, str], cluster: Cluster, rate_rps: float, monotone: str) -> Row:
    design, trace, lookup = case
    return {
        "design": design,
        "trace": trace,
        "decode_lookup": lookup,
        "cluster": cluster.name,
        "prompt_machines": cluster.prompts,
        "token_machines": cluster.tokens,
        "rate_rps": round(rate_rps, 2),
        "monotone": monotone,
        "cost": round(cluster.cost, 2),
        "power": round(cluster.power, 1),
    }


SPLITWISE = Anchor(
    name="splitwise",
    setup={
        "question": "Do Splitwise's clusters carry more than their baselines at equal power or cost, as published?",
        "source": "Splitwise, arXiv 2311.18677 (ISCA'24), sections 6.2 to 6.4; splitwise-sim (MIT) for clusters, "
        "targets and settings",
        "calibrated": "splitwise-sim's perf_model.csv, medians; mixed iterations take 1.1 of the prompts' time",
        "predicted": "every rate and every size",
        "model": f"{MODEL}, tensor parallelism {TP}",
        "traffic": f"prompts and outputs drawn apart from azure_2023_conv and azure_2023_code with replacement, as "
        f"splitwise-sim's generate_trace.py does; Poisson arrivals for {_SECONDS:g} s",
        "iso-throughput": f"the smallest clusters that keep the targets at {_SIZED_AT_RPS:g} requests/s",
        "policies": "splitwise_mixed (baselines: without pools), whole_prompts; output lengths known, as there",
        "targets": {
            name: {str(quantile): limit for quantile, limit in limits.items()} for name, limits in TARGETS.items()
        },
        "tolerance": _TOLERANCE,
    },
    measure=measure,
    claims=claims,
    draw=draw,
)
