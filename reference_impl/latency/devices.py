"""Accelerators as data: what the roofline knows about a device."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

from reference_impl.latency.errors import ProfileError, reason


@dataclass(frozen=True)
class Hardware:
    """One accelerator: data-sheet peaks, and how much of them the kernels of a serving engine reach.

    Efficiencies are fractions of the peak in (0, 1]; ``*_launch_s`` is the fixed time of one kernel of that kind.
    """

    name: str
    bf16_flops: float
    """Peak dense bf16 FLOP/s (without sparsity); fp16 has the same on all of them."""
    hbm_bytes_per_s: float
    memory_bytes: float
    """Total memory as the driver reports it."""
    link_bytes_per_s: float
    """Device to device, one direction."""
    link: str
    sm_count: int
    gemm_efficiency: float
    gemm_bandwidth_efficiency: float
    gemm_launch_s: float
    attention_efficiency: float
    attention_io_efficiency: float
    """Bandwidth of reading and writing queries, keys, values and outputs in prefill attention."""
    attention_launch_s: float
    decode_attention_efficiency: float
    """Bandwidth of reading the KV cache in decode attention."""
    decode_attention_launch_s: float
    elementwise_launch_s: float
    all_reduce_efficiency: float
    all_reduce_latency_s: float
    source: str
    fp8_flops: float | None = None
    """The same in fp8; None: it does not compute in fp8."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("name", "link", "source") or value is None:
                continue
            low_ok = value >= 0 if field.name.endswith("_s") and "per_s" not in field.name else value > 0
            if not low_ok or (field.name.endswith("_efficiency") and value > 1):
                allowed = "in (0, 1]" if field.name.endswith("_efficiency") else "positive"
                raise ProfileError(f"hardware {self.name!r}: {field.name} is {value!r}; it must be {allowed}")


_AIC = "kernel efficiencies fitted to AIConfigurator's operator tables"
_ASSUMED = "all-reduce and element-wise constants assumed"

_A100_80G = Hardware(
    name="a100-80g",
    bf16_flops=312e12,
    hbm_bytes_per_s=2.039e12,
    memory_bytes=85.1e9,
    link_bytes_per_s=300e9,
    link="nvlink3",
    sm_count=108,
    gemm_efficiency=0.801,
    gemm_bandwidth_efficiency=0.747,
    gemm_launch_s=8.1e-6,
    attention_efficiency=0.581,
    attention_io_efficiency=0.411,
    attention_launch_s=23.4e-6,
    decode_attention_efficiency=0.678,
    decode_attention_launch_s=19.0e-6,
    elementwise_launch_s=2.5e-6,
    all_reduce_efficiency=0.7,
    all_reduce_latency_s=8e-6,
    source=f"NVIDIA A100 SXM 80 GB data sheet; {_AIC} (a100_sxm, vLLM 0.14); {_ASSUMED}",
)
_H100 = Hardware(
    name="h100",
    bf16_flops=989.4e12,
    hbm_bytes_per_s=3.35e12,
    memory_bytes=85.0e9,
    link_bytes_per_s=450e9,
    link="nvlink4",
    sm_count=132,
    gemm_efficiency=0.814,
    gemm_bandwidth_efficiency=0.877,
    gemm_launch_s=4.0e-6,
    attention_efficiency=0.706,
    attention_io_efficiency=0.439,
    attention_launch_s=15.1e-6,
    decode_attention_efficiency=0.849,
    decode_attention_launch_s=12.4e-6,
    elementwise_launch_s=2.5e-6,
    all_reduce_efficiency=0.7,
    all_reduce_latency_s=8e-6,
    source=f"NVIDIA H100 SXM data sheet; {_AIC} (h100_sxm, vLLM 0.24); {_ASSUMED}",
    fp8_flops=1978.9e12,
)
_H200 = replace(
    _H100,
    name="h200",
    hbm_bytes_per_s=4.8e12,
    memory_bytes=150.1e9,
    gemm_efficiency=0.805,
    gemm_bandwidth_efficiency=0.838,
    gemm_launch_s=4.4e-6,
    attention_efficiency=0.698,
    attention_io_efficiency=0.317,
    attention_launch_s=14.4e-6,
    decode_attention_efficiency=0.792,
    decode_attention_launch_s=12.5e-6,
    source=f"NVIDIA H200 SXM data sheet; {_AIC} (h200_sxm, vLLM 0.24); {_ASSUMED}",
)
_RTX_PRO_6000 = Hardware(
    name="rtx-pro-6000",
    bf16_flops=503.8e12,
    hbm_bytes_per_s=1.597e12,
    memory_bytes=101.98e9,
    link_bytes_per_s=63e9,
    link="pcie5",
    sm_count=188,
    gemm_efficiency=0.72,
    gemm_bandwidth_efficiency=1.0,
    gemm_launch_s=9.8e-6,
    attention_efficiency=0.54,
    attention_io_efficiency=0.41,
    attention_launch_s=8e-6,
    decode_attention_efficiency=0.905,
    decode_attention_launch_s=13.9e-6,
    elementwise_launch_s=2.5e-6,
    all_reduce_efficiency=0.567,
    all_reduce_latency_s=12.7e-6,
    source="NVIDIA RTX PRO 6000 Blackwell Server data sheet; efficiencies fitted to LLMServingSim's operator profile; "
    "all-reduce: its NCCL measurement over two devices on PCIe (profiler/perf/RTXPRO6000/hardware.yaml)",
    fp8_flops=1007.6e12,
)
_RTX_4090 = replace(
    _RTX_PRO_6000,
    name="rtx-4090",
    bf16_flops=165.2e12,
    hbm_bytes_per_s=1.008e12,
    memory_bytes=25.39e9,
    link_bytes_per_s=31.5e9,
    link="pcie4",
    sm_count=128,
    source="NVIDIA RTX 4090 data sheet; efficiencies taken over from rtx-pro-6000, not measured on this device",
    fp8_flops=330.3e12,
)
_L40S = replace(
    _RTX_4090,
    name="l40s",
    bf16_flops=362.05e12,
    hbm_bytes_per_s=0.864e12,
    memory_bytes=47.7e9,
    sm_count=142,
    source="NVIDIA L40S data sheet; efficiencies taken over from rtx-pro-6000, not measured on this device",
    fp8_flops=733e12,
)
_A800 = replace(
    _A100_80G,
    name="a800",
    link_bytes_per_s=200e9,
    source=f"NVIDIA A800 SXM 80 GB data sheet: an A100 with NVLink at 400 GB/s; {_AIC} of the A100; {_ASSUMED}",
)
_H800 = replace(
    _H100,
    name="h800",
    link_bytes_per_s=200e9,
    source=f"NVIDIA H800 SXM data sheet: an H100 with NVLink at 400 GB/s; {_AIC} of the H100; {_ASSUMED}",
)
_ASCEND_910B = Hardware(
    name="ascend-910b",
    bf16_flops=376e12,
    hbm_bytes_per_s=1.6e12,
    memory_bytes=64 * 2**30,
    link_bytes_per_s=196e9,
    link="hccs",
    sm_count=24,
    gemm_efficiency=0.7,
    gemm_bandwidth_efficiency=0.6,
    gemm_launch_s=5e-6,
    attention_efficiency=0.7,
    attention_io_efficiency=0.6,
    attention_launch_s=5e-6,
    decode_attention_efficiency=0.6,
    decode_attention_launch_s=5e-6,
    elementwise_launch_s=2e-6,
    all_reduce_efficiency=0.7,
    all_reduce_latency_s=10e-6,
    source="no public data sheet: peaks, bandwidths, efficiencies and launch times as Huawei's msmodeling assumes them "
    "for the 376 TFLOP/s, 64 GB Atlas 800 A2 (not measured by us); the same name is sold with 280 and 313 TFLOP/s, "
    "DeepServe (arXiv 2501.14417, section 2) speaks of 400; cores: the 910B2's 24, assumed",
)
_A100_40G = replace(
    _A100_80G,
    name="a100-40g",
    hbm_bytes_per_s=1.555e12,
    memory_bytes=42.3e9,
    source=f"NVIDIA A100 SXM 40 GB data sheet; {_AIC} of the 80 GB card; {_ASSUMED}",
)

