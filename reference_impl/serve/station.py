"""What every process of a deployment has: a place to listen, and its line to the cluster manager."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count

from policies.api import Role
from reference_impl.serve.channel import Address, Channel, Listener, Network
from reference_impl.serve.member import Duty, MemberLine
from reference_impl.serve.messages import Hello, Join, Kind, Welcome
from reference_impl.serve.spec import LiveSpec

_SERIAL = count()


class Station:
    """One process's place in the deployment."""

    def __init__(self, spec: LiveSpec, network: Network, kind: Kind, role: Role | None = None) -> None:
        self.spec = spec
        self.network = network
        self.kind: Kind = kind
        self._role = role
        self._listener: Listener | None = None
        self._line: MemberLine | None = None

    @property
    def line(self) -> MemberLine:
        """To the cluster manager, once open."""
        assert self._line is not None, "the station is not open"
        return self._line

    async def open(self, duty: Duty, accept: Callable[[Channel, Hello], None] | None) -> Welcome:
        """Listen, if anybody may connect, and join; returns once there is a seat. Raises FencedError, ChannelError."""
        spec = self.spec
        address = ""
        if accept is not None:
            self._listener = await self.network.listen(self._address(), accept)
            address = str(self._listener.address)
        join = Join(self.kind, -1, 0, address, os.getpid(), self._role)
        self._line = MemberLine(self.network, spec.manager, join, duty, beat_s=spec.timing.beat_s, logs=spec.logs)
        return await self._line.start()

    async def close(self, reason: str) -> None:
        """Leave, and listen no more."""
        if self._line is not None:
            await self._line.stop(reason)
        if self._listener is not None:
            self._listener.close(reason)

    def _address(self) -> Address:
        if self.spec.transport == "tcp":
            return Address("tcp", "127.0.0.1:0")
        name = f"{self.kind.split('_')[0]}-{os.getpid()}-{next(_SERIAL)}.sock"
        return Address("unix", str(self.spec.folder / name))
