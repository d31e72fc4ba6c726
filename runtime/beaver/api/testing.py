"""Testing applications: jobs in memory, run when the test says so, on a clock it moves.

Everything decided here is decided by the model that the server runs (`decide`, `apply`,
`select`), and each attempt goes through the steps that workers take, so retries, backoff,
directives, children, priorities and pauses behave as they do in production.  What differs:
nothing is written, a job runs in this process, on one slot, and its time limit is not
enforced.  Jitter is 0.5 in each draw, so a backoff takes exactly its middle value.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from beaver.client.calls import Call, Operations, Synchronous
from beaver.client.connection import Connection
from beaver.client.local_store import LocalStore
from beaver.config.layers import load_config
from beaver.dispatch.outcomes import attempt_of, command_of
from beaver.errors import BeaverError, Endless, InvalidInput, WaitTimeout
from beaver.inspect import finding, queries
from beaver.inspect.listing import attempt_of as attempt_shown
from beaver.inspect.listing import event_view
from beaver.request.operations import Listing
from beaver.request.rejections import error_of
from beaver.structs.messages import Attempt, Request
from beaver.structs.questions import Search, Told
from beaver.structs.views import EventView, JobView
from beaver.task.builtins import builtin_tasks
from beaver.task.context import JobContext
from beaver.task.directives import Directive
from beaver.task.programs import Programs
from beaver.task.registry import Registry
from beaver.text.durations import parse_duration_ms
from beaver.workers.attempts import Steps
from beaver.workers.one_by_one import run_attempt
from beaver_model import Offer, Rejection, State, apply, decide, select
from beaver_model.bounds import ADVANCE_MAX
from beaver_model.commands import (
    AnyCommand,
    Dispatch,
    NewJob,
)
from beaver_model.events import Acked, AnyEvent
from beaver_model.rows import Origin

T = TypeVar("T")

STARTS_AT: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""The initial time of a test's clock."""

ATTEMPTS_MAX: Final = 10_000
"""Attempts of one `drain`: more are a job that enqueues itself for ever."""

_STORE: Final = "testing"
_JITTER: Final = 0.5
_WORKER: Final = 1


class _Memory:
    """History and settings of a test's store: see `local_store.Surroundings`."""

    def __init__(self) -> None:
        self.resolver = load_config().resolver()
        self.events: dict[str, list[EventView]] = {}

    def tell(self, state: State, job: str) -> Told:
        """Returns the events of the newest job with this id."""
        events = self.events.get(job, [])
        begins = [n for n, event in enumerate(events) if event.event == "ENQUEUE"]
        return Told(events[begins[-1] :] if begins else [], state.last_seq, 1)

    def find(self, state: State, search: Search) -> list[JobView]:
        """Returns finished jobs in the order in which they ended."""
        ended = [job for job in self.events if job not in state.jobs]
        views = [queries.show_finished(state, job, *self.tell(state, job)[:2]) for job in ended]
        wanted = [
            view
            for view in views
            if view.state == search.word
            and (not search.queue or view.queue == search.queue)
            and (not search.task or view.task == search.task)
            and (not search.tag or search.tag in (view.tags or ()))
            and (view.end_seq or 0) > search.after_seq
            and search.since_ms <= (view.finished_ms or 0) < (search.until_ms or finding.SEQ_MAX)
        ]
        return sorted(wanted, key=lambda view: view.end_seq or 0)[: search.limit]

    def first_since(self, state: State, time_ms: int) -> int:
        """Returns the seq of the first job that came in at a time or later."""
        came = [e for events in self.events.values() for e in events if e.event == "ENQUEUE"]
        late = [event.seq for event in came if event.time_ms >= time_ms]
        return min(late, default=state.last_seq + 1)

    def no_server(self, job: str) -> WaitTimeout:
        """Returns the error that answers a wait for a job that has not ended."""
        return WaitTimeout(f"job {job} has not ended; drain() runs it")


