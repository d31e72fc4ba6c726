"""Leases: which remote workers there are, what each holds, and what becomes of it in silence.

One attempt, from this side:

1. A worker pulls, and gets the attempt once its DISPATCH is durable (`pulls`).
2. Every request of the worker renews its lease.  A heartbeat names what it runs; what it has long
   held and does not name never arrived, or was forgotten, and its own lease ends.
3. Its outcome comes with the token (`reports`), whoever sends it.
4. Or its time limit passes: TIMEOUT, and the worker is told to stop until it has.
5. Or nothing is heard of the worker for its lease: TIMEOUT with cause `lease_expired`, or DEAD, or
   CANCEL where that was asked for.  From then on its token is refused (P3), so that another worker
   may run the job while this one, frozen or cut off, still does.

After a restart what is in flight at remote workers belongs to nobody (`_former`), for one lease: an
outcome with such a token is taken, and a heartbeat that names it adopts it.

What may not live here: anything that safety rests on, sockets, and the words of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from beaver.dispatch.outcomes import attempt_of
from beaver.dispatch.pulls import Pulls
from beaver.dispatch.remote_workers import (
    TAKEN_BACK_MAX,
    WORKERS_MAX,
    WORKERS_OF_TOKEN_MAX,
    Given,
    Lease,
    Progress,
    Pull,
    RemoteWorker,
)
from beaver.dispatch.submitting import Submitter
from beaver.engine.engine import Engine
from beaver.errors import NotFound, TooManyWorkers
from beaver.ports import Clock, Entropy
from beaver.structs.messages import Attempt
from beaver.structs.views import WorkerView
from beaver.text.durations import format_duration
from beaver.text.foreign import counted
from beaver_model.bounds import REMOTE_WORKERS_FROM
from beaver_model.commands import AnyCommand, Expire, Release
from beaver_model.events import Cause

log = logging.getLogger("beaver")

LEASE_MS: Final = 15_000
HEARTBEAT_MS: Final = 5_000


class Heard(NamedTuple):
    """What a heartbeat is answered with."""

    cancel: list[int]
    """Tokens of attempts that are to stop."""
    lost: list[int]
    """Tokens that the worker named and does not hold: their outcome will be refused."""
    drain: bool
    """It is to end what it runs, and to leave."""


class Leases:
    """The remote workers.  Every method belongs to the loop's thread."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        entropy: Entropy,
        submitter: Submitter,
        *,
        store: str,
        on_tasks: Callable[[frozenset[str]], None],
        on_ended: Callable[[Attempt], None],
    ) -> None:
        """Takes over what is in flight at remote workers.

        Args:
            engine: Owner of the state, after its BOOT.
            clock: Its monotonic time is what leases are measured by.
            entropy: For jitter.
            submitter: Submits what becomes of attempts.
            store: Id of the store, part of every idempotency key.
            on_tasks: Told all tasks of remote workers, when they change.
            on_ended: Called for an attempt that ends otherwise than by a plain success.
        """
        self._engine, self._clock, self._entropy = engine, clock, entropy
        self._submitter, self._on_tasks, self._on_ended = submitter, on_tasks, on_ended
        self._loop = asyncio.get_running_loop()
        self.pulls = Pulls(engine, clock, store, self._went_out)
        self.lease_ms, self.heartbeat_ms = LEASE_MS, HEARTBEAT_MS
        self.workers: dict[int, RemoteWorker] = {}
        """By number."""
        self.expired = 0
        """Attempts whose lease has ended."""
        self._tasks: Counter[str] = Counter()
        self._numbers = engine.state.epoch * REMOTE_WORKERS_FROM
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        now_ns = clock.monotonic_ns()
        self._former = RemoteWorker(0, "a former one", frozenset(), None, 0, "", now_ns)
        """Holds what workers got from a former server."""
        for token, row in engine.state.in_flight.items():
            if row.is_remote:
                slim = msgspec.structs.replace(attempt_of(row, store), payload=b"")
                self._former.held[token] = Lease(slim, now_ns, now_ns)
        if self._former.held:
            self._arm(now_ns + self._lease_ns)

    @property
    def _lease_ns(self) -> int:
        return self.lease_ms * 1_000_000

    def adjust(self, lease_ms: int, heartbeat_ms: int) -> None:
        """Takes other times, from now on."""
        self.lease_ms, self.heartbeat_ms = lease_ms, heartbeat_ms
        self._rearm()

    def holder(self, token: int) -> RemoteWorker | None:
        """Returns who holds an attempt; one for nobody's, from before a restart."""
        if token in self._former.held:
            return self._former
        row = self._engine.state.in_flight.get(token)
        worker = self.workers.get(row.worker) if row is not None else None
        if worker is not None and token in worker.held:
            return worker
        # An adopted one stands in the log with the number that its worker had before.
        return next((w for w in self.workers.values() if token in w.held), None)

    @property
    def held(self) -> int:
        """Attempts that remote workers hold."""
        former = len(self._former.held)
        return former + sum(len(worker.held) for worker in self.workers.values())

    # -- what workers ask ----------------------------------------------------------------------

    def register(
        self,
        name: str,
        tasks: frozenset[str],
        queues: frozenset[str] | None,
        capacity: int,
        owner: str,
    ) -> RemoteWorker:
        """Takes in a worker.

        Raises:
            TooManyWorkers: There are as many as there may be.
        """
        workers = self.workers
        of_token = sum(worker.owner == owner for worker in workers.values())
        if len(workers) >= WORKERS_MAX or of_token >= WORKERS_OF_TOKEN_MAX:
            raise TooManyWorkers(
                f"{len(workers)} remote workers are registered, {of_token} of them with this "
                f"token; at most {WORKERS_MAX} may be, and {WORKERS_OF_TOKEN_MAX} of one token\n"
                "Let some leave (DELETE /v1/workers/ID); one that is silent goes when its lease "
                "ends."
            )
        self._last = self._last % (REMOTE_WORKERS_FROM - 1) + 1
        while self._numbers + self._last in workers:
            self._last = self._last % (REMOTE_WORKERS_FROM - 1) + 1
        number, now_ns = self._numbers + self._last, self._clock.monotonic_ns()
        worker = RemoteWorker(number, name, tasks, queues, capacity, owner, now_ns)
        workers[number] = worker
        self._know(tasks, 1)
        self._arm(now_ns + self._lease_ns)
        log.info("remote worker %d (%s) has come", number, name)
        return worker

    def worker(self, number: int) -> RemoteWorker:
        """Returns a worker, and notes that it was heard of.

        Raises:
            NotFound: It is not known, or not any more.
        """
        worker = self.workers.get(number)
        if worker is None:
            raise NotFound(f"no remote worker {number}: register (again) with POST /v1/workers")
        worker.heard_ns = self._clock.monotonic_ns()
        return worker

    def heartbeat(self, number: int, running: Sequence[int] | None) -> Heard:
        """Renews the lease of a worker.

        Args:
            number: Of the worker.
            running: Tokens of all that it runs; `None` where it does not say.

        Raises:
            NotFound: It is not known (any more).
        """
        worker = self.worker(number)
        now_ns, lost = worker.heard_ns, []
        if running is None:
            named: set[int] = set(worker.held)
        else:
            named = set(running)
            for token in named:
                if token in worker.held or token in worker.taken_back:
                    continue
                if token not in self._former.held:
                    lost.append(token)
                elif worker.capacity > len(worker.held):
                    worker.held[token] = self._former.held.pop(token)
            worker.taken_back = {token: None for token in worker.taken_back if token in named}
        for token, lease in list(worker.held.items()):
            if token in named:
                lease.named_ns = now_ns
            elif lease.since_ns and now_ns - lease.named_ns > self._lease_ns:
                self._expire(worker, token, "its worker does not name it in its heartbeats")
        return Heard(self._to_cancel(worker), sorted(lost), worker.draining)

    def _to_cancel(self, worker: RemoteWorker) -> list[int]:
        in_flight = self._engine.state.in_flight
        asked = [t for t in worker.held if (row := in_flight.get(t)) and row.cancel_requested]
        return [*asked, *worker.taken_back]

    def pull(self, number: int, count: int, given: Given, *, waits: bool) -> Pull:
        """Asks for work; see `Pulls.add`.

        Raises:
            NotFound: The worker is not known (any more).
        """
        return self.pulls.add(self.worker(number), count, given, waits=waits)

    def drop(self, pull: Pull) -> None:
        """Nobody waits for a pull any more: what it got never left, and is given back."""
        self._submitter.submit(*self.pulls.drop(pull))
        self._engine.touch()

    def drain(self, number: int) -> RemoteWorker:
        """Gives a worker nothing more, and has it told to leave.

        Raises:
            NotFound: It is not known.
        """
        worker = self.workers.get(number)
        if worker is None:
            raise NotFound(f"no remote worker {number}")
        worker.draining = True
        self.pulls.end(worker)
        return worker

    def remove(self, number: int) -> None:
        """A worker leaves: what it holds is given back, and no attempt is spent.

        Raises:
            NotFound: It is not known (any more).
        """
        worker = self.worker(number)
        for token, lease in worker.held.items():
            self._on_ended(lease.attempt)
            self._submitter.submit(Release(lease.attempt.job, token, Cause.DRAIN))
        self._forget(worker)
        log.info("remote worker %d (%s) has left", number, worker.name)

    def ended(self, worker: RemoteWorker, token: int) -> Attempt | None:
        """An outcome of an attempt was taken; returns the attempt."""
        worker.heard_ns = self._clock.monotonic_ns()
        lease = worker.held.pop(token, None)
        return None if lease is None else lease.attempt

    def refused(self, token: int) -> None:
        """An outcome was refused: its worker does not run the attempt any more."""
        for worker in self.workers.values():
            worker.taken_back.pop(token, None)

    def lease(self, token: int) -> Lease | None:
        """Returns what is known of an attempt at a remote worker."""
        worker = self.holder(token)
        return None if worker is None else worker.held.get(token)

    def progress(self, token: int, progress: Progress) -> Lease | None:
        """Notes how far an attempt is; `None` where no remote worker holds it."""
        worker = self.holder(token)
        if worker is None:
            return None
        lease, now_ns = worker.held[token], self._clock.monotonic_ns()
        lease.progress, lease.named_ns, worker.heard_ns = progress, now_ns, now_ns
        return lease

    # -- what time does ------------------------------------------------------------------------

    def _went_out(self, attempts: Sequence[Attempt]) -> None:
        """Attempts have gone out: a limit of theirs may be nearer than anything else."""
        limit_ms = min(attempt.timeout_ms for attempt in attempts)
        self._arm(self._clock.monotonic_ns() + limit_ms * 1_000_000)

    def _arm(self, at_ns: int) -> None:
        if self._timer is not None:
            if self._timer_ns <= at_ns:
                return
            self._timer.cancel()
        self._timer_ns = at_ns
        delay_s = max(0, at_ns - self._clock.monotonic_ns()) / 1e9
        self._timer = self._loop.call_later(delay_s, self.look)

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_ns = self._clock.monotonic_ns()
        ends = [self._ends_ns(worker, now_ns) for worker in (self._former, *self.workers.values())]
        known = [end_ns for end_ns in ends if end_ns]
        if known:
            self._arm(min(known))

    def _ends_ns(self, worker: RemoteWorker, now_ns: int) -> int:
        """Returns when a worker has to be looked at next; 0 for never."""
        limits = [
            lease.since_ns + lease.attempt.timeout_ms * 1_000_000
            for lease in worker.held.values()
            if lease.since_ns
        ]
        if worker is not self._former or worker.held:
            limits.append(self._heard_ns(worker, now_ns) + self._lease_ns)
        return min(limits, default=0)

    def _heard_ns(self, worker: RemoteWorker, now_ns: int) -> int:
        """A worker whose pull waits is heard of as long as it does."""
        return now_ns if worker.pulls else worker.heard_ns

    def look(self) -> None:
        """Ends what is over by now, and comes again when the next thing is."""
        self._timer = None
        now_ns = self._clock.monotonic_ns()
        silent = format_duration(self.lease_ms)
        for worker in (self._former, *self.workers.values()):
            for token, lease in list(worker.held.items()):
                limit_ns = lease.attempt.timeout_ms * 1_000_000
                if lease.since_ns and now_ns - lease.since_ns >= limit_ns:
                    self._take_back(worker, token)
            if self._heard_ns(worker, now_ns) + self._lease_ns > now_ns:
                continue
            for token in list(worker.held):
                self._expire(worker, token, f"its worker was not heard of for {silent}")
            if worker is not self._former:
                self._forget(worker)
                log.warning(
                    "remote worker %d (%s) was not heard of for %s, and is no longer known",
                    worker.number, worker.name, silent,
                )  # fmt: skip
        self._rearm()

    def _take_back(self, worker: RemoteWorker, token: int) -> None:
        """An attempt is over its time limit."""
        attempt = worker.held.pop(token).attempt
        if worker is not self._former:
            worker.taken_back[token] = None
            if len(worker.taken_back) > TAKEN_BACK_MAX:
                del worker.taken_back[next(iter(worker.taken_back))]
        limit = format_duration(attempt.timeout_ms)
        self._end(attempt, Cause.TIME_LIMIT, f"ran longer than {limit}")

    def _expire(self, worker: RemoteWorker, token: int, why: str) -> None:
        self.expired += 1
        self._end(worker.held.pop(token).attempt, Cause.LEASE_EXPIRED, why)

    def _end(self, attempt: Attempt, cause: str, why: str) -> None:
        jitter = self._entropy.random()
        self._on_ended(attempt)
        command: AnyCommand = Expire(attempt.job, attempt.token, cause, jitter, why)
        self._submitter.submit(command)
        self._engine.touch()

    # -- who is there --------------------------------------------------------------------------

    def _forget(self, worker: RemoteWorker) -> None:
        del self.workers[worker.number]
        self.pulls.end(worker)
        worker.held.clear()
        assert worker.offer.tasks is not None, "a remote worker says what it can run"
        self._know(worker.offer.tasks, -1)
        self._engine.touch()

    def _know(self, tasks: frozenset[str], sign: int) -> None:
        before = len(self._tasks)
        for task in tasks:
            self._tasks[task] += sign
            if not self._tasks[task]:
                del self._tasks[task]
        if len(self._tasks) != before:
            self._on_tasks(frozenset(self._tasks))

    def views(self) -> list[WorkerView]:
        """Returns each worker as `status` gives it."""
        now_ns = self._clock.monotonic_ns()
        return [self._view(worker, now_ns) for worker in self.workers.values()]

    def _view(self, worker: RemoteWorker, now_ns: int) -> WorkerView:
        lease = next(iter(worker.held.values()), None)
        offer, left_ns = worker.offer, self._heard_ns(worker, now_ns) + self._lease_ns - now_ns
        return WorkerView(
            id=worker.number,
            pid=0,
            job=lease.attempt.job if lease is not None else None,
            since_ms=(now_ns - (lease.since_ns or now_ns)) // 1_000_000 if lease else 0,
            name=worker.name,
            lease_ms=max(0, left_ns) // 1_000_000,
            capacity=worker.capacity,
            jobs=len(worker.held),
            tasks=tuple(sorted(offer.tasks or ())),
            queues=tuple(sorted(offer.queues)) if offer.queues is not None else None,
            draining=worker.draining,
        )

    def tell_of_left(self) -> None:
        """Says, at the end, what goes on without the server."""
        if self.held:
            log.info(
                "%s of remote workers go on; the next server takes what they report, within "
                "a lease of its start",
                counted(self.held, "attempt"),
            )
