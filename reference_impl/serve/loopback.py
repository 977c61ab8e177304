"""A whole deployment in one process and one event loop: every node and every channel real, only the processes are not.

For tests of whatever needs a deployment and neither Ray nor processes of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from policies.api import Role
from reference_impl.engine.api import EngineError
from reference_impl.engine.crew import StartCrew
from reference_impl.engine.pulling import Puller
from reference_impl.serve.channel import Network
from reference_impl.serve.gateway import LiveGateway
from reference_impl.serve.messages import Status
from reference_impl.serve.nodes.front_door import FrontDoorNode
from reference_impl.serve.nodes.job_executor import JobExecutorNode
from reference_impl.serve.nodes.manager import ManagerNode
from reference_impl.serve.nodes.task_executor import TaskExecutorNode
from reference_impl.serve.operating import Operator
from reference_impl.serve.spec import LiveSpec


class Node(Protocol):
    """What all nodes can do."""

    async def start(self) -> None: ...
    async def stop(self, reason: str) -> None: ...


AnyNode = TypeVar("AnyNode", bound=Node)


@dataclass(eq=False)
class Host(Generic[AnyNode]):
    """A node and its connections: what would be a process."""

    node: AnyNode
    network: Network

    async def kill(self) -> None:
        """End it as a kill would: no goodbye. What it held in memory goes, as the system would see to."""
        self.network.cut()
        await self.node.stop("killed")


@dataclass
class Loopback:
    """Start it, use its gateways, break it, stop it."""

    spec: LiveSpec
    make_crews: Callable[[int], StartCrew]
    make_network: Callable[[], Network]
    make_puller: Callable[[], Puller | None] = lambda: None
    manager: Host[ManagerNode] | None = None
    front_doors: list[Host[FrontDoorNode]] = field(default_factory=list)
    job_executors: list[Host[JobExecutorNode]] = field(default_factory=list)
    task_executors: list[Host[TaskExecutorNode]] = field(default_factory=list)

    @property
    def gateway(self) -> LiveGateway:
        """Of the first front door."""
        return self.front_doors[0].node.gateway

    async def start(self) -> None:
        """Return once everybody has joined and is ready."""
        await self.start_manager()
        await asyncio.gather(
            *(self.start_task_executor(spec.role) for spec in self.spec.instances),
            *(self.start_job_executor() for _ in range(self.spec.job_executors)),
            *(self.start_front_door() for _ in range(self.spec.front_doors)),
        )
        while not all([(await host.node.gateway.health()).ready for host in self.front_doors]):
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop everybody, the cluster manager last."""
        members: list[Host[FrontDoorNode] | Host[JobExecutorNode] | Host[TaskExecutorNode]] = [
            *self.front_doors,
            *self.job_executors,
            *self.task_executors,
        ]
        for host in members:
            await host.node.stop("the deployment ends")
        if self.manager is not None:
            await self.manager.node.stop("the deployment ends")

    async def drain(self, seconds: float) -> Status:
        """Have everybody finish and hand in their rows."""
        operator = Operator(self.make_network(), self.spec)
        operator.open()
        try:
            return await operator.drain(seconds)
        finally:
            await operator.close()

    async def start_manager(self) -> None:
        """A cluster manager, the first or a new one."""
        network = self.make_network()
        self.manager = Host(ManagerNode(self.spec, network), network)
        await self.manager.node.start()

    async def start_front_door(self) -> Host[FrontDoorNode]:
        """One more front door."""
        network = self.make_network()
        host = Host(FrontDoorNode(self.spec, network, _nothing), network)
        await host.node.start()
        host.node.open_to_clients()
        self.front_doors.append(host)
        return host

    async def start_job_executor(self) -> Host[JobExecutorNode]:
        """One more job executor."""
        network = self.make_network()
        host = Host(JobExecutorNode(self.spec, network, _nothing), network)
        await host.node.start()
        self.job_executors.append(host)
        return host

    async def start_task_executor(self, role: Role) -> Host[TaskExecutorNode]:
        """One more instance. Raises EngineError where its workers do not start; nothing of it is left then."""
        network = self.make_network()
        node = TaskExecutorNode(self.spec, role, self.make_crews, network, _nothing, self.make_puller())
        host = Host(node, network)
        try:
            await host.node.start()
        except EngineError:
            await host.kill()
            raise
        self.task_executors.append(host)
        return host


def _nothing(_reason: str) -> None:
    """A fenced node has nothing to end: its process is the test's."""
