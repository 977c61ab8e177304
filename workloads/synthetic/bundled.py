"""Workloads that need no file: synthetic look-alikes of known data, generated on the fly.

The length tables are in ``data/length_tables.json``, each with an account of how it was made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from workloads.errors import TraceError
from workloads.synthetic.arrivals import Poisson
from workloads.synthetic.build import build_plain
from workloads.synthetic.lengths import Lognormal, QuantileTable
from workloads.synthetic.prefixes import SharedPrefix
from workloads.synthetic.spec import SyntheticSpec, synthesise
from workloads.trace import Trace

PREFIX = "bundled:"
AZURE_CONV_RATE_RPS = 5.62
AZURE_CODE_RATE_RPS = 2.57


@dataclass(frozen=True)
class Bundled:
    """A named synthetic workload with its default size and rate."""

    summary: str
    spec: SyntheticSpec


@dataclass(frozen=True)
class Choice:
    """What may be changed about a bundled workload; None keeps the default."""

    rate_rps: float | None = None
    requests: int | None = None
    seed: int = 0


def _look_alike(table: str, rate_rps: float) -> SyntheticSpec:
    return SyntheticSpec(
        requests=1_000,
        arrivals=Poisson(rate_rps),
        prompt=QuantileTable(f"{table}.prompt"),
        output=QuantileTable(f"{table}.output"),
        name=f"{PREFIX}{table}",
    )


BUNDLED = {
    "sharegpt-like": Bundled(
        "chat: lengths like ShareGPT's (mean prompt about 250, mean output about 320 tokens), Poisson arrivals",
        _look_alike("sharegpt-like", 4.0),
    ),
    "distserve-sharegpt-like": Bundled(
        "chat as DistServe sampled ShareGPT: whole conversations as prompts (mean prompt about 780, mean output 180)",
        _look_alike("distserve-sharegpt-like", 4.0),
    ),
    "longbench-like": Bundled(
        "long documents: lengths like LongBench's English tasks (mean prompt about 11,000 tokens), Poisson arrivals",
        _look_alike("longbench-like", 0.5),
    ),
    "azure-conv-like": Bundled(
        "look-alike of azure_2023_conv: its published length quantiles, Poisson arrivals at its mean rate",
        _look_alike("azure-conv-like", AZURE_CONV_RATE_RPS),
    ),
    "azure-code-like": Bundled(
        "code completion: lengths like Azure's code trace (mean prompt about 2,000, median output 13)",
        _look_alike("azure-code-like", AZURE_CODE_RATE_RPS),
    ),
    "math-500-like": Bundled(
        "mathematics: problems of about 65 tokens, reference solutions of about 180 (a stand-in), Poisson arrivals",
        _look_alike("math-500-like", 8.0),
    ),
    "reasoning-like": Bundled(
        "reasoning: lengths like ServeGen's DeepSeek-R1 clients (mean output about 1,500), Poisson arrivals",
        _look_alike("reasoning-like", 2.0),
    ),
    "shared-prefix": Bundled(
        "chat with 32 system prompts of 1,024 tokens, Zipf popularity, 16-token blocks, Poisson arrivals",
        SyntheticSpec(
            requests=1_000,
            arrivals=Poisson(8.0),
            prompt=Lognormal(mean_tokens=200.0, sigma=0.8, max_tokens=2_048),
            output=Lognormal(mean_tokens=150.0, sigma=0.7, max_tokens=1_024),
            prefix=SharedPrefix(groups=32, tokens=1_024, popularity="zipf", exponent=1.0, block_tokens=16),
            name=f"{PREFIX}shared-prefix",
        ),
    ),
}


def names() -> list[str]:
    """The names under which ``open_trace`` knows the bundled workloads."""
    return [f"{PREFIX}{name}" for name in BUNDLED]


def bundled(name: str, choice: Choice | None = None) -> Trace:
    """The bundled workload ``name`` (without ``bundled:``). Raises TraceError that shows the choices."""
    if name not in BUNDLED:
        raise TraceError(f"no bundled workload {name!r} (allowed: {', '.join(names())})")
    chosen = choice or Choice()
    spec = BUNDLED[name].spec
    if chosen.rate_rps is not None:
        spec = replace(spec, arrivals=Poisson(chosen.rate_rps))
    if chosen.requests is not None:
        spec = replace(spec, requests=chosen.requests)
    return synthesise(spec, chosen.seed)


def open_bundled(text: str) -> Trace:
    """``bundled:NAME`` or ``bundled:NAME:rate_rps=..,requests=..,seed=..``."""
    name, _, parameters = text.removeprefix(PREFIX).partition(":")
    return bundled(name, build_plain(text, Choice, parameters))
