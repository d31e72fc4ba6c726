"""Connections in memory: bytes that take their time, arrive in order, or not at all.

What a side has written before its process dies still arrives, then the connection ends, as
with a socket of the kernel.  A connection that is cut loses what is on its way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from beaver_chaos.sim.hardware import Hardware
from beaver_chaos.sim.loop import Process


class SimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(
        self, connections: Connections, process: Process, protocol: asyncio.Protocol
    ) -> None:
        super().__init__()
        self._connections, self._world = connections, connections.world
        self.process, self._protocol = process, protocol
        self.peer: SimTransport
        self._arriving: deque[bytes] = deque()
        """Data on its way to this end; empty bytes for the end of the stream."""
        self._arrival_ns = 0
        self._lost = False
        """This end is closed; its protocol was told, or will be."""

    # -- asyncio.Transport -----------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if not self._lost:
            self.peer.send_here(bytes(data))

    def close(self) -> None:
        self._end(tell=True)

    def abort(self) -> None:
        self._end(tell=True)

    def is_closing(self) -> bool:
        return self._lost

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing: a simulated reader reads at once."""

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Never asked for, since nothing is ever unread."""

    def resume_reading(self) -> None:
        """As `pause_reading`."""

    # -- what happens to it ------------------------------------------------------------------------

    def made(self) -> None:
        """Tells the protocol that there is a connection."""
        self._protocol.connection_made(self)

    def send_here(self, data: bytes) -> None:
        """Brings bytes on their way to this end; each arrives behind the one before."""
        world = self._world
        if len(data) > 1 and world.chance.one_in(16):
            middle = len(data) // 2
            self._arriving += (data[:middle], data[middle:])
            count = 2
        else:
            self._arriving.append(data)
            count = 1
        for _ in range(count):
            self._arrival_ns = max(self._arrival_ns, world.loop.now_ns + world.latency_ns())
            world.after(self.process, self._arrival_ns - world.loop.now_ns, self._arrive)

    def _arrive(self) -> None:
        # Whichever of the waiting arrivals runs first, it brings what was sent first.
        if not self._arriving or self._lost:
            return
        data = self._arriving.popleft()
        if self._world.plan.setup.crowd:
            while data and self._arriving and self._arriving[0]:
                data += self._arriving.popleft()
        if data:
            self._protocol.data_received(data)
        else:
            self._end(tell=True)

    def _end(self, *, tell: bool) -> None:
        if self._lost:
            return
        self._lost = True
        self._connections.discard(self)
        self.peer.send_here(b"")
        if tell:
            self._world.after(self.process, 0, self._protocol.connection_lost, None)

    def cut(self) -> None:
        """The connection breaks; what is on its way is gone."""
        ends = (self, self.peer)
        for end in ends:
            end._arriving.clear()  # noqa: SLF001 - of this class
        for end in ends:
            end._end(tell=True)  # noqa: SLF001

    def process_died(self) -> None:
        """The kernel closes this end."""
        self._end(tell=False)


class Connections:
    """Every open end, in the order in which they were made."""

    def __init__(self, world: Hardware) -> None:
        self.world = world
        self._ends: dict[SimTransport, None] = {}

    def connect(
        self,
        client: tuple[Process, asyncio.Protocol],
        server: tuple[Process, asyncio.Protocol],
    ) -> None:
        """Joins two protocols; each hears of it in its own process."""
        near, far = SimTransport(self, *client), SimTransport(self, *server)
        near.peer, far.peer = far, near
        self._ends |= {near: None, far: None}
        far.made()
        near.made()

    def discard(self, end: SimTransport) -> None:
        self._ends.pop(end, None)

    def of(self, process: Process) -> list[SimTransport]:
        return [end for end in self._ends if end.process is process]
