"""Settings that only the simulator can honour: a deployment refuses them instead of running something else.

Policies are objects of both hosts alike. What a deployment cannot do with one is refused where it is built
(``serve_build``): an oracle knows the future, compute shares are not carried out yet.
"""

from __future__ import annotations

from experiments.config import RunConfig
from experiments.config_base import ConfigError

SIMULATED_ONLY = {
    "fleet.hardware": "a deployment runs on the device that is here (serve.device)",
    "fleet.tp": "a live instance computes on one device",
    "fleet.pp": "a live instance computes on one device",
    "fleet.pp_link": "a live instance computes on one device",
    "fleet.expert_parallel": "a live instance computes on one device",
    "fleet.memory_fraction": "a live instance has the KV blocks of fleet.kv_blocks",
    "fleet.events": "live, end a worker's process or stop it",
    "fleet.startup_s": "a deployment takes the time that it takes",
    "fleet.convertible": "Ray Serve stops and starts instances",
    "host.partition_switch_s": "compute shares are not carried out live in this version",
    "host.dispatch_delay_s": "a deployment takes the time that it takes (semiflow profile measures it)",
}
"""Key and reason. What else a deployment has no use for are figures of what it really is: ``fleet.backend``,
``contention``, ``link``."""


def refuse_simulated_only(config: RunConfig) -> None:
    """Raises ConfigError naming the first setting, not at its default, that a deployment cannot honour."""
    defaults = RunConfig()
    for key, reason in SIMULATED_ONLY.items():
        section, name = key.split(".")
        given, default = (getattr(getattr(each, section), name) for each in (config, defaults))
        if given != default:
            raise ConfigError(f"{key} {given} is for the simulator: {reason}; allowed live: {default} (leave it out)")
