"""Names and numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping

_LABELS: Mapping[str, str] = {
    "attainment": "SLO attainment",
    "attainment_ttft": "TTFT attainment",
    "attainment_tpot": "TPOT attainment",
    "goodput_rps": "goodput (requests/s)",
    "goodput_per_device_rps": "goodput per device (requests/s)",
    "throughput_rps": "throughput (requests/s)",
    "output_tokens_per_s": "output tokens/s",
    "total_tokens_per_s": "tokens/s",
    "kv_use_mean": "mean KV use",
    "kv_use_peak": "peak KV use",
    "prefix_hit_ratio": "prefix hit ratio",
    "lane_utilisation": "lane utilisation",
    "fluidity_mean": "fluidity index",
    "fluidity_attainment": "share of requests with fluidity ≥ 0.9",
    "jain_service": "Jain index of the tenants' service",
    "service_gap": "service gap (weighted tokens)",
    "device_held_s": "device-seconds held",
    "device_busy_s": "device-seconds busy",
}


def metric_label(metric: str) -> str:
    """``ttft_p99_ms`` as ``TTFT p99 (ms)``."""
    if metric.endswith("_trimmed"):
        return f"{metric_label(metric.removesuffix('_trimmed'))}, after warm-up"
    if metric.endswith("]") and "[" in metric:
        figure, _, group = metric.removesuffix("]").partition("[")
        return f"{metric_label(figure)}, {group.replace('=', ' ', 1)}"
    if metric in _LABELS:
        return _LABELS[metric]
    family, _, statistic = metric.removesuffix("_ms").partition("_")
    if metric.endswith("_ms") and family in ("ttft", "tpot", "itl", "e2e"):
        return f"{family.upper()} {statistic} (ms)"
    return metric.replace("_", " ")


def number(value: float | None, *, signed: bool = False) -> str:
    """About three digits, never an exponent; an en dash for nothing."""
    if value is None:
        return "–"
    size = abs(value)
    digits = 4 if 0 < size < 0.01 else 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    text = f"{value:+,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        return "0"
    return (text if signed else text.removeprefix("+")).replace("-", "−")


def plain(text: str) -> str:
    """Text that matplotlib takes literally: a dollar sign would start mathematics."""
    return text.replace("$", r"\$")
