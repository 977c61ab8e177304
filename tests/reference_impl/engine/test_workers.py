"""Real worker processes: exact tokens in every role, real kills, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reference_impl.engine.api import EngineError
from reference_impl.engine.engine import Engine, EngineSettings
from reference_impl.engine.launching import Launcher
from reference_impl.engine.local_executor import LocalExecutor
from reference_impl.engine.post import HandoverSettings
from reference_impl.engine.process_crew import ProcessCrew, ProcessCrews, WorkerSettings
from reference_impl.engine.shared_files import RunLock, shared_folder, sweep, sweep_dead
from reference_impl.engine.step import Failure
from reference_impl.engine.task_executor import TaskExecutor, TaskSettings
from reference_impl.engine.testing import FakeDoor, fake_builder, fake_request, fake_spec
from reference_impl.engine.weights import ModelSource, ensure_weights
from reference_impl.events import EventLog

torch = pytest.importorskip("torch")
Wait = Callable[[Callable[[], bool]], Awaitable[None]]
MODEL = ModelSource("tiny")
FIELDS: dict[str, Any] = {"block_tokens": 16, "kv_blocks": 120, "max_batch_tokens": 512, "max_context_tokens": 512}
PROMPTS = [[random.Random(i).randrange(512) for _ in range(5 + 11 * i)] for i in range(10)]
TOKENS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the launcher, the logs and the weights."""
    return tmp_path_factory.mktemp("host")


