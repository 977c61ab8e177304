"""Connections to the other processes, kept in step with what the cluster manager says is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from reference_impl.serve.channel import Address, Channel, ChannelError, Network
from reference_impl.serve.messages import Hello, Kind, Member
from reference_impl.serve.registry import Key

_FIRST_RETRY_S, _LAST_RETRY_S = 0.02, 0.5


class Callbacks(NamedTuple):
    """What the owner of the connections is told. Called in the event loop."""

    on_message: Callable[[Key, Any], None]
    on_lost: Callable[[Key, str], None]
    """What was sent there may or may not have arrived; nothing more will come of it."""
    on_connected: Callable[[Key], None]


class Peers:
    """One connection to each member of the given kinds; broken ones are made anew while the member is there."""

    def __init__(
        self,
        network: Network,
        hello: Callable[[], Hello],
        kinds: Collection[Kind],
        callbacks: Callbacks,
        patience_s: float,
    ) -> None:
        self._network = network
        self._hello = hello
        self._kinds = frozenset(kinds)
        self._callbacks = callbacks
        self._patience_s = patience_s
        """How long messages wait for a connection."""
        self._peers: dict[Key, _Peer] = {}

    def update(self, members: Sequence[Member]) -> None:
        """These are there, and nobody else."""
        there = {
            (member.kind, member.seat): member for member in members if member.kind in self._kinds and member.address
        }
        for key in [key for key, peer in self._peers.items() if key not in there and peer.member is not None]:
            self._peers.pop(key).leave("the cluster manager gave it up")
        for key, member in there.items():
            peer = self._peers.get(key)
            if peer is not None and peer.member is not None and peer.member.generation != member.generation:
                self._peers.pop(key).leave("another process took its place")
                peer = None
            if peer is None:
                peer = self._new(key)
            peer.meet(member)

    def send(self, key: Key, message: tuple[Any, ...]) -> None:
        """Send, now or as soon as there is a connection; ``on_lost`` follows where there is none for too long."""
        peer = self._peers.get(key)
        if peer is None:  # others may have heard of it before us
            peer = self._new(key)
        peer.send(message)

    def connected(self, kind: Kind) -> list[int]:
        """The seats of a kind that can be talked to now, ascending."""
        return sorted(seat for (of_kind, seat), peer in self._peers.items() if of_kind == kind and peer.is_connected)

    def close(self, reason: str) -> None:
        """Leave everybody. Nothing is called any more."""
        for peer in self._peers.values():
            peer.close(reason)
        self._peers.clear()

    def _new(self, key: Key) -> _Peer:
        peer = self._peers[key] = _Peer(self._network, key, self._hello, self._callbacks, self._patience_s)
        return peer


class _Peer:
    """The connection to one member."""

    def __init__(
        self, network: Network, key: Key, hello: Callable[[], Hello], callbacks: Callbacks, patience_s: float
    ) -> None:
        self.member: Member | None = None
        """None: somebody spoke of it, the cluster manager has not yet."""
        self._network = network
        self._key = key
        self._hello = hello
        self._callbacks = callbacks
        self._patience_s = patience_s
        self._channel: Channel | None = None
        self._waiting: list[tuple[Any, ...]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._broken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether what is sent goes out at once."""
        return self._channel is not None

    def meet(self, member: Member) -> None:
        """This is it; connect."""
        self.member = member
        if self._task is None:
            self._task = asyncio.create_task(self._stay_connected(Address.parse(member.address)))

    def send(self, message: tuple[Any, ...]) -> None:
        """Send now, or once connected."""
        if self._channel is not None:
            self._channel.send(message)
            return
        self._waiting.append(message)
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(self._patience_s, self._lose_patience)

    def leave(self, reason: str) -> None:
        """It is gone for good."""
        self.close(reason)
        self._callbacks.on_lost(self._key, reason)

    def close(self, reason: str) -> None:
        """Stop, without a word to the owner."""
        if self._task is not None:
            self._task.cancel()
        self._stop_alarm()
        self._waiting.clear()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close(reason)

    async def _stay_connected(self, address: Address) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            self._broken.clear()
            try:
                channel = await self._network.connect(address, self._hello(), self._receive, self._lost)
            except ChannelError:
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
                continue
            retry_s = _FIRST_RETRY_S
            self._connected(channel)
            await self._broken.wait()
            await asyncio.sleep(retry_s)

    def _connected(self, channel: Channel) -> None:
        if channel.closed is not None:
            self._broken.set()
            return
        self._channel = channel
        self._stop_alarm()
        self._callbacks.on_connected(self._key)
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            channel.send(message)

    def _receive(self, message: Any) -> None:
        self._callbacks.on_message(self._key, message)

    def _lost(self, reason: str) -> None:
        self._broken.set()
        if self._channel is not None:
            self._channel = None
            self._callbacks.on_lost(self._key, reason)

    def _lose_patience(self) -> None:
        self._alarm = None
        if self._waiting:
            self._waiting.clear()
            self._callbacks.on_lost(self._key, f"it could not be reached for {self._patience_s:g} s")

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
