"""A front door as a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reference_impl.serve.channel import Network
from reference_impl.serve.gateway import GatewaySettings, LiveGateway
from reference_impl.serve.member import Duty
from reference_impl.serve.messages import Beat, Hello, Kind
from reference_impl.serve.peers import Callbacks, Peers
from reference_impl.serve.spec import LiveSpec
from reference_impl.serve.station import Station


class FrontDoorNode:
    """Hosts a front door's gateway; its HTTP server is somebody else's."""

    def __init__(self, spec: LiveSpec, network: Network, on_fence: Callable[[str], None]) -> None:
        self._spec = spec
        self._station = Station(spec, network, "front_door")
        self._on_fence = on_fence
        settings = GatewaySettings(
            spec.instances,
            spec.prefix_block_tokens,
            spec.front_doors,
            spec.max_failures,
            spec.timing.absence_s,
            spec.slo,
            spec.report_delay_s,
        )
        self.gateway = LiveGateway(settings, spec.predictor.build(spec.seed), self._log, spec.clock)
        self._ready = False
        self._draining: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return once requests can be accepted; say so with :meth:`open_to_clients`."""
        self.gateway.open(self._connect)
        duty = Duty(self._beat, self.gateway.members, self._drain, self._on_fence)
        welcome = await self._station.open(duty, None)
        self.gateway.number_from(welcome.first_request_id)

    @property
    def seat(self) -> int:
        """Which front door it is, once started."""
        return self._station.line.seat

    def open_to_clients(self) -> None:
        """Clients can reach it from now on."""
        self._ready = True
        self._station.line.beat()

    async def stop(self, reason: str) -> None:
        """Leave; what still runs is cut off."""
        if self._draining is not None:
            self._draining.cancel()
        self.gateway.close(reason)
        await self._station.close(reason)

    def _connect(self, callbacks: Callbacks) -> Peers:
        kinds: tuple[Kind, ...] = ("job_executor", "task_executor")
        patience_s = self._spec.timing.patience_s
        return Peers(self._station.network, self._hello, kinds, callbacks, patience_s)

    def _hello(self) -> Hello:
        return Hello("front_door", self._station.line.seat)

    def _log(self, rows: dict[str, list[tuple[object, ...]]]) -> None:
        self._station.line.log(rows)

    def _beat(self) -> Beat:
        beat = self.gateway.beat()
        return beat if self._ready else beat._replace(state="starting")

    def _drain(self, seconds: float) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._finish(seconds))

    async def _finish(self, seconds: float) -> None:
        await self.gateway.drain(seconds)
        self._station.line.beat()
        await self._station.line.confirmed(seconds)
        self._station.line.drained()
