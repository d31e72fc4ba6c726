"""One life of a simulated keeper: it holds the store between two servers, and runs nothing.

Its parts are those of the real one.  What a producer does to start it, and what a server does
to end it, is drawn: it comes instead of a server that is to start again, and ends after a while.
"""

from __future__ import annotations

import asyncio
from typing import Final

from beaver.keeper.parts import KeeperParts
from beaver_chaos.sim.hardware import MS
from beaver_chaos.sim.helper import SimHelper, SimPast
from beaver_chaos.sim.machine import Machine
from beaver_chaos.sim.plan import QUEUES_MAX
from beaver_chaos.sim.server import ServerLife

_LIFE_MS: Final = 400
"""Longest time that a keeper is there."""


class KeeperLife(ServerLife):
    """One keeper process, from its start to its end."""

    kind = "keeper"
    runs_jobs = False

    def __init__(self, world: Machine, number: int) -> None:
        super().__init__(world, number)
        self.pools.clear()

    async def _run(self) -> None:
        """As `keeper.process.Keeper.run`."""
        world = self.world
        owned = await self._own()
        parts = self.parts = KeeperParts(  # type: ignore[assignment] # what both have is used
            world.config,
            owned,
            clock=world.clock,
            disk=self.disk,
            on_failure=self._failed,
            make_helper=lambda _: SimHelper(world, self.process, owned.layout),
            make_past=lambda *_: SimPast(),
        )
        self._stop = asyncio.Event()
        parts.service.on_leave = self._stop.set
        world.watch.attach(self)
        self.listening = True
        parts.start()
        if world.plan.setup.passing:
            parts.engine.state.queues_max = QUEUES_MAX
        world.note("keeper", self.number, "is ready at seq", parts.engine.durable_seq)
        life_ns = world.chance.between(0, _LIFE_MS) * MS
        world.after(self.process, life_ns, self._stop.set)
        before_seq = parts.engine.durable_seq
        await self._stop.wait()
        self.ending = True
        await parts.halt(self._close_doors)
        await parts.finish()
        if parts.engine.durable_seq > before_seq:
            world.reach("a keeper takes in what producers send")
