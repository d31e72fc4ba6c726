"""The real pool of a server on a simulated machine, and who watches what it is asked.

Everything of `ProcessPool` runs: its bookkeeping, its mailboxes and their streams, its zygote's
messages, and what follows when a worker or zygote is lost.  What it starts is played
(`sim.zygote`, `sim.worker`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from beaver.dispatch.slots_view import WorkerState
from beaver.structs.messages import Attempt
from beaver.system.kinship import UNMARKED
from beaver.workers.mailbox import Mailbox
from beaver.workers.pool import FAILURES_MAX, ProcessPool
from beaver.workers.pool_options import PoolOptions
from beaver.workers.zygote_process import ZygoteProcess
from beaver_chaos.sim.loop import Process
from beaver_chaos.sim.machine import Machine
from beaver_chaos.sim.sometimes import KILLS
from beaver_chaos.sim.worker import SimWorker
from beaver_chaos.sim.zygote import SimHost


class SimPool(ProcessPool):
    """A server's pool."""

    def __init__(
        self, world: Machine, process: Process, how: str = "ok", mark: str = UNMARKED
    ) -> None:
        host = SimHost(world, process)
        host.next_import = how
        config = world.config
        options = PoolOptions(
            workers=config.workers,
            mark=mark,
            app="shop:app",
            executor=config.executor,
            concurrency=config.concurrency,
            start_limit_ms=config.start_timeout_ms,
        )
        super().__init__(options, host)
        self._world, self._process = world, process

    def attach(self, slots_path: str, last_seq: int) -> None:
        super().attach(self._world.slots.path, last_seq)

    def _own(self, number: int) -> SimWorker | None:
        """Returns the worker of a number, once it is started and while it lives."""
        for worker in self._world.workers:
            mailbox = self._by_number.get(number)
            if worker.number == number and mailbox is not None and worker.birth == mailbox.birth:
                found: SimWorker = worker
                if found.zygote.server is self._process:
                    return found
        return None

    def _wake(self, number: int, wake: Callable[[SimWorker], None]) -> None:
        """Lets a worker find what was sent to it, after a while."""
        worker = self._own(number)
        if worker is not None:
            self._world.after(worker.process, self._world.latency_ns(), wake, worker)

    # -- ports.Pool ------------------------------------------------------------------------------

    def dispatch(self, worker: int, attempts: Sequence[Attempt]) -> None:
        self._world.watch.sent(attempts)
        if self._seen_by_controller(worker).leaving:
            self._world.watch.wrong(f"worker {worker} is of a former crew, and is given jobs")
        super().dispatch(worker, attempts)
        self._wake(worker, SimWorker.wake)
        life = self._world.life
        if life is not None:
            life.dispatched()

    def recall(self, worker: int) -> list[int]:
        process = self._own(worker)
        takes = process is not None and process.takes
        tokens = super().recall(worker)
        if tokens:
            self._world.reach("a prefetch is taken back from a living worker")
            if takes:
                self._world.reach("a prefetch is taken back behind a permit that was read")
        return tokens

    def retire(self, worker: int) -> None:
        super().retire(worker)
        self._wake(worker, SimWorker.retire)

    def kill(self, worker: int) -> None:
        mailbox = self._by_number.get(worker)
        if mailbox is not None and not mailbox.killed and not mailbox.fault:
            cause = self._seen_by_controller(worker).killed
            if cause in KILLS:
                self._world.reach(f"a worker is killed: {cause.value}")
            elif cause is None:
                self._world.watch.wrong(f"worker {worker} is killed, and nothing says why")
        super().kill(worker)

    def _start_zygote(self) -> ZygoteProcess:
        if self._ready is not None and self._ready.done():
            self._world.reach("a zygote is lost, and another takes its place")
        return super()._start_zygote()

    def _finish(self, mailbox: Mailbox, detail: str) -> None:
        started, _ = self.started(mailbox.worker)
        if not self._stopping:
            held = self._seen_by_controller(mailbox.worker).held
            if any(token > started for token in held):
                self._world.reach("a dead worker's prefetch is given back")
        super()._finish(mailbox, detail)

    def _seen_by_controller(self, number: int) -> WorkerState:
        """Returns the controller's view of a worker, to read only."""
        life = self._world.life
        assert life is not None, "asked only while its server runs"
        return life.parts.controller.workers[number]

    # -- faults ------------------------------------------------------------------------------------

    def lose_server(self) -> None:
        """The server was killed: its workers follow, but not at once."""
        for zygote in self._zygotes():
            zygote.lose_server()
        for number in self._by_number:
            self._wake(number, SimWorker.wake)
        self.close()

    def lose_zygote(self) -> None:
        """The zygote is killed, unless it imports, or the pool would give up for it."""
        if len(self._failures) < FAILURES_MAX - 1:
            for zygote in self._zygotes():
                if zygote.has_imported:
                    zygote.exit(-9)

    def _zygotes(self) -> list[Any]:
        own = self._zygote
        return [] if own is None else [z for z in self._world.zygotes if z.pid == own.pid]

    def close(self) -> None:
        """All that the server's process held open is closed."""
        for mailbox in self._by_birth.values():
            mailbox.drop()
        if self._zygote is not None:
            self._zygote.hang_up()
        if self._slots is not None:
            self._slots.users.clear()
            self._slots.close()
