"""What a serving engine adds to the kernels: scheduling, sampling, launch gaps."""

from __future__ import annotations

from dataclasses import dataclass

from reference_impl.latency.errors import ProfileError


@dataclass(frozen=True)
class Backend:
    """Seconds that an engine adds to each iteration, per iteration and per sequence in the batch."""

    name: str
    step_overhead_s: float
    sequence_overhead_s: float
    source: str


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "none",
            0.0,
            0.0,
            "kernels only, as in an engine that hides its own work behind them (vLLM with asynchronous scheduling)",
        ),
        Backend(
            "vllm",
            0.65e-3,
            54e-6,
            "vLLM 0.12, fitted to 57 TPOT measurements of Qwen3-32B on H100, TP 2 to 8 (InferenceX values in "
            "AIConfigurator): median error 2.2 %, 90th percentile 7 %",
        ),
        Backend(
            "vllm-v0",
            1e-3,
            85e-6,
            "vLLM 0.5, derived from its v0.6.0 release note (38 % of the time is GPU execution, Llama-3-8B on H100) "
            "taken at 256 sequences of 500 tokens: uncalibrated",
        ),
    )
}
"""The engines by name."""


def backend(name: str) -> Backend:
    """The named engine (any case). Raises :class:`ProfileError` with the choices for an unknown name."""
    found = BACKENDS.get(name.lower())
    if found is None:
        raise ProfileError(f"unknown backend {name!r}; choose one of {', '.join(BACKENDS)}")
    return found
