"""The flags that describe one replay: those of the workload as ``simulate`` has them, and the client's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from experiments.cli import flag_values as values
from experiments.cli.flag_table import Flag, flag_names, options, overlay, parameter, takes
from experiments.cli.flags import FLAGS
from experiments.config_base import ConfigError
from experiments.config_file import parse
from experiments.config_replay import ReplayConfig, load_replay

PANELS = {"workload": "Workload", "client": "Client", "slo": "Targets", "seed": "Workload"}
_CONFIG_HELP = "A YAML file to start from: a replay's, or a deployment's. Flags override it."


CLIENT_FLAGS = (
    Flag("--url", "client.url", str, "The server, with or without /v1."),
    Flag("--model", "client.model", str, "The server's name of the model; else the only one that it lists."),
    Flag("--api-key-env", "client.api_key_env", str, "Environment variable that holds the API key.", "NAME"),
    Flag("--prompts", "client.prompts", str, "Token ids or text to /v1/completions, or a chat.", "tokens|text|chat"),
    Flag("--vocab", "client.vocab", str, "Token ids of prompts; else what the server says.", "FIRST:END", values.vocab),
    Flag("--tokenizer", "client.tokenizer", str, "The model's tokenizer.json, for lengths of text.", "FILE"),
    Flag(
        "--prompt-seed",
        "client.prompt_seed",
        int,
        "Of the prompts' tokens; else --seed. A server may have equal ones cached.",
    ),
    Flag("--too-long", "client.too_long", str, "Requests over the server's context.", "refuse|clip"),
    Flag("--ignore-eos/--no-ignore-eos", "client.ignore_eos", bool, "Ask for exactly the trace's output tokens."),
    Flag("--usage", "client.usage", str, "Ask the server to count tokens.", "continuous|final|none"),
    Flag("--extra-body", "client.extra_body", str, "Further keys of each request.", "JSON", values.json_object),
    Flag("--timeout", "client.timeout_s", float, "Seconds after which a request counts as failed."),
    Flag("--max-concurrency", "client.max_concurrency", int, "So many requests at once at most: no longer open loop."),
    Flag("--retries", "client.retries", int, "Send again what the server did not take: no connection, 429, 503."),
    Flag("--warmup-requests", "client.warmup_requests", int, "Requests before the replay, kept out of its results."),
    Flag("--client-cores", "client.cores", str, "Cores that the client keeps to, e.g. 0,2-3.", "CORES", values.cores),
    Flag("--lag-bound", "client.lag_bound_s", float, "Warn where the client is later than this (p99), in seconds."),
    Flag("--tenant-header", "client.label_headers.tenant", str, "Header that carries a request's tenant.", "NAME"),
    Flag("--session-header", "client.label_headers.session_id", str, "Header that carries its session.", "NAME"),
    Flag("--slo-class-header", "client.label_headers.slo_class", str, "Header that carries its SLO class.", "NAME"),
)
_SHARED = tuple(
    flag for flag in FLAGS if flag.key.split(".")[0] in ("workload", "slo", "seed") and flag.key != "workload.trace"
)
REPLAY_FLAGS = (*_SHARED, *CLIENT_FLAGS)


def takes_replay_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``config: ReplayConfig`` first the trace as argument, the flags, and --config."""
    trace = parameter(
        "trace",
        str,
        typer.Argument(metavar="TRACE", help="File, name (see `semiflow workloads list`) or bundled:NAME."),
    )
    config = parameter("config", Path, typer.Option("--config", metavar="YAML", help=_CONFIG_HELP))
    described = options(REPLAY_FLAGS, PANELS, ReplayConfig().model_dump())
    return takes([trace, config, *described], resolve)(command)


def resolve(given: Mapping[str, Any]) -> ReplayConfig:
    """The configuration that the given flags describe; None means that a flag was not given."""
    base = ReplayConfig() if given["config"] is None else load_replay(given["config"])
    if given["trace"] is None and given["config"] is None:
        raise ConfigError("which trace? name a file, a trace of `semiflow workloads list` or bundled:NAME")
    content = base.model_dump()
    overlay(content, REPLAY_FLAGS, given)
    if given["trace"] is not None:
        content["workload"] |= {"trace": given["trace"], "synthetic": None}
    return parse(ReplayConfig, content, source=None, name_key=flag_names(REPLAY_FLAGS))
