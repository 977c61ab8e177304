"""The flags that describe one run: one table, from which both the options of a command and its RunConfig come."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from experiments.cli import flag_values as values
from experiments.config import RunConfig
from experiments.config_base import DEFAULT_HARDWARE
from experiments.config_file import key_path, load, parse

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


class Flag(NamedTuple):
    """One option: the configuration key that it sets, and how its text becomes the key's value."""

    name: str
    key: str
    type: type
    help: str
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None

    @property
    def parameter(self) -> str:
        """The option's Python name."""
        return self.name.split("/")[0].removeprefix("--").replace("-", "_")


FLAGS = (
    Flag("--trace", "workload.trace", str, "File, name (see `semiflow workloads list`) or bundled:NAME."),
    Flag("--invalid", "workload.invalid", str, "What to do with rows that no system can have produced.", "error|drop"),
    Flag("--window", "workload.window_s", str, "Only arrivals within these seconds.", "START,END", values.window),
    Flag("--resample-block", "workload.resample_block_s", float, "Resample in time, in blocks of this many seconds."),
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
    Flag("--backend", "fleet.backend", str, "Engine whose overhead per step is assumed."),
    Flag("--hardware-profile", "fleet.hardware_profile", str, "Measured latencies, not the roofline.", "FILE"),
    Flag("--kv-blocks", "fleet.kv_blocks", int, "KV blocks per instance; else what the weights leave free."),
    Flag("--block-tokens", "fleet.block_tokens", int, "Tokens per KV block."),
    Flag("--memory-fraction", "fleet.memory_fraction", float, "Part of the device memory that the engine may use."),
    Flag("--max-sequences", "fleet.max_sequences", int, "Sequences that an instance runs at most."),
    Flag("--max-batch-tokens", "fleet.max_batch_tokens", int, "Tokens of one iteration at most."),
    Flag("--prefix-caching/--no-prefix-caching", "fleet.prefix_caching", bool, "Reuse the KV of equal prefixes."),
    Flag("--dispatch", "policies.dispatch", str, "Which instance serves a request.", "POLICY"),
    Flag("--batch", "policies.batch", str, "What an instance computes next.", "POLICY"),
    Flag("--partition", "policies.partition", str, "Compute shares of semi_pd instances.", "POLICY"),
    Flag("--scaling", "policies.scaling", str, "How many instances of each role.", "POLICY"),
    Flag("--predictor", "policies.predictor", str, "Expected output length.", "POLICY"),
    Flag("--slo", "slo", str, "Targets of a request in seconds, one or both.", "ttft=S,tpot=S", values.slo),
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
    Flag("--partition-switch", "host.partition_switch_s", float, "Seconds until new shares are in force."),
    Flag("--seed", "seed", int, "Of every random stream."),
)
_CONFIG_HELP = "A YAML file to start from; further flags override it."
_ROLE_HELP = "Role of all --instances: colocated or semi_pd."


def takes_run_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``config: RunConfig`` first the options of :data:`FLAGS`, --role and --config."""
    flags = _options()
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @wraps(command)
    def wrapper(**given: Any) -> None:
        described = {option.name: given.pop(option.name) for option in flags}
        command(resolve(described), **given)

    parameters = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in (*flags, *own)]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads these two
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def resolve(given: Mapping[str, Any]) -> RunConfig:
    """The configuration that the given flags describe; None means that a flag was not given."""
    base = RunConfig() if given["config"] is None else load(given["config"], RunConfig)
    content = base.model_dump()
    for flag in FLAGS:
        value = given[flag.parameter]
        if value is not None:
            _set(content, flag.key, flag.parse(value) if flag.parse else value)
    if given["role"] is not None:
        content["fleet"]["groups"] = values.with_role(content["fleet"]["groups"], given["role"], given["instances"])
    return parse(RunConfig, content, source=None, name_key=_flag_name)


def _options() -> list[inspect.Parameter]:
    """The options as typer wants them: annotated parameters that default to None."""
    config = typer.Option("--config", metavar="YAML", help=_CONFIG_HELP)
    role = typer.Option("--role", help=_ROLE_HELP, rich_help_panel=PANELS["fleet"])
    options = [_parameter("config", Path, config)]
    for flag in FLAGS:
        panel = PANELS[flag.key.split(".")[0]]
        option = typer.Option(
            flag.name, help=flag.help, metavar=flag.metavar, rich_help_panel=panel, show_default=_default(flag.key)
        )
        options.append(_parameter(flag.parameter, flag.type, option))
    return [*options, _parameter("role", str, role)]


def _parameter(name: str, type_: type, option: Any) -> inspect.Parameter:
    annotation: Any = Annotated[type_ | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _default(key: str) -> str | bool:
    """The default as --help shows it; False where there is none worth showing."""
    value: Any = RunConfig()
    for part in key.split("."):
        value = getattr(value, part)
    return str(value) if isinstance(value, (str, int, float)) else False


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        content = content[group]
    content[last] = value


def _flag_name(location: Sequence[str | int]) -> str:
    """A key path as the flag that sets it, where one does."""
    path = key_path(location)
    fitting = [flag for flag in FLAGS if path == flag.key or path.startswith((f"{flag.key}.", f"{flag.key}["))]
    return fitting[0].name.split("/")[0] if fitting else path
