"""What the devices of one instance send each other: the all-reduce of tensor parallelism, the all-to-all of experts."""

from __future__ import annotations

from reference_impl.latency.devices import Hardware


def all_reduce_s(hardware: Hardware, tp: int, payload_bytes: float) -> float:
    """Seconds of one ring all-reduce of ``payload_bytes`` over ``tp`` devices: each sends 2(tp-1)/tp of it.

    Checked against LLMServingSim's NCCL measurement on two RTX PRO 6000 over PCIe (4 KB to 20 MB): within 10 %
    of every point. NVLink constants are assumed.
    """
    if tp == 1:
        return 0.0
    bandwidth = hardware.link_bytes_per_s * hardware.all_reduce_efficiency
    return hardware.all_reduce_latency_s + 2 * (tp - 1) / tp * payload_bytes / bandwidth


def all_to_all_s(hardware: Hardware, devices: int, payload_bytes: float) -> float:
    """Seconds of one all-to-all in which each device sends ``payload_bytes``, in even parts, one of them to itself.

    Approximate: efficiency and latency are those of the all-reduce, and every device has as much to send.
    """
    if devices == 1:
        return 0.0
    bandwidth = hardware.link_bytes_per_s * hardware.all_reduce_efficiency
    return hardware.all_reduce_latency_s + (devices - 1) / devices * payload_bytes / bandwidth
