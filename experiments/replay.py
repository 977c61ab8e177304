"""One replay: a trace and a live server in, a folder out that looks like a simulated run's."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config_base import ConfigError
from experiments.config_build import build_trace
from experiments.config_file import to_yaml
from experiments.config_replay import ClientConfig, ReplayConfig, tokenizer_path
from experiments.manifest import environment
from experiments.replay_log import prompt_token_errors, vllm_json, write_events, write_requests
from experiments.run import CONFIG, EVENTS, MANIFEST, METRICS, VLLM_BENCH, whole_counts
from experiments.run_folder import REQUESTS, new_folder, write_json

if TYPE_CHECKING:
    from workloads.client.replay import Replayed
    from workloads.client.settings import ReplaySettings

Progress = Callable[[int, int, str], None]
"""Called now and then with (how much is done, how much in all, what is being done)."""


@dataclass(frozen=True)
class ReplayResult:
    """What came of a replay; the folder holds the same and the event log."""

    folder: Path
    metrics: Mapping[str, float]
    """On the client's clock, under keys that say so."""
    manifest: Mapping[str, Any]
    replayed: Replayed


def execute_replay(
    config: ReplayConfig, out: Path, progress: Progress | None = None, *, force: bool = False, detailed: bool = False
) -> ReplayResult:
    """Replay ``config`` into the folder ``out``. An interrupted replay leaves what it has by then, if there is any.

    Raises ReplayError or ConfigError before the first request is sent, and TraceError; then ``out`` is not touched.
    """
    from workloads.client.replay import replay

    closed_loop = config.workload.closed_loop
    settings = replay_settings(config.client, config.seed, keep_texts=detailed, closed_loop=closed_loop)
    with new_folder(out, force) as folder:
        replayed = replay(build_trace(config.workload, config.seed), settings, progress)
        if not replayed.records:
            raise KeyboardInterrupt  # it came before the first request was sent
        metrics = _write_files(folder, config, replayed, detailed)
        manifest = {**environment(), "seed": config.seed, **_account(config, replayed)}
        (folder / CONFIG).write_text(to_yaml(config), encoding="utf-8")
        write_json(folder / MANIFEST, manifest)
    return ReplayResult(out, metrics, manifest, replayed)


def replay_settings(
    client: ClientConfig, seed: int, *, keep_texts: bool = False, closed_loop: bool = False
) -> ReplaySettings:
    """The client's settings. Raises ConfigError where the API key's variable is not set."""
    from workloads.client.asks import Labels
    from workloads.client.prompts import Vocabulary
    from workloads.client.settings import ReplaySettings

    return ReplaySettings(
        url=client.url,
        model=client.model,
        prompts=client.prompts,
        vocabulary=Vocabulary(*client.vocab) if client.vocab is not None else None,
        tokenizer=tokenizer_path(client),
        prompt_seed=seed if client.prompt_seed is None else client.prompt_seed,
        too_long=client.too_long,
        ignore_eos=client.ignore_eos,
        usage=client.usage,
        extra_body=client.extra_body,
        labels=Labels(**client.label_headers.model_dump()),
        api_key=_api_key(client.api_key_env),
        timeout_s=client.timeout_s,
        max_concurrency=client.max_concurrency,
        retries=client.retries,
        trial=client.trial,
        warmup_requests=client.warmup_requests,
        cores=client.cores,
        keep_texts=keep_texts,
        closed_loop=closed_loop,
    )


def _turns(config: ReplayConfig, replayed: Replayed) -> dict[str, int]:
    """In a closed loop: turns that came although the request before them got no answer."""
    parents = replayed.trace.parent_row
    if not config.workload.closed_loop or parents is None:
        return {}
    failed = {record.row for record in replayed.records if record.outcome != "finished"}
    return {"turns_after_rejection": sum(int(parents[record.row]) in failed for record in replayed.records)}


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"--api-key-env {variable}: this environment variable is not set or empty; put the key there")
    return key


def _write_files(folder: Path, config: ReplayConfig, replayed: Replayed, detailed: bool) -> Mapping[str, float]:
    from reference_impl.metrics import read, summarise
    from reference_impl.metrics.client_clock import on_client_clock

    write_events(folder / EVENTS, config, replayed)
    write_requests(folder / REQUESTS, replayed)
    run = read(folder / EVENTS)
    figures = {**on_client_clock(summarise(run)), **_client_figures(replayed)}
    metrics = whole_counts(figures)
    write_json(folder / METRICS, metrics)
    write_json(folder / VLLM_BENCH, vllm_json(run, config, replayed, detailed))
    return metrics


def _client_figures(replayed: Replayed) -> dict[str, float]:
    late = replayed.lag
    found = {}
    if late is not None:
        found = {
            "client_lag_p50_ms": late.median_s * 1e3,
            "client_lag_p99_ms": late.p99_s * 1e3,
            "client_lag_max_ms": late.max_s * 1e3,
        }
    if replayed.tokens:
        found["client_cpu_us_per_token"] = replayed.cpu_s / replayed.tokens * 1e6
    return found


def _account(config: ReplayConfig, replayed: Replayed) -> dict[str, Any]:
    """What the manifest says about the replay itself."""
    records, trace = replayed.records, replayed.trace
    missed = [error for error in prompt_token_errors(records) if error]
    done = [record for record in records if record.outcome == "finished"]
    examples = {record.error: record.message for record in reversed(records) if record.error is not None}
    return {
        "trace": {"name": trace.name, **trace.metadata},
        "clock": "client",
        "server": config.client.url,
        "model": replayed.model.name,
        "max_model_tokens": replayed.model.max_model_tokens,
        "open_loop": config.client.max_concurrency is None and not config.workload.closed_loop,
        **_turns(config, replayed),
        "interrupted": replayed.interrupted,
        "not_due": len(trace) - len(records),
        "prompt_lengths": replayed.lengths,
        "prompts_of_another_length": {"requests": len(missed), "most_tokens": max(map(abs, missed), default=0)},
        "answers_of_another_length": sum(record.served_output_tokens != record.output_tokens for record in done),
        "token_counts_guessed": sum(not record.answer.counted for record in done),
        "errors": dict(Counter(record.error for record in records if record.error is not None)),
        "error_examples": examples,
        "client_cpu_s": replayed.cpu_s,
    }