@pytest.fixture(scope="module")
def launcher(folder: Path) -> Iterator[Launcher]:
    """This host's launcher."""
    started = Launcher(folder)
    yield started
    started.close()


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[int, tuple[int, ...]]:
    """What transformers' own ``generate`` says to the prompts."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(ensure_weights(MODEL, folder / "weights"))
    found = {}
    for i, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt])
        options = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        generated = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        found[i] = tuple(generated[0, len(prompt) :].tolist())
    return found


@pytest.fixture
def real(launcher: Launcher, folder: Path, run: str) -> Callable[..., TaskExecutor]:
    """Build a task executor on real workers; the crews that it starts are noted in ``crews``."""
    epoch_s = time.monotonic()

    def build(
        instance_id: int, role: Any = "colocated", crews: list[ProcessCrew] | None = None, **options: Any
    ) -> TaskExecutor:
        worker = {"log_folder": folder / "logs", **options.pop("worker", {})}
        settings = WorkerSettings(MODEL, folder / "weights", epoch_s, **worker)
        starts = ProcessCrews(launcher.socket, run, settings)

        async def start(instance: Any) -> ProcessCrew:
            crew = await starts(instance)
            if crews is not None:
                crews.append(crew)
            return crew

        spec = fake_spec(role, "chunked_prefill:chunk_tokens=32", **FIELDS)
        return TaskExecutor(
            fake_builder(instance_id, spec), start, TaskSettings(**options), lambda: time.monotonic() - epoch_s
        )

    return build


def requests() -> list[Any]:
    return [fake_request(i, prompt, TOKENS, ignore_eos=True) for i, prompt in enumerate(PROMPTS)]


def serve(executors: Sequence[TaskExecutor], act: Callable[[], Any]) -> None:
    async def whole() -> None:
        try:
            for executor in executors:
                await executor.start()
            await act()
        finally:
            for executor in executors:
                await executor.stop()

    asyncio.run(whole())


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("plan_ahead", [False, True], ids=["plain", "ahead"])
@pytest.mark.parametrize("role", ["colocated", "semi_pd"])
def test_tokens_are_those_of_generate(
    real: Callable[..., TaskExecutor], expected: dict[int, tuple[int, ...]], role: str, plan_ahead: bool
) -> None:
    executor = real(0, role, plan_ahead=plan_ahead)

    async def act() -> None:
        assert await FakeDoor([executor]).serve(requests()) == expected

    serve([executor], act)


@pytest.mark.parametrize("role", ["colocated", "semi_pd"])
def test_tokens_are_those_of_generate_in_one_process_too(
    folder: Path, expected: dict[int, tuple[int, ...]], role: Any
) -> None:
    from reference_impl.engine.kv_cache import KvPool
    from reference_impl.engine.model_facts import model_folder, read_facts
    from reference_impl.engine.runner import Runner

    spec = fake_spec(role, "chunked_prefill:chunk_tokens=32", **FIELDS)
    instance = fake_builder(0, spec)(EventLog(None))
    facts = read_facts(model_folder(MODEL.path))
    pool = KvPool.create(None, facts.kv_layout(spec.block_tokens, "float32"), spec.kv_blocks)
    runners = [Runner(ensure_weights(MODEL, folder / "weights"), MODEL, pool) for _ in instance.lanes]
    engine = Engine(instance, [LocalExecutor(runner) for runner in runners], EngineSettings(), time.monotonic)
    found: dict[int, list[int]] = {i: [] for i in expected}
    for request in requests():
        engine.submit(request)
    while engine.lives:
        engine.pump()
        for place, loop in enumerate(engine.loops):
            if loop.flights:
                engine.collect(place)
        step = engine.news.take(False)
        for output in step.outputs if step is not None else ():
            found[output.request_id] += [sampled.token for sampled in output.tokens]
    assert {i: tuple(tokens) for i, tokens in found.items()} == expected
    instance.check_integrity()


@pytest.mark.parametrize("transport", ["shm", "tcp"])
@pytest.mark.parametrize("granularity", ["request", "layer"])
def test_tokens_are_those_of_generate_after_a_hand_over(
    real: Callable[..., TaskExecutor], expected: dict[int, tuple[int, ...]], transport: Any, granularity: Any
) -> None:
    handover = HandoverSettings(transport, granularity)
    source, target = real(0, "prefill", handover=handover), real(1, "decode", handover=handover, plan_ahead=True)

    async def act() -> None:
        assert await FakeDoor([source], [target]).serve(requests()) == expected
        assert len(target.take_rows()["transfer"]) == len(PROMPTS)

    serve([source, target], act)


@pytest.mark.parametrize("role", ["colocated", "semi_pd"])
def test_killed_workers_are_replaced_and_their_memory_is_freed(
    real: Callable[..., TaskExecutor], expected: dict[int, tuple[int, ...]], until: Wait, role: str, run: str
) -> None:
    crews: list[ProcessCrew] = []
    executor = real(0, role, crews)
    rng = random.Random(role)

    async def act() -> None:
        door = FakeDoor([executor], tries=100)
        for request in requests():
            door.submit(request)
        files = len(_shared(run))
        for kills in range(1, 7):
            pids = list(crews[-1].pids)
            await asyncio.sleep(0.05 * rng.random())
            os.kill(rng.choice(pids), signal.SIGKILL)
            await until(lambda kills=kills: len(crews) == kills + 1 and executor.view().state == "ready")  # type: ignore[misc]
            await until(lambda pids=pids: not any(alive(pid) for pid in pids))  # type: ignore[misc]
            assert len(_shared(run)) == files
        await door.finished()
        assert {i: tuple(job.tokens) for i, job in door.jobs.items()} == expected
        view = executor.view()
        assert view.free_blocks == view.total_blocks

    serve([executor], act)


def _shared(run: str) -> list[Path]:
    return list(shared_folder().glob(f"semiflow-{run}-*"))


def test_a_worker_that_was_stopped_is_replaced_and_killed(
    real: Callable[..., TaskExecutor], expected: dict[int, tuple[int, ...]], until: Wait
) -> None:
    crews: list[ProcessCrew] = []
    executor = real(0, "colocated", crews, stall_timeout_s=0.3)

    async def act() -> None:
        door = FakeDoor([executor])
        for request in requests():
            door.submit(request)
        await until(lambda: sum(len(job.tokens) for job in door.jobs.values()) > 30)
        (pid,) = crews[0].pids
        os.kill(pid, signal.SIGSTOP)
        await door.finished()
        assert {i: tuple(job.tokens) for i, job in door.jobs.items()} == expected
        await until(lambda: not alive(pid))

    serve([executor], act)


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        ({"cores": (4095,)}, r"a worker could not start: a worker cannot keep to cores \(4095,\)"),
        ({"share": 2.0}, r"a worker could not start: a CPU share of 2.0"),
    ],
)
def test_workers_that_cannot_start_say_why(
    real: Callable[..., TaskExecutor], worker: dict[str, Any], reason: str
) -> None:
    with pytest.raises(EngineError, match=reason):
        serve([real(0, worker=worker)], lambda: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_worker_on_a_gpu_that_is_not_there_says_so(launcher: Launcher, folder: Path, run: str) -> None:
    settings = WorkerSettings(ModelSource("tiny", device="cuda"), folder / "weights", 0.0)
    starts = ProcessCrews(launcher.socket, run, settings)
    executor = TaskExecutor(fake_builder(0, fake_spec(**FIELDS)), starts, TaskSettings(), time.monotonic)
    with pytest.raises(EngineError, match="device 'cuda' needs a GPU"):
        serve([executor], lambda: None)


def test_on_a_device_whose_memory_others_cannot_reach_only_colocated_instances_run(folder: Path, run: str) -> None:
    settings = WorkerSettings(ModelSource("tiny", device="cuda"), folder / "weights", 0.0)
    starts = ProcessCrews(folder / "nobody.sock", run, settings)
    executor = TaskExecutor(fake_builder(0, fake_spec("prefill", **FIELDS)), starts, TaskSettings(), time.monotonic)
    with pytest.raises(EngineError, match="a prefill instance on cuda; allowed there: colocated"):
        serve([executor], lambda: None)


def test_a_pool_that_does_not_fit_is_refused(launcher: Launcher, folder: Path, run: str) -> None:
    settings = WorkerSettings(MODEL, folder / "weights", 0.0)
    spec = fake_spec(block_tokens=16, kv_blocks=1 << 40, max_context_tokens=512)
    starts = ProcessCrews(launcher.socket, run, settings)
    executor = TaskExecutor(_unbuilt(spec), starts, TaskSettings(), time.monotonic)
    with pytest.raises(EngineError, match="give the instance fewer KV blocks"):
        serve([executor], lambda: None)


def _unbuilt(spec: Any) -> Any:
    """Builds a small instance that says it has as many blocks as ``spec``: their free list would fill the memory."""

    def build(log: Any) -> Any:
        instance = fake_builder(0, fake_spec(block_tokens=16))(log)
        instance.spec = spec
        return instance

    return build


def test_workers_keep_to_their_cores_and_share(
    real: Callable[..., TaskExecutor], expected: dict[int, tuple[int, ...]]
) -> None:
    crews: list[ProcessCrew] = []
    core = min(os.sched_getaffinity(0))
    executor = real(0, "colocated", crews, worker={"cores": (core,), "share": 0.9})

    async def act() -> None:
        assert os.sched_getaffinity(crews[0].pids[0]) == {core}
        assert await FakeDoor([executor]).serve(requests()) == expected

    serve([executor], act)


OWNER = """
    import asyncio, sys, time
    from pathlib import Path
    from reference_impl.engine.launching import Launcher
    from reference_impl.engine.process_crew import ProcessCrews, WorkerSettings
    from reference_impl.engine.shared_files import RunLock
    from reference_impl.engine.task_executor import TaskExecutor, TaskSettings
    from reference_impl.engine.testing import fake_builder, fake_request, fake_spec
    from reference_impl.engine.weights import ModelSource

    run, folder, socket = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

    async def main():
        lock = RunLock(run)
        launcher = None if socket else Launcher(folder)
        workers = WorkerSettings(ModelSource("tiny"), folder / "weights", 0.0, log_folder=folder / "logs")
        crews = ProcessCrews(Path(socket) if socket else launcher.socket, run, workers)
        spec = fake_spec(block_tokens=16, kv_blocks=120, max_context_tokens=512)
        executor = TaskExecutor(fake_builder(0, spec), crews, TaskSettings(), time.monotonic)
        await executor.start()
        for i in range(8):
            executor.submit(fake_request(i, [1, 2, 3], 400, ignore_eos=True))
        pids = [launcher.pid] if launcher else []
        print(*pids, *executor.running.crew.pids, flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
"""


@pytest.mark.parametrize("own_launcher", [True, False], ids=["its own launcher", "another one's launcher"])
def test_workers_die_with_their_instance_and_the_launcher_with_its_owner(
    launcher: Launcher, folder: Path, run: str, until: Wait, tmp_path: Path, own_launcher: bool
) -> None:
    arguments = [run, str(tmp_path if own_launcher else folder), "" if own_launcher else str(launcher.socket)]
    command = [sys.executable, "-c", textwrap.dedent(OWNER), *arguments]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    assert owner.stdout is not None
    with owner.stdout:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 1 + own_launcher
    assert all(alive(pid) for pid in pids)
    with pytest.raises(EngineError, match="is alive in another process"):
        RunLock(run)
    assert not any(run in path.name for path in sweep_dead())
    owner.kill()
    owner.wait()
    asyncio.run(until(lambda: not any(alive(pid) for pid in pids)))  # type: ignore[arg-type]
    assert launcher.alive()
    assert len([path for path in sweep_dead() if run in path.name]) == 2
    assert sweep(run) == []


def test_a_worker_whose_instance_is_gone_ends_in_the_middle_of_a_forward() -> None:
    code = """
        import os, socket, sys, threading
        from reference_impl.engine.worker import die_with
        die_with(socket.socket(fileno=int(sys.argv[1])))
        os.fstat(int(sys.argv[1]))  # whoever watches a socket keeps it open
        print("computing", flush=True)
        threading.Event().wait()
    """
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", textwrap.dedent(code), str(theirs.fileno())]
    root = Path(__file__).parents[3]
    with (
        ours,
        theirs,
        subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()], cwd=root) as worker,
    ):
        assert worker.stdout is not None
        try:
            assert worker.stdout.readline() == b"computing\n"
            assert worker.poll() is None
            theirs.close()
            ours.close()
            assert worker.wait(timeout=60) == 0
        finally:
            worker.kill()


def test_an_instance_sweeps_what_its_killed_predecessor_left(real: Callable[..., TaskExecutor], run: str) -> None:
    left = shared_folder() / f"semiflow-{run}-0-0badc0de-kv"
    other = shared_folder() / f"semiflow-{run}-01-0badc0de-kv"
    for path in (left, other):
        path.write_bytes(b"KV")
    executor = real(0)

    async def act() -> None:
        assert not left.exists()
        assert other.exists()

    serve([executor], act)
    other.unlink()


def test_a_launcher_that_is_gone_is_named(folder: Path, run: str, tmp_path: Path) -> None:
    gone = Launcher(tmp_path)
    gone.close()
    settings = WorkerSettings(MODEL, folder / "weights", 0.0)
    executor = TaskExecutor(
        fake_builder(0, fake_spec(**FIELDS)), ProcessCrews(gone.socket, run, settings), TaskSettings(), time.monotonic
    )
    with pytest.raises(EngineError, match=r"no worker came from .*launcher\.sock"):
        serve([executor], lambda: None)


def test_a_run_folder_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="choose a shorter run folder"):
        Launcher(tmp_path / ("x" * 100))


def test_failures_of_a_crew_come_as_failures_of_requests(real: Callable[..., TaskExecutor], until: Wait) -> None:
    crews: list[ProcessCrew] = []
    executor = real(0, "colocated", crews)
    failed: list[Failure] = []

    async def act() -> None:
        executor.on_step = lambda step: failed.extend(step.failed)
        executor.submit(requests()[0])
        await until(lambda: executor.view().running_requests == 1)
        os.kill(crews[0].pids[0], signal.SIGKILL)
        await until(lambda: bool(failed))
        assert failed[0].retry
        assert "worker" in failed[0].reason

    serve([executor], act)
