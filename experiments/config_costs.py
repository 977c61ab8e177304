"""Which hardware a fleet runs on: its cost model, and the KV blocks that its memory has room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.config import FleetConfig
from experiments.config_base import DEFAULT_HARDWARE, ConfigError

if TYPE_CHECKING:
    from reference_impl.latency import Hardware, Measured, ModelShape, Profiled, Table
    from reference_impl.latency.api import LatencyModel


def build_costs(fleet: FleetConfig) -> tuple[LatencyModel, int]:
    """The measured profile if one is named, else the roofline; and the KV blocks of an instance.

    Raises ConfigError where profile, hardware and model contradict each other or leave the memory open.
    """
    from reference_impl.latency import hardware, model, open_published, profile, roofline

    shape = model(fleet.model)
    if fleet.hardware_profile is None:
        device = hardware(fleet.hardware or DEFAULT_HARDWARE)
        analytic = roofline(device, shape, tp=fleet.tp, backend=fleet.backend)
        return analytic, fleet.kv_blocks or _kv_blocks(fleet, device, shape)
    published = open_published(fleet.hardware_profile, fleet.model, fleet.tp)
    if published is not None:
        _check_device(fleet, published.hardware)
        told = (published.kv_tokens or 0) // fleet.block_tokens
        return published.latency, fleet.kv_blocks or told or _kv_blocks(fleet, published.hardware, shape)
    measured = profile(fleet.hardware_profile, fleet.tp)
    profiled = _profiled_device(fleet, measured)
    _check_model(fleet, measured, shape)
    return measured, fleet.kv_blocks or _kv_blocks(fleet, profiled, shape)


def _profiled_device(fleet: FleetConfig, measured: Profiled | Table | Measured) -> Hardware | None:
    """The device whose memory counts: the configured one, else the profile's; None where neither is known."""
    from reference_impl.latency import Profiled, hardware

    profiled = measured.profile.device if isinstance(measured, Profiled) else ""
    if fleet.hardware is None:
        return measured.hardware if isinstance(measured, Profiled) else None
    given = hardware(fleet.hardware)
    if profiled and _plain(profiled) != _plain(given.name):
        raise _other_device(fleet, profiled, given)
    return given


def _check_device(fleet: FleetConfig, measured_on: Hardware) -> None:
    from reference_impl.latency import hardware

    if fleet.hardware is not None and hardware(fleet.hardware) != measured_on:
        raise _other_device(fleet, measured_on.name, hardware(fleet.hardware))


def _other_device(fleet: FleetConfig, measured_on: str, given: Hardware) -> ConfigError:
    return ConfigError(
        f"fleet.hardware_profile {fleet.hardware_profile} was measured on {measured_on}, but fleet.hardware is "
        f"{given.name}; leave the hardware out to take the profile's"
    )


def _plain(device: str) -> str:
    """``RTX-PRO-6000`` and ``RTXPRO6000`` are one device."""
    return "".join(filter(str.isalnum, device.lower()))


def _check_model(fleet: FleetConfig, measured: Profiled | Table | Measured, shape: ModelShape) -> None:
    from reference_impl.latency import Measured, Profiled

    if isinstance(measured, Measured) and measured.model != fleet.model:
        raise ConfigError(
            f"fleet.hardware_profile {fleet.hardware_profile} is of {measured.model}, but fleet.model is {fleet.model};"
            " set the model to the profile's, or profile this one: semiflow profile"
        )
    if isinstance(measured, Profiled) and measured.model.kv_bytes_per_token != shape.kv_bytes_per_token:
        raise ConfigError(
            f"fleet.hardware_profile {fleet.hardware_profile} is of {measured.model.name}, but fleet.model is "
            f"{shape.name}; set the model to {measured.model.name}"
        )


def _kv_blocks(fleet: FleetConfig, device: Hardware | None, shape: ModelShape) -> int:
    """What the device's memory holds beside the weights."""
    from reference_impl.latency import kv_pool_blocks

    if device is None:
        raise ConfigError(
            f"the hardware of fleet.hardware_profile {fleet.hardware_profile} is unknown, and with it how many KV "
            "blocks fit; give the hardware (--hardware) or the number of blocks (--kv-blocks)"
        )
    return kv_pool_blocks(
        device, shape, fleet.tp, block_tokens=fleet.block_tokens, memory_fraction=fleet.memory_fraction
    )
