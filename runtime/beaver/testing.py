"""Testing applications: jobs in memory, run when the test says so, on a clock it moves.

Everything decided here is decided by the model that the server runs (`decide`, `apply`,
`select`), and each attempt goes through the steps that workers take, so retries, backoff,
steering, children, priorities and pauses behave as they do in production.  What differs:
nothing is written, a job runs in this process, on one slot, and its time limit is not
enforced.  Jitter is 0.5 in each draw, so a backoff takes exactly its middle value.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import msgspec

from beaver import jsontext, queries
from beaver.admission import refusal
from beaver.builtins import builtin_tasks
from beaver.calls import Call, Operations, Synchronous
from beaver.config import load_config
from beaver.context import JobContext, enter_alone
from beaver.dispatch.outcomes import attempt_of, command_of
from beaver.durations import parse_duration_ms
from beaver.errors import Endless, WaitTimeout
from beaver.listing import attempt_of as attempt_shown
from beaver.listing import event_view
from beaver.messages import Attempt, Outcome, Request
from beaver.names import check_name
from beaver.refusals import error_of
from beaver.steering import Steering
from beaver.views import (
    Enqueued,
    EventView,
    ExplainView,
    JobView,
    QueueView,
    ResultView,
    StatusView,
)
from beaver.workers.attempts import Steps, close
from beaver_model import Offer, Rejection, State, apply, decide, select
from beaver_model.bounds import ADVANCE_MAX
from beaver_model.commands import (
    AnyCommand,
    Cancel,
    Discard,
    Dispatch,
    Enqueue,
    Job,
    Requeue,
    SetQueue,
)
from beaver_model.events import Acked, AnyEvent
from beaver_model.rows import Origin

if TYPE_CHECKING:
    from beaver.app import Beaver

T = TypeVar("T")

STARTS_AT: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""What the clock of a test shows first."""

ATTEMPTS_MAX: Final = 10_000
"""Attempts of one `drain`: more are a job that enqueues itself for ever."""

_STORE: Final = "testing"
_JITTER: Final = 0.5
_WORKER: Final = 1


