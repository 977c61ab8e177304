"""Splitwise's clusters: how many machines of which kind, what they cost, and how they run.

Source: splitwise-sim (github.com/Mutinifni/splitwise-sim, MIT): notebooks/plots.ipynb (clusters), notebooks/utils.py
(cost in $/h of a GPU and power in kW of eight machines, as given there), configs (link, batch, memory).
"""

from __future__ import annotations

from typing import NamedTuple

from experiments.config import FleetConfig, GroupConfig, LinkConfig, PoliciesConfig, RunConfig, WorkloadConfig

TABLE = "splitwise_perf_model.csv"
MODEL, TP = "bloom-176b", 8
A100, H100, CAPPED = "a100-80gb", "h100-80gb", "h100-80gb-pcap"
COST = {A100: 2.21, H100: 4.76, CAPPED: 4.76}
POWER = {A100: 24.8, H100: 44.0, CAPPED: 30.8}
_BLOCK_TOKENS = 16
_KV_BYTES_PER_TOKEN = 2 * 70 * 14336 * 2
_KV_BLOCKS = int((8 * 85_899_345_920 - 329e9) / _KV_BYTES_PER_TOKEN) // _BLOCK_TOKENS
"""Eight GPUs of 80 GiB less 329 GB of weights."""
_LINK_BYTES_PER_S = 200 * 1024**3


class Cluster(NamedTuple):
    """Prompt and token machines; a baseline has only ``prompts``, which do both."""

    name: str
    prompts: int
    prompt_device: str
    tokens: int = 0
    token_device: str = A100

    @property
    def cost(self) -> float:
        """Of all machines, in the source's unit."""
        return self.prompts * COST[self.prompt_device] + self.tokens * COST[self.token_device]

    @property
    def power(self) -> float:
        """Of all machines, in the source's unit."""
        return self.prompts * POWER[self.prompt_device] + self.tokens * POWER[self.token_device]


def _six(
    a100: int, aa: tuple[int, int], hh: tuple[int, int], ha: tuple[int, int], cap: tuple[int, int]
) -> list[Cluster]:
    return [
        Cluster("Baseline-A100", a100, A100),
        Cluster("Baseline-H100", 40, H100),
        Cluster("Splitwise-AA", aa[0], A100, aa[1], A100),
        Cluster("Splitwise-HH", hh[0], H100, hh[1], H100),
        Cluster("Splitwise-HA", ha[0], H100, ha[1], A100),
        Cluster("Splitwise-HHcap", cap[0], H100, cap[1], CAPPED),
    ]


DESIGNS = {
    ("iso-power", "conv"): _six(70, (45, 25), (25, 15), (25, 26), (25, 21)),
    ("iso-power", "code"): _six(70, (55, 15), (35, 5), (35, 8), (35, 7)),
    ("iso-cost", "conv"): _six(86, (51, 35), (25, 15), (30, 21), (30, 10)),
}
"""As its authors chose them for BLOOM-176B: equal power, or equal cost, of 40 H100 machines."""


def run_config(cluster: Cluster, trace: str, rate_rps: float, seconds: float, lookup: str, seed: int) -> RunConfig:
    """``cluster`` under the lengths of ``trace`` in Poisson arrivals. ``lookup``: context or sequences."""
    suffix = "" if lookup == "context" else f":{lookup}"
    parts = [(cluster.prompts, cluster.prompt_device), (cluster.tokens, cluster.token_device)]
    groups = tuple(
        GroupConfig(count=count, role="colocated", hardware_profile=f"{TABLE}:{device}{suffix}")
        for count, device in parts
        if count
    )
    fleet = FleetConfig(
        groups=groups,
        model=MODEL,
        tp=TP,
        kv_blocks=_KV_BLOCKS,
        block_tokens=_BLOCK_TOKENS,
        max_sequences=512,
        max_batch_tokens=16_384,
        prefix_caching=False,
    )
    pools = cluster.prompts if cluster.tokens else 0
    return RunConfig(
        workload=WorkloadConfig(
            synthetic={
                "requests": max(round(rate_rps * seconds), 1),
                "arrivals": f"poisson:rate_rps={rate_rps}",
                "prompt": {"kind": "recorded", "trace": trace, "column": "prompt"},
                "output": {"kind": "recorded", "trace": trace, "column": "output"},
            }
        ),
        fleet=fleet,
        policies=PoliciesConfig(
            dispatch=f"splitwise_mixed:prompt_instances={pools}", batch="whole_prompts", predictor="oracle"
        ),
        link=LinkConfig(bandwidth_bytes_per_s=_LINK_BYTES_PER_S, latency_s=0.0),
        seed=seed,
    )
