"""Carries out a plan: its acts at their times, then a machine without faults, then rest.

What may not live here: what an act does (`sim.faults`, `sim.clients`).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from beaver_chaos.sim.faults import FAULTS, strike
from beaver_chaos.sim.hardware import MS
from beaver_chaos.sim.plan import Act, JobPlan
from beaver_chaos.sim.world import World

_SETTLE_MS: Final = 600_000
"""How long after the last fault everything must have settled."""
_POLL_S: Final = 0.05


class Course:
    """One plan on one machine."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._acts_to_come = len(world.plan.acts)

    async def main(self) -> None:
        """Carries out the plan, heals everything, and waits for rest."""
        world = self._world
        world.start_server()
        last_ms = 0
        for act in world.plan.acts:
            world.after(world.loop.machine, act.at_ms * MS, self._act, act)
            last_ms = max(last_ms, act.at_ms)
        await asyncio.sleep((last_ms + 1) / 1000)
        while self._acts_to_come:  # noqa: ASYNC110 - as everything else here
            # Timers that are overdue after a slow sync run in any order, this task included.
            await asyncio.sleep(_POLL_S)
        self._heal()
        deadline_ns = world.loop.now_ns + _SETTLE_MS * MS
        while not self._at_rest():
            if world.loop.now_ns > deadline_ns:
                world.watch.wrong(f"no rest is reached; not ended: {world.watch.unfinished()}")
                return
            await asyncio.sleep(_POLL_S)
        world.over = True
        life = world.life
        assert life is not None, "at rest there is a server"
        life.stop()
        while world.life is not None:  # noqa: ASYNC110 - as everything else here
            await asyncio.sleep(_POLL_S)
        world.watch.finish()

    def _heal(self) -> None:
        """Ends all faults: from here on everything has to recover by itself."""
        world = self._world
        world.note("no more faults")
        world.healed = True
        world.slowness = 1
        world.empty_disk()
        world.next_start = None
        world.hanging_starts.clear()
        if world.life is not None:
            world.life.disk.forget_plans()
            world.loop.continue_process(world.life.process)
        for helper in world.helpers:
            helper.disk.forget_plans()
        for zygote in world.zygotes:
            world.loop.continue_process(zygote.process)
        for worker in world.workers:
            if not worker.stuck:
                world.loop.continue_process(worker.process)

    def _at_rest(self) -> bool:
        world = self._world
        life = world.listening
        if life is None or not life.runs_jobs or any(client.busy for client in world.clients):
            return False
        book = world.watch.book
        for name in sorted(book.paused):
            self._begin(0, "resume", (name,))
            return False
        workers = life.parts.controller.workers.values()
        if life.reloading or not all(worker.ready and worker.serving for worker in workers):
            return False  # P5: no slot stays without a worker, and no former worker stays.
        return not any(page.state in ("PENDING", "IN_FLIGHT") for page in book.pages.values())

    def _begin(self, client: int, kind: str, args: tuple[Any, ...]) -> None:
        place = self._world.clients[client]
        place.busy += 1
        self._world.after(place.process, 0, place.begin, kind, args)

    def _act(self, act: Act) -> None:
        world = self._world
        self._acts_to_come -= 1
        if act.kind in FAULTS:
            strike(world, act.kind, act.args)
            return
        client, *args = act.args
        jobs = (job.id for job in args[0] if isinstance(job, JobPlan))
        words = jobs if act.kind == "enqueue" else args[:1]
        world.note("client", client, "asks to", act.kind, *words)
        self._begin(client, act.kind, tuple(args))