class Testing(Operations, Synchronous):
    """The store of a test.  Get one from `app.testing()`; it takes every call of the app."""

    __test__ = False
    """Not a test class, whatever its name."""

    def __init__(
        self, connection: Connection, registry: Registry, *, raise_errors: bool = False
    ) -> None:
        self._connection, self._registry = connection, registry
        self._raise_errors = raise_errors
        self._state = State()
        self._now_ms = int(STARTS_AT.timestamp() * 1000)
        self._results: dict[str, bytes] = {}
        self._memory = _Memory()
        self._store = LocalStore(
            self._state,
            self._change,
            self._memory,
            lambda: self._now_ms,
            lambda state: queries.status(state, self._now_ms, running=False, store=_STORE),
            self._change_each,
        )
        self._before: Synchronous | None = None
        self.attempts: list[Attempt] = []
        """Every attempt that was run, in order."""

    def __enter__(self) -> Self:
        self._before, self._connection.instead = self._connection.instead, self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.instead = self._before

    # -- what tests use -------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The current time of the test's clock."""
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    def advance(self, duration: timedelta | str | float) -> None:
        """Moves the clock; jobs that become ready run at the next `drain`."""
        self._now_ms += parse_duration_ms(duration, "advance()")

    def drain(self, *, scheduled: bool = False) -> int:
        """Runs jobs until none is ready, also those that jobs enqueue.

        Args:
            scheduled: Move the clock to whatever is due next (retries, snoozes, jobs for
                later) and go on, until nothing is left that could run by itself.

        Returns:
            How many attempts were run.

        Raises:
            Exception: What a job raised, with `raise_errors`; its attempt
                counts as failed.
            Endless: There was no end to it.
        """
        count = 0
        while True:
            while self._run_next():
                count += 1
                if count > ATTEMPTS_MAX:
                    raise Endless(f"more than {ATTEMPTS_MAX} attempts in one drain()")
            due_ms = self._state.next_ready_ms() if scheduled else None
            if due_ms is None or self._only_parked():
                return count
            self._now_ms = max(self._now_ms, due_ms)

    def jobs(self, state: str = "", *, task: str = "", queue: str = "") -> list[JobView]:
        """Returns the jobs in the order in which they came in; the finished ones by `state`."""
        if queue and queue not in self._state.queues:
            return []
        return self._store.list_jobs(Listing(state, queue, task, 0, 0))

    def results(self, task: str = "") -> list[Any]:
        """Returns the results of the completed jobs, of one task or of all, in their order."""
        names = {a.job: a.task for a in self.attempts}
        return [
            msgspec.json.decode(raw)
            for job, raw in self._results.items()
            if not task or names.get(job) == task
        ]

    # -- running -----------------------------------------------------------------------------

    def _run_next(self) -> bool:
        state = self._state
        while state.advance(self._now_ms) == ADVANCE_MAX:
            pass
        steps = Steps(self._registry, builtin_tasks("process", Programs()))
        known = frozenset(task.name for task in self._registry) | {"echo"}
        state.set_known_tasks(known)
        row = select(state, Offer(), self._now_ms)
        if row is None:
            return False
        self._change(Dispatch(row.id, _WORKER))
        attempt = attempt_of(state.jobs[row.id], _STORE)
        self.attempts.append(attempt)
        raised: list[BaseException] = []
        context = JobContext(attempt, time.monotonic())
        outcome = _outside_loops(lambda: run_attempt(steps, context, raised.append))

        def to_child(request: Request) -> NewJob:
            return self._memory.resolver.job(request, self._now_ms, Origin.JOB)

        self._change(command_of(outcome, to_child, lambda: _JITTER))
        for error in raised:
            decides = isinstance(error, Directive | SystemExit)
            if not decides and (self._raise_errors or not isinstance(error, Exception)):
                raise error
        return True

    def _only_parked(self) -> bool:
        """True where the jobs that wait for their time are all in paused queues."""
        queues = self._state.queues
        return all(queues[row.spec.queue].row.paused for _, _, row in self._state.scheduled)

    def _change(self, command: AnyCommand) -> Sequence[AnyEvent]:
        state = self._state
        decision = decide(state, command, self._now_ms)
        if isinstance(decision, Rejection):
            raise error_of(decision)
        for event in decision:
            attempt, worker = attempt_shown(state, event)
            apply(state, event, self._now_ms)
            view = event_view(state.last_seq, self._now_ms, event, attempt=attempt, worker=worker)
            if view.job is not None:
                self._memory.events.setdefault(view.job, []).append(view)
            if isinstance(event, Acked):
                self._results[event.job] = event.result
        return decision

    def _change_each(self, commands: Sequence[AnyCommand]) -> int:
        done = 0
        for command in commands:
            with contextlib.suppress(BeaverError):
                self._change(command)
                done += 1
        return done

    # -- the calls -----------------------------------------------------------------------------

    def call(self, call: Call[T]) -> T:
        """Carries out one call in memory; raises the `BeaverError` that answers it."""
        if call.operation.of_server:
            raise InvalidInput(f"{call.operation.name}: a test has no server")
        return self._store.call(call)


def _outside_loops(run: Callable[[], T]) -> T:
    """Runs it here, or in a thread where an event loop runs here: jobs may need their own."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(run()))
    thread.start()
    thread.join()
    return results[0]
