"""The flags that describe one run: one table, from which both the options of a command and its RunConfig come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from experiments.cli import flag_values as values
from experiments.cli.flag_table import Flag, flag_names, options, overlay, parameter, takes
from experiments.config import RunConfig
from experiments.config_base import DEFAULT_HARDWARE
from experiments.config_file import load, parse

PANELS = {
    "workload": "Workload",
    "fleet": "Fleet",
    "policies": "Policies (NAME, NAME:KEY=VALUE,... or module:Class; see `semiflow policies`)",
    "slo": "Targets and assumptions",
    "contention": "Targets and assumptions",
    "link": "Targets and assumptions",
    "host": "Host",
    "seed": "Host",
}


FLAGS = (
    Flag("--trace", "workload.trace", str, "File, name (see `semiflow workloads list`) or bundled:NAME."),
    Flag("--invalid", "workload.invalid", str, "What to do with rows that no system can have produced.", "error|drop"),
    Flag("--window", "workload.window_s", str, "Only arrivals within these seconds.", "START,END", values.window),
    Flag("--resample-block", "workload.resample_block_s", float, "Resample in time, in blocks of this many seconds."),
    Flag(
        "--closed-loop/--open-loop",
        "workload.closed_loop",
        bool,
        "Turns of sessions wait for the answers before them; else all arrive at their recorded times.",
    ),
    Flag("--max-requests", "workload.max_requests", int, "Only the first so many requests."),
    Flag("--rate-scale", "workload.rate_scale", float, "Divide arrival times by this."),
    Flag("--rate", "workload.rate_rps", float, "Poisson arrivals at this rate (requests/s), not the recorded ones."),
    Flag(
        "--max-total-tokens",
        "workload.max_total_tokens",
        int,
        "Clip prompts so that prompt + output fit. Else a request over the model's context is rejected, and a miss.",
    ),
    Flag("--instances", "fleet.groups", str, "How many, of --role; or a mix.", "N | N:ROLE,N:ROLE", values.groups),
    Flag(
        "--hardware",
        "fleet.hardware",
        str,
        f"Accelerator: a name or a YAML description; else the profile's or {DEFAULT_HARDWARE}.",
    ),
    Flag("--model", "fleet.model", str, "Model: a name or a Hugging Face config.json."),
    Flag("--tp", "fleet.tp", int, "Tensor-parallel degree: devices per instance."),
    Flag("--pp", "fleet.pp", int, "Pipeline-parallel stages: an instance is this many virtual engines."),
    Flag("--pp-link", "fleet.pp_link", str, "Link between two stages; else the device's own."),
    Flag(
        "--expert-parallel/--no-expert-parallel",
        "fleet.expert_parallel",
        bool,
        "Whole experts on each device of an instance, not a part of each.",
    ),
    Flag("--backend", "fleet.backend", str, "Engine whose overhead per step is assumed."),
    Flag(
        "--hardware-profile",
        "fleet.hardware_profile",
        str,
        "Measured latencies, or a100, h100, h200[:fp8], not the roofline.",
        "FILE",
    ),
    Flag("--kv-blocks", "fleet.kv_blocks", int, "KV blocks per instance; else what the weights leave free."),
    Flag("--block-tokens", "fleet.block_tokens", int, "Tokens per KV block."),
    Flag("--memory-fraction", "fleet.memory_fraction", float, "Part of the device memory that the engine may use."),
    Flag("--max-sequences", "fleet.max_sequences", int, "Sequences that an instance runs at most."),
    Flag("--max-batch-tokens", "fleet.max_batch_tokens", int, "Tokens of one iteration at most."),
    Flag("--prefix-caching/--no-prefix-caching", "fleet.prefix_caching", bool, "Reuse the KV of equal prefixes."),
    Flag(
        "--price", "fleet.price_per_device_hour", float, "Of a device per hour, in any currency: for figures of cost."
    ),
    Flag("--dispatch", "policies.dispatch", str, "Which instance serves a request.", "POLICY"),
    Flag("--batch", "policies.batch", str, "What an instance computes next.", "POLICY"),
    Flag("--partition", "policies.partition", str, "Compute shares of semi_pd instances.", "POLICY"),
    Flag("--scaling", "policies.scaling", str, "How many instances of each role.", "POLICY"),
    Flag("--predictor", "policies.predictor", str, "Expected output length.", "POLICY"),
    Flag(
        "--slo",
        "slo",
        str,
        "Targets of a request in seconds, one or both; of an SLO class others.",
        "ttft=S,tpot=S[/CLASS:ttft=S,...]",
        values.slo,
    ),
    Flag(
        "--contention",
        "contention",
        str,
        "Assumed: while one semi_pd lane computes, the other is slower by 1 + GAMMA.",
        "prefill=GAMMA,decode=GAMMA",
        values.contention,
    ),
    Flag("--link", "link", str, "KV hand-over, in bytes/s and s.", "NAME | bandwidth=B,latency=S", values.link),
    Flag("--report-period", "host.report_period_s", float, "Seconds between an instance's reports; else each change."),
    Flag("--report-delay", "host.report_delay_s", float, "Seconds until a report is seen."),
    Flag("--job-executors", "host.job_executors", int, "Dispatchers, each with a policy and a view of its own."),
    Flag("--partition-switch", "host.partition_switch_s", float, "Seconds until new shares are in force."),
    Flag("--seed", "seed", int, "Of every random stream."),
)
_CONFIG_HELP = "A YAML file to start from; further flags override it."
_ROLE_HELP = "Role of all --instances: colocated or semi_pd."


def takes_run_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``config: RunConfig`` first the options of :data:`FLAGS`, --role and --config."""
    config = parameter("config", Path, typer.Option("--config", metavar="YAML", help=_CONFIG_HELP))
    role = parameter("role", str, typer.Option("--role", help=_ROLE_HELP, rich_help_panel=PANELS["fleet"]))
    return takes([config, *options(FLAGS, PANELS, RunConfig().model_dump()), role], resolve)(command)


def resolve(given: Mapping[str, Any]) -> RunConfig:
    """The configuration that the given flags describe; None means that a flag was not given."""
    base = RunConfig() if given["config"] is None else load(given["config"], RunConfig)
    content = base.model_dump()
    overlay(content, FLAGS, given)
    if given["role"] is not None:
        content["fleet"]["groups"] = values.with_role(content["fleet"]["groups"], given["role"], given["instances"])
    return parse(RunConfig, content, source=None, name_key=flag_names(FLAGS))
