"""What a live run (or a replay, or a simulated run) was asked, as a trace that the simulator and the replay accept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config_base import ConfigError
from experiments.run import EVENTS
from experiments.run_folder import REQUESTS

if TYPE_CHECKING:
    from reference_impl.metrics import RunLog
    from workloads.settle import Invalid
    from workloads.trace import Trace


def record(run: Path, *, keep_unfinished: bool = False, invalid: Invalid = "error") -> Trace:
    """The requests of a run: from the folder's ``requests.jsonl`` (or that file itself), else from its event log.

    The event log alone has neither prefixes nor labels; beside ``requests.jsonl`` it says how many requests are missing
    there. Requests that did not finish are left out and counted, unless they are kept with the length asked for.
    """
    if run.is_file():
        return _from_requests(run, keep_unfinished, invalid)
    requests, events = run / REQUESTS, run / EVENTS
    if requests.is_file():
        return _with_missing(_from_requests(requests, keep_unfinished, invalid), requests, events)
    if events.is_file():
        if keep_unfinished:
            raise ConfigError(f"{run}: has no {REQUESTS}, and an event log does not say what was asked for")
        return _from_events(run.name, events)
    raise ConfigError(f"{run}: holds neither {REQUESTS} nor {EVENTS}; name the folder of a run")


def _from_requests(path: Path, keep_unfinished: bool, invalid: Invalid) -> Trace:
    from workloads.formats import served
    from workloads.formats.source import read_bytes, stem

    name = path.parent.name if path.name == REQUESTS and path.parent.name else stem(path)
    return served.parse(path.name, read_bytes(path), name, {"recorded_from": path.name}, invalid, keep_unfinished)


def _with_missing(trace: Trace, requests: Path, events: Path) -> Trace:
    """``trace`` with a note of how many arrivals of the event log have no line among the requests."""
    from workloads.transform import derive

    if not events.is_file():
        return trace
    lines = sum(1 for line in requests.read_bytes().splitlines() if line.strip())
    missing = max(0, len(_read(events).rows["arrive"]) - lines)
    return derive(trace, None, metadata={**trace.metadata, "arrivals_without_a_line": str(missing)})


def _from_events(name: str, path: Path) -> Trace:
    import numpy as np

    from reference_impl.metrics import per_request
    from workloads.trace import Trace

    table = per_request(_read(path))
    done = table.finished
    if not done.any():
        raise ConfigError(f"{path}: no request finished; there is nothing to record")
    arrivals = table.arrival_s[done]
    notes = {"recorded_from": path.name, "unfinished": f"{int((~done).sum())} left out"}
    return Trace(
        name=name,
        arrival_s=arrivals - arrivals[0],
        prompt_tokens=table.prompt_tokens[done].astype(np.int32),
        output_tokens=table.output_tokens[done].astype(np.int32),
        metadata=notes,
    )


def _read(path: Path) -> RunLog:
    from reference_impl.metrics import EventLogError, read

    try:
        return read(path)
    except EventLogError as error:
        raise ConfigError(str(error)) from error
