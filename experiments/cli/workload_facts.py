"""What the commands of ``semiflow workloads`` tell of a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.trace import Trace

_PERCENTILES = (50, 90, 99)
_TOLD = ("interarrival_cv", "prefix_hit_ratio")


def facts(trace: Trace) -> dict[str, Any]:
    """Size, rate, lengths, burstiness, reuse, sessions and provenance. What cannot be computed is None or absent."""
    from workloads import sessions, summary

    numbers = summary.describe(trace)
    told: dict[str, Any] = {key: numbers[key] for key in _TOLD if key in numbers}
    return {
        "name": trace.name,
        "requests": len(trace),
        "duration_s": trace.duration_s,
        "mean_rate_rps": trace.mean_rate_rps,
        "prompt_tokens": spread(trace.prompt_tokens),
        "output_tokens": spread(trace.output_tokens),
        "prefix_block_tokens": trace.prefix_block_tokens,
        **told,
        **sessions.describe(trace),
        **({"tenants": len(set(trace.tenant))} if trace.tenant is not None else {}),
        "metadata": dict(trace.metadata),
    }


def spread(column: NDArray[Any]) -> dict[str, float]:
    """Mean, percentiles and maximum."""
    import numpy as np

    percentiles = {f"p{p}": float(v) for p, v in zip(_PERCENTILES, np.percentile(column, _PERCENTILES), strict=True)}
    return {"mean": float(column.mean()), **percentiles, "max": float(column.max())}


def as_text(told: dict[str, Any]) -> str:
    """One line each."""
    lines = []
    for key, value in told.items():
        if isinstance(value, dict) and key != "metadata":
            value = "  ".join(f"{name} {number:.6g}" for name, number in value.items())
        if key == "metadata":
            lines += [f"{name:<20} {text}" for name, text in value.items()]
        elif value is not None:
            lines.append(f"{key:<20} {value:.6g}" if isinstance(value, float) else f"{key:<20} {value}")
    return "\n".join(lines)


def check_invalid(invalid: str) -> None:
    """Refuse anything but error and drop."""
    if invalid not in ("error", "drop"):
        raise ConfigError(f"--invalid: {invalid!r} is not allowed; write error or drop")
