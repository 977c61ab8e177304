"""A synthetic workload: its description, strict, and the trace that it describes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from workloads.errors import TraceError
from workloads.synthetic import checks, scenario
from workloads.synthetic.arrivals import ARRIVALS, Arrivals
from workloads.synthetic.build import build_kind, build_plain, check_keys
from workloads.synthetic.lengths import LENGTHS, Lengths
from workloads.synthetic.prefixes import SharedPrefix
from workloads.trace import Trace
from workloads.transform import derive
from workloads.validate import MAX_TOKENS

_KEYS = ("name", "requests", "arrivals", "prompt", "output", "scenario", "prefix")


@dataclass(frozen=True)
class SyntheticSpec:
    """Arrivals x prompt lengths x output lengths x shared prefixes, each independent of the others.

    With ``prefix``, ``prompt`` describes the part that comes after the shared prefix.
    """

    requests: int
    arrivals: Arrivals
    prompt: Lengths
    output: Lengths
    prefix: SharedPrefix | None = None
    name: str = "synthetic"

    def __post_init__(self) -> None:
        checks.whole(self, 1, checks.MAX_REQUESTS, requests=self.requests)
        if not isinstance(self.name, str) or not self.name:
            raise TraceError(f"SyntheticSpec: name={self.name!r} (allowed: a text that is not empty)")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """From YAML or command-line values. Each part is a mapping with a ``kind``, or a text ``kind:key=value,...``.

        In place of ``prompt`` and ``output`` there may be a ``scenario`` (see :mod:`workloads.synthetic.scenario`).
        Raises TraceError for anything unknown, missing or out of range, and shows what is allowed.
        """
        by_scenario = isinstance(values, Mapping) and values.get("scenario") is not None
        needed = ("scenario",) if by_scenario else ("prompt", "output")
        check_keys("synthetic workload", values, _KEYS, ("requests", "arrivals", *needed))
        if by_scenario and {"prompt", "output"} & set(values):
            raise TraceError("synthetic workload: scenario says prompt and output (allowed: it, or both of them)")
        prompt, output = scenario.parse(values["scenario"]) if by_scenario else _lengths(values)
        prefix = values.get("prefix")
        return cls(
            requests=values["requests"],
            arrivals=build_kind("arrivals", ARRIVALS, values["arrivals"]),
            prompt=prompt,
            output=output,
            prefix=None if prefix is None else build_plain("prefix", SharedPrefix, prefix),
            name=values.get("name", "synthetic"),
        )

    def to_mapping(self) -> dict[str, Any]:
        """The inverse of :meth:`from_mapping`, as plain values."""
        mapping: dict[str, Any] = {"name": self.name, "requests": self.requests}
        for part in ("arrivals", "prompt", "output"):
            value = getattr(self, part)
            mapping[part] = {"kind": value.kind} | asdict(value)
        if self.prefix is not None:
            mapping["prefix"] = asdict(self.prefix)
        return mapping


def _lengths(values: Mapping[str, Any]) -> tuple[Lengths, Lengths]:
    return build_kind("prompt", LENGTHS, values["prompt"]), build_kind("output", LENGTHS, values["output"])


def synthesise(spec: SyntheticSpec, seed: int) -> Trace:
    """The trace that ``spec`` describes. Same ``spec`` and ``seed``, same trace.

    Arrivals, prompts, outputs and prefixes have a random stream each: changing one leaves the others as they are.
    """
    checks.whole(spec, 0, (1 << 63) - 1, seed=seed)
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    shared_tokens = 0 if spec.prefix is None else spec.prefix.tokens
    prompt = spec.prompt.tokens(spec.requests, streams[1]).astype(np.int64) + shared_tokens
    trace = Trace(
        name=spec.name,
        arrival_s=spec.arrivals.times_s(spec.requests, streams[0]),
        prompt_tokens=np.minimum(prompt, MAX_TOKENS).astype(np.int32),
        output_tokens=spec.output.tokens(spec.requests, streams[2]),
        metadata={"origin": "synthetic", "seed": str(seed), "synthetic_spec": json.dumps(spec.to_mapping())},
    )
    if spec.prefix is None:
        return trace
    group = spec.prefix.choose_groups(spec.requests, streams[3])
    ids = spec.prefix.ids(group, trace.prompt_tokens)  # chained by construction
    return derive(trace, None, prefix_ids=ids, prefix_block_tokens=spec.prefix.block_tokens)
