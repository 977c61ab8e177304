"""The two ends of a worker's socket, and executors that forget in order."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from reference_impl.engine.api import ChunkRow, DecodeRow, EngineError, ForwardBatch, SamplingParams, WorkerDiedError
from reference_impl.engine.kv_file import KvFile
from reference_impl.engine.local_executor import LocalExecutor
from reference_impl.engine.process_executor import ProcessExecutor, serve_iterations
from reference_impl.engine.testing import FakeRunner, fake_layout, fake_tokens

PARAMS = SamplingParams(4, temperature=0.0)


def first(ordinal: int, *prompt: int) -> ForwardBatch:
    return ForwardBatch(ordinal, (ChunkRow(0, prompt, 0, [0, 1], True),), ())


def after(ordinal: int, position: int) -> ForwardBatch:
    return ForwardBatch(ordinal, (), (DecodeRow(0, None, position, [0, 1]),))


@pytest.fixture
def runner(tmp_path: Path, clock: Callable[[], float]) -> FakeRunner:
    return FakeRunner(KvFile.create(tmp_path / "pool", fake_layout(4), 4), clock)


def test_two_iterations_can_be_under_way_and_what_is_forgotten_is_forgotten_after_them(runner: FakeRunner) -> None:
    ours, theirs = socket.socketpair()
    executor = ProcessExecutor(ours)
    executor.admit(0, PARAMS)
    executor.launch(first(1, 5, 6))
    executor.launch(after(2, 2))
    executor.forget([0])
    thread = threading.Thread(target=serve_iterations, args=(theirs, runner), daemon=True)
    thread.start()
    tokens = [executor.collect().tokens[0].token for _ in range(2)]
    executor.admit(0, PARAMS)
    executor.launch(first(3, 5, 6))
    assert executor.collect().ordinal == 3
    executor.forget([0])
    executor.launch(ForwardBatch(4, (), ()))
    executor.collect()
    assert runner.known == set()
    executor.close()
    thread.join()
    theirs.close()
    assert tokens == list(fake_tokens([5, 6], 2))


def test_a_local_executor_forgets_and_admits_in_order_too(runner: FakeRunner) -> None:
    executor = LocalExecutor(runner)
    executor.admit(0, PARAMS)
    executor.launch(first(1, 5, 6))
    executor.launch(after(2, 2))
    executor.forget([0])
    executor.admit(0, PARAMS)
    executor.launch(first(3, 7))
    assert [executor.collect().tokens[0].token for _ in range(3)] == [*fake_tokens([5, 6], 2), *fake_tokens([7], 1)]
    assert executor.fileno() is None


def test_a_worker_whose_batch_is_impossible_says_so_and_ends(runner: FakeRunner) -> None:
    ours, theirs = socket.socketpair()
    executor = ProcessExecutor(ours)
    executor.launch(first(1, 5, 6))
    with pytest.raises(EngineError, match="never admitted"):
        serve_iterations(theirs, runner)
    with pytest.raises(WorkerDiedError, match=r"worker broke down: .*request 0 has a row in a batch, and was never"):
        executor.collect()
    executor.close()
    theirs.close()


@pytest.mark.parametrize("sent", [b"", b"\x05", b"\xff\x00\x00\x00half of it"])
def test_a_worker_that_is_gone_in_the_middle_of_an_answer_has_died(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    executor = ProcessExecutor(ours)
    theirs.sendall(sent)
    theirs.close()
    with pytest.raises(WorkerDiedError, match="was closed"):
        executor.collect()
    with pytest.raises(WorkerDiedError, match="is gone"):
        executor.launch(first(1, 5))
    executor.close()