class Testing(Operations, Synchronous):
    """The store of a test.  Get one from `app.testing()`; it takes every call of the app."""

    __test__ = False
    """Not a test class, whatever its name."""

    def __init__(self, app: Beaver, *, raise_errors: bool = False) -> None:
        self._app = app
        self._raise_errors = raise_errors
        self._state = State()
        self._now_ms = int(STARTS_AT.timestamp() * 1000)
        self._events: dict[str, list[EventView]] = {}
        self._results: dict[str, bytes] = {}
        self._resolver = load_config().resolver()
        self._before: Synchronous | None = None
        self.attempts: list[Attempt] = []
        """Every attempt that was run, in order."""

    def __enter__(self) -> Self:
        self._before, self._app.link.instead = self._app.link.instead, self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._app.link.instead = self._before

    # -- what tests use -------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """What the clock shows."""
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
            Exception: What a job raised, where `raise_errors` was asked for; its attempt
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
        return self._list(state, queue, task, 0, 0)

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
        steps = Steps(self._app.registry, builtin_tasks("process", allow_exec=False))
        known = frozenset(task.name for task in self._app.registry) | {"echo"}
        state.set_known_tasks(known)
        row = select(state, Offer(), self._now_ms)
        if row is None:
            return False
        self._change(Dispatch(row.id, _WORKER))
        attempt = attempt_of(state.jobs[row.id], _STORE)
        self.attempts.append(attempt)
        raised: list[BaseException] = []
        outcome = _outside_loops(lambda: _run_attempt(steps, attempt, raised))

        def to_child(request: Request) -> Job:
            return self._resolver.job(request, self._now_ms, Origin.JOB)

        self._change(command_of(outcome, to_child, lambda: _JITTER))
        if raised and (self._raise_errors or not isinstance(raised[0], Exception)):
            raise raised[0]
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
                self._events.setdefault(view.job, []).append(view)
            if isinstance(event, Acked):
                self._results[event.job] = event.result
        return decision

    # -- the calls -----------------------------------------------------------------------------

    def call(self, call: Call[T]) -> T:
        """Carries out one call in memory; raises the `BeaverError` that answers it."""
        return call.finish(_HANDLERS[call.op](self, *call.body))

    def do_enqueue(self, requests: Sequence[Request]) -> list[Enqueued]:
        state = self._state
        jobs = [self._resolver.job(request, self._now_ms) for request in requests]
        full = refusal(state, jobs)
        if full is not None:
            raise full
        last_seq = state.last_seq
        self._change(Enqueue(jobs))
        found = ((job.id, state.seq_of(job.id)) for job in jobs)
        return [Enqueued(i, seq, seq > last_seq) for i, seq in found if seq is not None]

    def do_status(self) -> StatusView:
        return queries.status(self._state, self._now_ms, running=False, store=_STORE)

    def do_list(
        self,
        word: str,
        queue: str,
        task: str,
        after_seq: int,
        limit: int,
        tag: str = "",
        since_ms: int = 0,
        until_ms: int = 0,
    ) -> list[JobView]:
        queries.check_listing(word, limit, since_ms, until_ms, after_seq)
        return self._list(word, queue, task, after_seq, limit, tag, since_ms, until_ms)

    def _list(
        self,
        word: str,
        queue: str,
        task: str,
        after_seq: int,
        limit: int,
        tag: str = "",
        since_ms: int = 0,
        until_ms: int = 0,
    ) -> list[JobView]:
        if word not in queries.FINISHED:
            found = queries.find_jobs(self._state, word, queue, task, after_seq, limit, tag)
            return queries.at_once(found)
        views = [self.do_show(job) for job in self._events if job not in self._state.jobs]
        wanted = [
            view
            for view in views
            if view.state == word
            and (not queue or view.queue == queue)
            and (not task or view.task == task)
            and (not tag or tag in (view.tags or ()))
            and (view.end_seq or 0) > after_seq
            and since_ms <= (view.finished_ms or 0) < (until_ms or queries.SEQ_MAX)
        ]
        return sorted(wanted, key=lambda view: view.end_seq or 0)[: limit or None]

    def do_show(self, job: str) -> JobView:
        events, seq = self._events_of(job), self._state.last_seq
        return queries.show_finished(self._state, job, events, seq)

    def _events_of(self, job: str) -> list[EventView]:
        """Returns the events of the newest job with this id."""
        events = self._events.get(job, [])
        begins = [n for n, event in enumerate(events) if event.event == "ENQUEUE"]
        return events[begins[-1] :] if begins else []

    def do_explain(self, job: str) -> ExplainView:
        events, seq = self._events_of(job), self._state.last_seq
        return queries.explain(self._state, job, events, as_of_seq=seq)

    def do_history(self, job: str) -> list[EventView]:
        return self.do_explain(job).events

    def do_wait(self, job: str, timeout_ms: int) -> ResultView:
        kept = None
        if job in self._results and job not in self._state.jobs:
            kept = ResultView(job, "completed", msgspec.Raw(self._results[job]))
        found = queries.result(self._state, job, kept)
        if found is None:
            raise WaitTimeout(f"job {job} has not ended; drain() runs it")
        return found

    def do_cancel(self, job: str) -> str:
        self._change(Cancel(job))
        return queries.changed_word(self._state, job)

    def do_requeue(self, job: str, payload: bytes | None) -> str:
        if payload is not None:
            payload = jsontext.check(payload, self._resolver.payload_bytes_max, "payload")
        self._change(Requeue(job, payload))
        return queries.changed_word(self._state, job)

    def do_discard(self, job: str) -> str:
        self._change(Discard(job))
        return queries.changed_word(self._state, job)

    def do_set_queue(
        self,
        queue: str,
        paused: bool | None,
        weight: int | None,
        bytes_max: int | None,
        durable_dispatch: bool | None,
    ) -> QueueView:
        check_name(queue, "queue")
        self._change(SetQueue(queue, paused, weight, bytes_max, durable_dispatch))
        return queries.queue_view(self._state.queue(queue), self._now_ms)


def _run_attempt(steps: Steps, attempt: Attempt, raised: list[BaseException]) -> Outcome:
    """Runs one attempt as the process executor does; notes what the user code raised."""
    context = JobContext(attempt, time.monotonic())
    enter_alone(context)
    try:
        try:
            call = steps.prepare(context)
            value = call.function(*call.args, **call.kwargs)
            if call.is_async:
                import asyncio

                value = asyncio.run(value)
            outcome = steps.settle(context, value)
        except BaseException as error:  # noqa: BLE001 - user code may raise anything
            if not isinstance(error, Steering | SystemExit):
                raised.append(error)
            outcome = steps.failed(context, error)
        return close(context, outcome)
    finally:
        enter_alone(None)


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


_HANDLERS: Final[dict[str, Callable[..., Any]]] = {
    "enqueue": Testing.do_enqueue,
    "status": Testing.do_status,
    "list": Testing.do_list,
    "show": Testing.do_show,
    "explain": Testing.do_explain,
    "history": Testing.do_history,
    "wait": Testing.do_wait,
    "cancel": Testing.do_cancel,
    "requeue": Testing.do_requeue,
    "discard": Testing.do_discard,
    "set_queue": Testing.do_set_queue,
}
