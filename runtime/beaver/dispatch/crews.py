"""Reloads: a new crew of workers starts beside the serving one, and takes over or is dismissed."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from beaver.dispatch.slots_view import Arrival, Crew, KillCause, SlotsView, WorkerState
from beaver.dispatch.submitting import Submitter
from beaver.dispatch.supervision import Supervisor
from beaver.engine.engine import Engine
from beaver.errors import Conflict, StoreUnavailable
from beaver.text.foreign import counted
from beaver_model.events import Cause

log = logging.getLogger("beaver")

LEAVE_S: Final = 10.0
"""Seconds after which a worker that was told to end, and has nothing left to do, is killed."""

CREWS_MAX: Final = 4
"""Crews side by side: a new one, and former ones whose jobs still run."""


class Crews:
    """Starts new crews, and ends former ones."""

    def __init__(
        self, engine: Engine, slots: SlotsView, submitter: Submitter, supervisor: Supervisor
    ) -> None:
        self._engine, self._slots = engine, slots
        self._submitter, self._supervisor = submitter, supervisor
        self._loop = asyncio.get_running_loop()

    async def recruit(self, crew: Crew, count: int) -> None:
        """Starts the workers of a new crew beside those that are there, and waits for them.

        They are given nothing before `hand_over`.

        Raises:
            CrewFailed: One of them does not come up.  The others are to be killed, with their
                pool; the former ones serve as before.
            Conflict: Too many former crews still run jobs.
        """
        workers = self._slots.workers
        if self._slots.draining:
            raise StoreUnavailable("the server is shutting down; nothing was reloaded")
        former = {worker.crew for worker in workers.values()}
        if len(former) >= CREWS_MAX:
            left = [worker for worker in workers.values() if worker.leaving]
            raise Conflict(
                f"{len(former) - 1} former reloads still have {counted(len(left), 'worker')} "
                f"at work ({', '.join(str(worker.number) for worker in left[:10])})\n"
                "Try again when some have ended; `beaver status` shows them, `beaver cancel` "
                "stops a job."
            )
        crew.arrival = Arrival(self._loop, count)
        number = 0
        for _ in range(count):
            number += 1
            while number in workers:
                number += 1
            workers[number] = WorkerState(number, crew, serving=False)
        for worker in [worker for worker in workers.values() if worker.crew is crew]:
            self._supervisor.add(worker)
        await crew.arrival.done

    def hand_over(self, crew: Crew) -> None:
        """Gives all jobs to come to a crew that has arrived; the former one leaves.

        1. Dispatches being written go to their workers first, as in a drain.
        2. Attempts that have not started are taken back, and given back without a charge.
        3. Each former worker ends once it has ended what it runs, within that job's own limit.
        """
        self._engine.flush()
        former, self._slots.crew = self._slots.crew, crew
        crew.arrival = None
        for worker in list(self._slots.workers.values()):
            if worker.crew is crew:
                worker.serving = True
            elif worker.crew is former:
                self._dismiss(worker)
        self._engine.touch()

    def dismiss(self, crew: Crew) -> None:
        """Ends a new crew that has not taken over."""
        if crew.arrival is not None:
            crew.arrival.done.cancel()
        for worker in [w for w in self._slots.workers.values() if w.crew is crew]:
            self._dismiss(worker)

    def _dismiss(self, worker: WorkerState) -> None:
        worker.serving, worker.leaving = False, True
        if not worker.running:
            self._supervisor.remove(worker, "")
            return
        if worker.killed is None:
            self._submitter.recall(worker, Cause.DRAIN)
            worker.crew.pool.retire(worker.number)
        self._loop.call_later(LEAVE_S, self._overdue_leave, worker)

    def _overdue_leave(self, worker: WorkerState) -> None:
        """Kills a worker that has nothing left to do and does not end."""
        if self._slots.workers.get(worker.number) is not worker or worker.killed is not None:
            return
        if worker.held:
            self._loop.call_later(LEAVE_S, self._overdue_leave, worker)
        else:
            log.warning("worker %d does not end by itself and is killed", worker.number)
            self._supervisor.kill(worker, KillCause.LEAVE, set())
