"""A replay's records as files: the event log on the client's clock, one line per request, the JSON of vLLM's client."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config_replay import ReplayConfig
from experiments.manifest import semiflow_version

if TYPE_CHECKING:
    from reference_impl.metrics import RunLog
    from workloads.client.record import Record
    from workloads.client.replay import Replayed
    from workloads.trace import Trace

_FLUSH_REQUESTS = 1024
_SERVER = 0
"""The instance of a client's log: it sees the server as one."""
_BACKENDS = {"tokens": "openai", "text": "openai", "chat": "openai-chat"}


def write_events(path: Path, config: ReplayConfig, replayed: Replayed) -> None:
    """The event log: when each request was sent, when its tokens came, how it ended."""
    from reference_impl.events import EventLog

    with EventLog(path, _metadata(config, replayed)) as log:
        for done, record in enumerate(sorted(replayed.records, key=lambda record: record.arrival_s)):
            log.arrive.append((record.arrival_s, record.row, record.served_prompt_tokens))
            for came_s, given in zip(record.times_s, accumulate(record.counts()), strict=True):
                log.token.append((came_s, record.row, given))
            if record.outcome == "finished":
                log.finish.append((record.last_token_s, record.row, _SERVER, None, record.served_output_tokens))
            elif record.outcome != "unfinished":
                ended_s = record.scheduled_s if record.ended_s is None else record.ended_s
                log.reject.append((ended_s, record.row, _reason(record)))
            if done % _FLUSH_REQUESTS == 0:
                log.flush_if_full()


def write_requests(path: Path, replayed: Replayed) -> None:
    """One JSON object per request and line, in the order of the trace."""
    with path.open("w", encoding="utf-8") as file:
        for record in replayed.records:
            file.write(json.dumps(_line(replayed.trace, record), allow_nan=False) + "\n")


def vllm_json(run: RunLog, config: ReplayConfig, replayed: Replayed, detailed: bool) -> dict[str, Any]:
    """The keys of ``vllm bench serve``; the times are the client's, as vLLM's are."""
    from reference_impl.metrics import per_request, vllm_bench_json

    found = {
        "date": datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        **vllm_bench_json(run, detailed=detailed),
        "endpoint_type": _BACKENDS[config.client.prompts],
        "backend": _BACKENDS[config.client.prompts],
        "max_concurrency": config.client.max_concurrency,
    }
    if detailed:
        by_row = {record.row: record for record in replayed.records}
        records = [by_row[row] for row in per_request(run).request.tolist()]
        found["latencies"] = [_latency_s(record) for record in records]
        found["generated_texts"] = ["".join(record.answer.texts) for record in records]
        found["errors"] = ["" if record.outcome == "finished" else _reason(record) for record in records]
    return found


def _metadata(config: ReplayConfig, replayed: Replayed) -> dict[str, Any]:
    from reference_impl.request_labels import packed

    trace = replayed.trace
    return {
        "schema_version": 1,
        "version": semiflow_version(),
        "clock": "client",
        "trace": {"name": trace.name, "requests": len(trace), "metadata": dict(trace.metadata)},
        "seed": config.seed,
        "model": replayed.model.name,
        "server": config.client.url,
        "slo": config.slo.logged() if config.slo else None,
        "offered_rps": None if config.workload.closed_loop else trace.mean_rate_rps,
        "instances": [],
        **packed({"tenant": trace.tenant, "slo_class": trace.slo_class}),
    }


def _line(trace: Trace, record: Record) -> dict[str, Any]:
    row, answer = record.row, record.answer
    return {
        "request": row,
        "arrival_s": record.arrival_s,
        "prompt_tokens": record.served_prompt_tokens,
        "output_tokens": record.served_output_tokens,
        "max_tokens": record.output_tokens,
        "prefix_ids": list(trace.prefix_ids[row]) if trace.prefix_ids is not None else None,
        "prefix_block_tokens": trace.prefix_block_tokens,
        "tenant": _label(trace.tenant, row),
        "slo_class": _label(trace.slo_class, row),
        "session_id": _label(trace.session_id, row),
        "outcome": record.outcome,
        "scheduled_s": record.scheduled_s,
        "sent_s": record.sent_s,
        "first_token_s": record.first_token_s,
        "last_token_s": record.last_token_s,
        "ended_s": record.ended_s,
        "status": record.status,
        "attempts": record.attempts,
        "finish_reason": answer.finish_reason,
        "asked_prompt_tokens": record.prompt_tokens,
        "usage": {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.output_tokens},
        "streamed_tokens": answer.tokens,
        "error": record.error,
        "message": record.message,
    }


def _label(column: Sequence[str] | None, row: int) -> str | None:
    return column[row] if column is not None else None


def _reason(record: Record) -> str:
    if record.error is None:
        return record.outcome
    return f"{record.error}: {record.message}" if record.message else record.error


def _latency_s(record: Record) -> float:
    return 0.0 if record.last_token_s is None else record.last_token_s - record.arrival_s


def prompt_token_errors(records: Sequence[Record]) -> Iterator[int]:
    """By how many tokens each prompt, as the server counted it, missed the length that was asked for."""
    for record in records:
        if record.answer.prompt_tokens is not None:
            yield record.answer.prompt_tokens - record.prompt_tokens
