"""A task executor as a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from policies.api import Role
from reference_impl.core.instance import LANES, Instance
from reference_impl.core.seeds import policy_seed
from reference_impl.core.spec import InstanceSpec, PolicyFactory
from reference_impl.engine.api import EngineError
from reference_impl.engine.crew import StartCrew
from reference_impl.engine.pulling import Puller
from reference_impl.engine.task_executor import TaskExecutor
from reference_impl.events import EventLog
from reference_impl.latency.estimate import ModelEstimate
from reference_impl.recording.recorder import Recorder
from reference_impl.serve.channel import Channel, Network
from reference_impl.serve.member import Duty
from reference_impl.serve.messages import Beat, Hello
from reference_impl.serve.spec import LiveSpec
from reference_impl.serve.station import Station
from reference_impl.serve.task_server import TaskServer

_LOOK_S = 0.05
_LAST_ROWS_S = 2.0


class TaskExecutorNode:
    """Hosts a task executor. Which instance it is depends on its seat."""

    def __init__(
        self,
        spec: LiveSpec,
        role: Role,
        make_crews: Callable[[int], StartCrew],
        network: Network,
        on_fence: Callable[[str], None],
        puller: Puller | None = None,
    ) -> None:
        """``make_crews`` gives what starts the workers of an instance id; ``puller`` see :class:`TaskExecutor`."""
        self._spec = spec
        self._role = role
        self._make_crews = make_crews
        self._station = Station(spec, network, "task_executor", role)
        self._on_fence = on_fence
        self._puller = puller
        self._server: TaskServer | None = None
        self._error = ""
        self._recorder: Recorder | None = None
        self._draining: asyncio.Task[None] | None = None

    @property
    def server(self) -> TaskServer:
        """The instance's face, once it has a seat."""
        assert self._server is not None, "the task executor has no seat yet"
        return self._server

    async def start(self) -> None:
        """Return once the instance is ready. Raises EngineError, FencedError."""
        duty = Duty(self._beat, lambda _members: None, self._drain, self._on_fence)
        welcome = await self._station.open(duty, self._accept)
        line = self._station.line
        spec, seat = self._spec, welcome.seat
        build = partial(_build, seat, self._instance_spec(seat), spec)
        executor = TaskExecutor(build, self._make_crews(seat), spec.task, spec.clock, self._puller)
        self._server = TaskServer(executor, spec.report_period_s, line.log, spec.clock, line.beat)
        try:
            await executor.start()
        except EngineError as error:
            self._error = str(error)
            line.beat()
            raise
        self._server.open()
        line.beat()

    async def stop(self, reason: str) -> None:
        """End the workers and leave."""
        if self._server is not None:
            await self._server.close(reason)
        if self._recorder is not None:
            self._recorder.close()
        await self._station.close(reason)

    async def retire(self, seconds: float) -> None:
        """Take nothing new in, and wait until what is here has finished, at most so long."""
        server = self.server
        server.drain()
        self._station.line.beat()
        deadline_s = self._spec.clock() + seconds
        while server.in_flight and self._spec.clock() < deadline_s:
            await asyncio.sleep(_LOOK_S)
        await self._station.line.confirmed(_LAST_ROWS_S)

    def _instance_spec(self, seat: int) -> InstanceSpec:
        """The configured one; of an instance that scaling added, that of the first of its role."""
        instances = self._spec.instances
        configured = instances[seat] if seat < len(instances) else None
        if configured is None or configured.role != self._role:
            configured = next(instance for instance in instances if instance.role == self._role)
        return replace(configured, batch=self._recorded(configured.batch, seat))

    def _recorded(self, batch: PolicyFactory, seat: int) -> PolicyFactory:
        record = self._spec.record
        if record is None or record.decisions != "all":
            return batch
        self._recorder = Recorder(Path(record.folder) / f"decisions-te{seat}.jsonl")
        return self._recorder.batch(batch)

    def _accept(self, channel: Channel, hello: Hello) -> None:
        if self._server is None:
            channel.close("not ready yet")
        else:
            self._server.accept(channel, hello)

    def _beat(self) -> Beat:
        if self._error:
            return Beat("failed", self._error)
        if self._server is None:
            return Beat("starting")
        record_error = self._recorder.complaint if self._recorder is not None else ""
        return self._server.beat()._replace(record_error=record_error)

    def _drain(self, seconds: float) -> None:
        self._draining = asyncio.create_task(self._finish(seconds))

    async def _finish(self, seconds: float) -> None:
        if self._recorder is not None:
            self._recorder.flush()
            self._station.line.beat()
        await self._station.line.confirmed(seconds)
        self._station.line.drained()


def _build(instance_id: int, instance: InstanceSpec, spec: LiveSpec, log: EventLog) -> Instance:
    """An instance with new policy objects, seeded as in the simulator."""
    places = range(len(LANES[instance.role]))
    policies = tuple(instance.batch(policy_seed(spec.seed, instance_id, place)) for place in places)
    estimate = ModelEstimate(instance.latency)
    return Instance(instance_id, instance, policies, estimate, log, spec.prefix_block_tokens)
