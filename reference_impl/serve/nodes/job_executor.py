"""A job executor as a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from policies.api import DispatchPolicy, Observer
from reference_impl.core.seeds import executor_seed
from reference_impl.latency.estimate import ModelEstimate
from reference_impl.recording.recorder import Recorder
from reference_impl.serve.channel import Channel, Network
from reference_impl.serve.job_executor import ExecutorSettings, JobExecutor
from reference_impl.serve.member import Duty
from reference_impl.serve.messages import Beat, Hello, Members
from reference_impl.serve.peers import Callbacks, Peers
from reference_impl.serve.spec import LiveSpec
from reference_impl.serve.station import Station

_FLUSH_S = 1.0


class JobExecutorNode:
    """Hosts a job executor. Which policy seed it has depends on its seat, so it is built once it has one."""

    def __init__(self, spec: LiveSpec, network: Network, on_fence: Callable[[str], None]) -> None:
        self._spec = spec
        self._station = Station(spec, network, "job_executor")
        self._on_fence = on_fence
        self._executor: JobExecutor | None = None
        self._early: list[Members] = []
        self._recorder: Recorder | None = None
        self._flush: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Return once front doors can ask."""
        duty = Duty(self._beat, self._members, self._drain, self._on_fence)
        welcome = await self._station.open(duty, self._accept)
        spec = self._spec
        seed = executor_seed(spec.seed, welcome.seat)
        policy = self._recorded(spec.dispatch.build(seed), seed, welcome.seat)
        estimate = ModelEstimate(spec.instances[0].latency)
        settings = ExecutorSettings(spec.report_delay_s, spec.timing.absence_s)
        self._executor = JobExecutor(policy, estimate, settings, spec.clock)
        self._executor.open(partial(self._connect, Hello("job_executor", welcome.seat, isinstance(policy, Observer))))
        for members in self._early:
            self._executor.members(members)
        self._station.line.beat()

    async def stop(self, reason: str) -> None:
        """Leave."""
        if self._flush is not None:
            self._flush.cancel()
        if self._executor is not None:
            self._executor.close(reason)
        if self._recorder is not None:
            self._recorder.close()
        await self._station.close(reason)

    def _connect(self, hello: Hello, callbacks: Callbacks) -> Peers:
        patience_s = self._spec.timing.patience_s
        return Peers(self._station.network, lambda: hello, ["task_executor"], callbacks, patience_s)

    def _accept(self, channel: Channel, hello: Hello) -> None:
        if self._executor is None:
            channel.close("not ready yet")
        else:
            self._executor.accept(channel, hello)

    def _members(self, members: Members) -> None:
        if self._executor is None:
            self._early.append(members)
        else:
            self._executor.members(members)

    def _beat(self) -> Beat:
        executor = self._executor
        if executor is None:
            return Beat("starting")
        record_error = self._recorder.complaint if self._recorder is not None else ""
        return Beat("ready", in_flight=executor.queued, record_error=record_error)

    def _drain(self, _seconds: float) -> None:
        if self._recorder is not None:
            self._recorder.flush()
            self._station.line.beat()
        self._station.line.drained()

    def _recorded(self, policy: DispatchPolicy, seed: int, seat: int) -> DispatchPolicy:
        record = self._spec.record
        if record is None or record.decisions == "none":
            return policy
        self._recorder = Recorder(record.folder / f"decisions-je{seat}.jsonl")
        self._flush_and_again()
        return self._recorder.dispatch(policy, str(self._spec.dispatch), seed)

    def _flush_and_again(self) -> None:
        assert self._recorder is not None
        self._recorder.flush()
        self._flush = asyncio.get_running_loop().call_later(_FLUSH_S, self._flush_and_again)
