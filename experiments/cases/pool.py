"""Run the cases that are not there yet, on one process or two; every finished case is kept at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

from experiments.cases.model import Case, Outcome, Runner
from experiments.cases.store import CaseStore
from experiments.config_base import ConfigError

MAX_PROCESSES = 2
Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""


def run_cases(
    cases: Sequence[Case],
    runner: Runner,
    store: CaseStore | None = None,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> Mapping[str, Outcome]:
    """Outcome of every case by its key; stored ones are not run again, and equal cases run once.

    On Ctrl-C the finished cases stay in the store. An error of one case ends the work; the cases before it are kept.
    """
    if not 1 <= processes <= MAX_PROCESSES:
        raise ValueError(f"processes is {processes}; allowed: 1 to {MAX_PROCESSES}")
    wanted = {case.key: case for case in cases}
    done = {key: found for key, case in wanted.items() if store and (found := store.load(case)) is not None}
    missing = [case for key, case in wanted.items() if key not in done]
    report = progress or (lambda _done, _total: None)
    report(len(done), len(wanted))
    run = _in_processes if processes > 1 and len(missing) > 1 else _here
    for case, outcome in run(missing, runner):
        if store is not None:
            store.save(case, outcome)
        done[case.key] = outcome
        report(len(done), len(wanted))
    return done


def _here(cases: Sequence[Case], runner: Runner) -> Iterator[tuple[Case, Outcome]]:
    return ((case, runner(case)) for case in cases)


def _in_processes(cases: Sequence[Case], runner: Runner) -> Iterator[tuple[Case, Outcome]]:
    # "spawn": a forked child would inherit the threads of numpy and pyarrow in an undefined state.
    executor = ProcessPoolExecutor(MAX_PROCESSES, get_context("spawn"), initializer=_begin)
    try:
        running = {executor.submit(runner, case): case for case in cases}
        for future in as_completed(running):
            yield running[future], future.result()
    except BrokenProcessPool as error:
        raise ConfigError(
            "a worker process ended without a word: it was killed, for instance for its memory, or a policy ended it; "
            "--processes 1 needs half the memory"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Ctrl-C reaches the workers too; the parent speaks for all of them. One that was killed takes them along."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
