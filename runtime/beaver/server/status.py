"""What a running server says of itself: its status, whether it is ready, whether all is done."""

from __future__ import annotations

import msgspec

from beaver.inspect import queries
from beaver.journal.wal.layout import Layout
from beaver.server.assembly import Assembly
from beaver.server.loop_stalls import LoopStalls
from beaver.store.holding import Holding
from beaver.store.shipped import ships
from beaver.structs.views import StatusView, WorkerView
from beaver.system.version import own_version
from beaver_model import JobState, State


class SelfStatus:
    """Tells of the parts of one server."""

    def __init__(self, parts: Assembly, stalls: LoopStalls) -> None:
        self._parts, self._stalls = parts, stalls
        self.ending = False
        self._layout = Layout(parts.config.data)
        self._holding = Holding(parts.disk, self._layout)

    def of(self, state: State, *, with_queues: bool = True) -> StatusView:
        """Returns the status that goes with a state."""
        parts = self._parts
        report, engine, now_ns = parts.report, parts.engine, parts.clock.monotonic_ns()
        workers = []
        for worker in parts.controller.workers.values():
            pool = worker.crew.pool
            token, since_ns = pool.started(worker.number) if worker.ready else (0, 0)
            held = worker.held.get(token)
            workers.append(
                WorkerView(
                    id=worker.number,
                    pid=worker.pid if worker.ready else 0,
                    ready=worker.ready,
                    job=held.attempt.job if held is not None else None,
                    since_ms=(now_ns - since_ns) // 1_000_000 if held is not None else 0,
                    leaving=worker.leaving,
                )
            )
        leases = parts.controller.leases
        view = queries.status(
            state,
            engine.now_ms(),
            running=True,
            with_queues=with_queues,
            store=parts.journal.store.hex(),
            recovery_ms=report.total_ms,
            recovery=msgspec.to_builtins(report),
            workers=[*workers, *leases.views()],
            starts_overdue=parts.controller.starts_overdue,
            halted=parts.controller.halted,
            disk_full=engine.admission.disk_full,
            commit_path=parts.journal.commit_path,
            longest_stall_ms=self._stalls.longest_s * 1000,
            longest_stall_in=self._stalls.longest_in,
        )
        view.remote_attempts, view.remote_pulls = leases.held, len(leases.pulls.waiting)
        view.leases_expired = leases.expired
        config = parts.config
        view.storage = self._holding.look(config.retention_bytes, config.retention_ms)
        view.ships = ships(parts.disk, self._layout, engine.durable_seq, engine.now_ms())
        if with_queues:
            view.version = own_version()
        return view

    def not_ready(self) -> str | None:
        """Returns why it takes no jobs now; `None` where it does."""
        parts = self._parts
        if self.ending:
            return "shutting down"
        if parts.controller.halted:
            return f"nothing is dispatched until a restart; {parts.controller.halted}"
        full = parts.engine.admission.disk_full
        return "the disk is full: new jobs are refused" if full else None


def is_done(state: State) -> bool:
    """True where nothing is left that could run by itself."""
    return not state.in_flight and parked(state) == state.count(JobState.PENDING)


def parked(state: State) -> int:
    """Returns how many pending jobs cannot run by themselves: paused, or of an unknown task."""
    total = 0
    for queue in state.queues.values():
        if queue.row.paused:
            total += queue.counts[JobState.PENDING]
        else:
            total += sum(b.live for b in queue.buckets.values() if not b.known)
    return total