HARDWARE = {
    item.name: item
    for item in (
        _A100_40G,
        _A100_80G,
        _A800,
        _H100,
        _H200,
        _H800,
        _L40S,
        _RTX_PRO_6000,
        _RTX_4090,
        _ASCEND_910B,
    )
}


def hardware(name_or_yaml: str | Path) -> Hardware:
    """The named accelerator (any case), or the one that a YAML file describes.

    A YAML file holds the fields of :class:`Hardware`; with ``base: NAME`` it holds only what differs from NAME.
    Raises :class:`ProfileError` for an unknown name, and for a missing, unknown or impossible key.
    """
    text = str(name_or_yaml)
    if text.lower().endswith((".yaml", ".yml")):
        return _from_yaml(Path(text))
    found = HARDWARE.get(text.lower().replace("_", "-").replace(" ", "-"))
    if found is None:
        raise ProfileError(f"unknown hardware {text!r}; choose one of {', '.join(HARDWARE)}, or give a .yaml file")
    return found


def _from_yaml(path: Path) -> Hardware:
    import yaml

    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProfileError(f"cannot read hardware file {path}: {reason(error)}") from error
    if not isinstance(data, dict):
        raise ProfileError(f"{path} must hold a mapping of hardware fields, not {type(data).__name__}")
    base = data.pop("base", None)
    names = [field.name for field in fields(Hardware)]
    needed = [field.name for field in fields(Hardware) if field.default is MISSING]
    unknown = sorted(set(map(str, data)) - set(names))
    if unknown:
        raise ProfileError(f"{path}: unknown key {unknown[0]!r}; allowed: base, {', '.join(names)}")
    missing = [name for name in needed if name not in data] if base is None else []
    if missing:
        raise ProfileError(f"{path}: key {missing[0]!r} is missing; give it, or name a 'base' to start from")
    values = {key: _checked(path, key, value) for key, value in data.items()}
    return replace(hardware(str(base)), **values) if base is not None else Hardware(**values)


def _checked(path: Path, key: str, value: object) -> Any:
    """The value as text or number. YAML reads ``1e12`` (no dot) as text, so numbers in quotes are accepted."""
    if key in ("name", "link", "source"):
        return str(value)
    try:
        number = float(str(value))
    except ValueError:
        raise ProfileError(f"{path}: {key} is {value!r}; it must be a number") from None
    return int(number) if key == "sm_count" else number
