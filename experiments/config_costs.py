"""Which hardware a fleet runs on: its cost model, and the KV blocks that its memory has room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.config import FleetConfig
from experiments.config_base import DEFAULT_HARDWARE, ConfigError

if TYPE_CHECKING:
    from reference_impl.latency import Hardware, LinkKind, ModelShape
    from reference_impl.latency.api import LatencyModel
    from reference_impl.latency.measured import Measured
    from reference_impl.latency.operators.profile import Operators
    from reference_impl.latency.profiled import Profiled
    from reference_impl.latency.published import Published
    from reference_impl.latency.table import Table


def build_costs(fleet: FleetConfig) -> tuple[LatencyModel, int]:
    """The measured or shipped profile if one is named, else the roofline; and the KV blocks of an instance, all stages
    of it.

    Raises ConfigError where profile, hardware and model contradict each other or leave the memory open.
    """
    from reference_impl.latency import hardware, model, roofline

    shape = model(fleet.model)
    if fleet.hardware_profile is None:
        device = hardware(fleet.hardware or DEFAULT_HARDWARE)
        analytic = roofline(device, shape, fleet.tp, fleet.backend, fleet.expert_parallel)
        return _pipelined(fleet, analytic, device, shape), fleet.kv_blocks or _kv_blocks(fleet, device, shape)
    return _from_profile(fleet, fleet.hardware_profile, shape)


def _from_profile(fleet: FleetConfig, named: str, shape: ModelShape) -> tuple[LatencyModel, int]:
    from reference_impl.latency.operators.profile import open_operators
    from reference_impl.latency.profile import profile
    from reference_impl.latency.published import open_published

    if fleet.expert_parallel:
        raise ConfigError(f"fleet.expert_parallel is for the roofline; {named} was measured as it is; leave it out")
    published = open_published(named, fleet.model, fleet.tp, fleet.pp)
    if published is not None:
        return _published(fleet, published, shape)
    operators = open_operators(named)
    if operators is not None:
        return _composed(fleet, *operators, shape)
    measured = profile(named, fleet.tp)
    profiled = _profiled_device(fleet, measured)
    _check_model(fleet, measured, shape)
    return _pipelined(fleet, measured, profiled, shape), fleet.kv_blocks or _kv_blocks(fleet, profiled, shape)


def _pipelined(
    fleet: FleetConfig, whole: LatencyModel, device: Hardware | None, shape: ModelShape, counted: bool = False
) -> LatencyModel:
    """The cost of an iteration on its way through all stages; ``counted``: ``whole`` has that of the hops, unless a
    link is given."""
    if fleet.pp == 1:
        return whole
    from reference_impl.latency import Pipelined
    from reference_impl.latency.measured import Measured

    if isinstance(whole, Measured):
        raise ConfigError(
            f"fleet.pp (or that of a group) is {fleet.pp}, but fleet.hardware_profile {fleet.hardware_profile} is of "
            "semiflow's engine, which has no pipeline; set pp to 1"
        )
    hop = None if counted and fleet.pp_link is None else _hop(fleet, device)
    return Pipelined(whole, shape, fleet.pp, hop)


def _hop(fleet: FleetConfig, device: Hardware | None) -> LinkKind:
    """What two stages are connected by."""
    from reference_impl.latency import LinkKind, link

    if fleet.pp_link is not None:
        return link(fleet.pp_link)
    if device is None:
        raise ConfigError(
            f"fleet.pp (or that of a group) is {fleet.pp}, but the hardware of fleet.hardware_profile "
            f"{fleet.hardware_profile} is unknown, and with it what connects the stages; give "
            "the hardware (--hardware) or the link (--pp-link)"
        )
    return LinkKind(device.link, device.link_bytes_per_s, device.all_reduce_latency_s, f"that of {device.name}")


def _published(fleet: FleetConfig, found: Published, shape: ModelShape) -> tuple[LatencyModel, int]:
    """A published cost model, with the KV tokens that its publisher had room for where they are known."""
    _check_device(fleet, found.hardware)
    told = (found.kv_tokens or 0) // fleet.block_tokens
    kv_blocks = fleet.kv_blocks or told or _kv_blocks(fleet, found.hardware, shape)
    return _pipelined(fleet, found.latency, found.hardware, shape, found.counts_stages), kv_blocks


def _composed(fleet: FleetConfig, operators: Operators, dtype: str, shape: ModelShape) -> tuple[LatencyModel, int]:
    """The model composed of fitted operators, with the overhead and KV dtype of the fleet's backend."""
    from reference_impl.latency import hardware, kv_pool_blocks
    from reference_impl.latency.operators import Composed
    from reference_impl.latency.operators.engines import engine
    from reference_impl.latency.operators.profile import weight_bytes

    device = operators.hardware
    if fleet.hardware is not None and hardware(fleet.hardware) != device:
        raise ConfigError(
            f"fleet.hardware_profile {fleet.hardware_profile} is of {device.name}, but fleet.hardware is "
            f"{fleet.hardware}; leave the hardware out to take the profile's"
        )
    backend, kv_dtype = engine(fleet.backend, dtype)
    latency = Composed(operators, shape, fleet.tp, dtype, backend, kv_dtype)
    return _pipelined(fleet, latency, device, shape), fleet.kv_blocks or kv_pool_blocks(
        device,
        shape,
        fleet.tp,
        pp=fleet.pp,
        block_tokens=fleet.block_tokens,
        memory_fraction=fleet.memory_fraction,
        weight_bytes=weight_bytes(shape, dtype),
        kv_bytes_per_value=latency.bytes_per_value,
    )


def _profiled_device(fleet: FleetConfig, measured: Profiled | Table | Measured) -> Hardware | None:
    """The device whose memory counts: the configured one, else the profile's; None where neither is known."""
    from reference_impl.latency import hardware
    from reference_impl.latency.profiled import Profiled

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
    from reference_impl.latency.measured import Measured
    from reference_impl.latency.profiled import Profiled

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
    return kv_pool_blocks(device, shape, fleet.tp, fleet.block_tokens, fleet.memory_fraction, pp=fleet.pp)
