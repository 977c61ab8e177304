"""What serving engines add to fitted operators: the constants that ``semiflow validate table`` found."""

from __future__ import annotations

from typing import NamedTuple

from reference_impl.latency.backends import BACKENDS, Backend
from reference_impl.latency.errors import ProfileError


class Engine(NamedTuple):
    """An engine at one precision."""

    backend: Backend
    kv_dtype: str
    """Of keys and values where the matrices have this precision."""


def _found(name: str, sequence_s: float, kv_dtype: str, error: str) -> Engine:
    source = f"fitted by semiflow validate table; TPOT on groups that were not fitted: {error}"
    return Engine(Backend(name, 0.0, sequence_s, source), kv_dtype)


ENGINES = {
    ("none", "bf16"): Engine(BACKENDS["none"], "bf16"),
    ("none", "fp8"): Engine(BACKENDS["none"], "bf16"),
    ("vllm", "bf16"): _found("vllm", 95.07e-6, "bf16", "median error 3.9 %, P90 16 % (22 rows, vLLM 0.12)"),
    ("vllm", "fp8"): _found("vllm", 21.37e-6, "bf16", "median error 3.7 %, P90 54 % (45 rows, vLLM 0.12 and unnamed)"),
    ("sglang", "bf16"): _found("sglang", 30.00e-6, "bf16", "median error 4.2 %, P90 10 % (33 rows, SGLang 0.5.1)"),
    ("sglang", "fp8"): _found("sglang", 5.136e-6, "bf16", "median error 3.2 %, P90 10 % (16 rows, SGLang 0.5.6)"),
    ("trtllm", "bf16"): _found("trtllm", 28.66e-6, "bf16", "median error 4.8 %, P90 20 % (61 rows, TensorRT-LLM 1.0)"),
    ("trtllm", "fp8"): _found(
        "trtllm", 42.46e-6, "fp8", "median error 8.7 %, P90 22 % (90 rows, TensorRT-LLM 1.0, 1.2, unnamed)"
    ),
}
"""By name and precision."""


def engine(name: str, dtype: str) -> Engine:
    """The named engine (any case) with matrices of ``dtype``. Raises :class:`ProfileError` with the choices."""
    found = ENGINES.get((name.lower(), "bf16" if dtype == "bf16" else "fp8"))
    if found is None:
        names = dict.fromkeys(known for known, _ in ENGINES)
        raise ProfileError(
            f"backend {name!r} has no constant for an operator profile; choose one of {', '.join(names)}"
        )
    return found
