"""Deciding: which events a command leads to, or why it is refused.

`decide` reads and never writes.  It checks safety only; which job runs next is a matter of
`policy`, and the explorer tries every job that is eligible here.  A command that changes
nothing (the same job again, a queue paused twice) leads to no events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from beaver_model.bounds import (
    BATCH_JOBS_MAX,
    CHILDREN_MAX,
    SNOOZES_MAX,
    WEIGHT_MAX,
)
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Cancel,
    Complete,
    CompleteBatch,
    ConfirmCancel,
    Discard,
    Dispatch,
    DispatchBatch,
    Enqueue,
    Expire,
    Fail,
    NewJob,
    Rejection,
    Release,
    Requeue,
    SetBounds,
    SetQueue,
)
from beaver_model.events import (
    Acked,
    AnyEvent,
    Booted,
    BoundsSet,
    Cancelled,
    CancelRequested,
    Cause,
    Died,
    Discarded,
    Dispatched,
    Enqueued,
    QueueForgotten,
    QueueSet,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.forgetting import beside_default, room_for
from beaver_model.lifecycle import CELLS
from beaver_model.rows import DEFAULT_QUEUE, QueueRow, Row, spec_of
from beaver_model.state import State
from beaver_model.states import JobState, Trigger

Decision = list[AnyEvent] | Rejection

_PENDING: Final = JobState.PENDING
_IN_FLIGHT: Final = JobState.IN_FLIGHT


def decide(state: State, command: AnyCommand, now_ms: int) -> Decision:
    """Returns the events that `command` leads to at `now_ms`, or a `Rejection`.

    The events are to be applied in order, at this time, before anything else is decided,
    and committed together.
    """
    if now_ms < state.time_ms:
        now_ms = state.time_ms
    return _DECIDE[type(command)](state, command, now_ms)


# -- enqueueing ---------------------------------------------------------------------------


def _enqueue(state: State, command: Enqueue, now_ms: int) -> Decision:
    if len(command.jobs) > BATCH_JOBS_MAX:
        return Rejection("batch_too_large", {"jobs": len(command.jobs), "max": BATCH_JOBS_MAX})
    return _admit(state, command.jobs, parent="")


def _admit(state: State, jobs: tuple[NewJob, ...] | list[NewJob], parent: str) -> Decision:
    if len(jobs) > 1 and len({job.id for job in jobs}) != len(jobs):
        repeated = _first_repeated([job.id for job in jobs])
        return Rejection("repeated", {"job": jobs[repeated].id, "index": repeated})
    events: list[AnyEvent] = []
    rows, tombstones, known = state.jobs, state.tombstones, state.queues
    queues: set[str] = set()
    raw = None
    for index, job in enumerate(jobs):
        if job.id in rows or job.id in tombstones:
            if _digest_of(state, job.id) != job.digest:
                facts = {"job": job.id, "index": index, "seq": state.seq_of(job.id)}
                return Rejection("conflict", facts)
            continue
        if job.spec is not raw:
            raw = job.spec
            queue = spec_of(raw).queue
            if queue not in known:
                queues.add(queue)
        events.append(
            Enqueued(job.id, job.spec, job.payload, job.digest, job.run_at_ms, parent, job.tags)
        )
    if queues and beside_default(state, queues) > state.queues_max:
        forgotten = room_for(state, queues, {spec_of(job.spec).queue for job in jobs})
        if forgotten is None:
            queue = min(queues - {DEFAULT_QUEUE})
            return Rejection("too_many_queues", {"queue": queue, "max": state.queues_max})
        return [*forgotten, *events]
    return events


def _digest_of(state: State, job: str) -> bytes | None:
    """Returns the digest of the request that an id came in with, if it is known."""
    row = state.jobs.get(job)
    if row is not None:
        return row.digest
    tombstone = state.tombstone(job)
    return None if tombstone is None else tombstone.digest


def _first_repeated(jobs: Sequence[str]) -> int:
    seen: set[str] = set()
    for index, job in enumerate(jobs):
        if job in seen:
            return index
        seen.add(job)
    raise AssertionError("called only where an id stands twice")


# -- dispatching ----------------------------------------------------------------------------


def _dispatch(state: State, command: Dispatch, now_ms: int) -> Decision:
    return _go_out(state, (command.job,), command.worker, now_ms, command.prefetched)


def _dispatch_batch(state: State, command: DispatchBatch, now_ms: int) -> Decision:
    ids = command.jobs
    decision = _go_out(state, ids, command.worker, now_ms, command.prefetched)
    if len(set(ids)) != len(ids) and not isinstance(decision, Rejection):
        repeated = _first_repeated(ids)
        return Rejection("repeated", {"job": ids[repeated], "index": repeated})
    return decision


def _go_out(
    state: State, ids: Sequence[str], worker: int, now_ms: int, prefetched: bool
) -> Decision:
    """Dispatches all given jobs, or refuses because of the first that may not run."""
    events: list[AnyEvent] = []
    jobs, suspects = state.jobs, state.suspects_in_flight
    for job in ids:
        row = jobs.get(job)
        if row is None or row.state != _PENDING:
            return _absent(state, job, row)
        reason = why_not_dispatch(state, row, now_ms, suspects, prefetched)
        if reason is not None:
            return Rejection(reason, {"job": job})
        if row.extra is not None and row.extra.suspect:
            suspects += 1
        events.append(Dispatched(job, worker))
    return events


def why_not_dispatch(
    state: State, row: Row, now_ms: int, suspects: int, prefetched: bool
) -> str | None:
    """Returns the code of what keeps a pending job from being dispatched, or `None`.

    Args:
        state: The state that holds the row.
        row: A pending job.
        now_ms: The time.
        suspects: How many are in flight, including those dispatched just before.
        prefetched: It would wait behind another job at a busy worker.
    """
    if row.ready_ms > now_ms:
        return "not_ready"
    spec = row.spec
    if state.queues[spec.queue].row.paused:
        return "paused"
    if row.attempt >= spec.max_attempts:
        return "no_attempt_left"
    if prefetched and row.attempt + 1 >= spec.max_attempts:
        return "last_attempt"
    if row.extra is not None and row.extra.suspect and (prefetched or suspects):
        return "suspect_waits"
    return None


# -- outcomes -------------------------------------------------------------------------------


def _fenced(state: State, job: str, token: int) -> Row | Rejection:
    """Returns the row that `token` holds, or why the outcome is refused."""
    row = state.in_flight.get(token)
    if row is not None and row.id == job:
        return row
    row = state.jobs.get(job)
    if row is None:
        return _absent(state, job, row)
    return Rejection(
        "stale_token", {"job": job, "token": token, "current": row.token, "state": row.state.name}
    )


def _complete(state: State, command: Complete, now_ms: int) -> Decision:
    row = _fenced(state, command.job, command.token)
    if isinstance(row, Rejection):
        return row
    children = command.children
    if not children:
        return [Acked(row.id, row.token, command.result)]
    if len(children) > CHILDREN_MAX:
        if command.may_send_again:
            return Rejection("bad_value", {"children": len(children), "max": CHILDREN_MAX})
        error = f"the job enqueued {len(children)} jobs; one ACK carries at most {CHILDREN_MAX}"
        return _end_for_good(row, Cause.CHILD_CONFLICT, error)
    admitted = _admit(state, children, parent=row.id)
    if isinstance(admitted, Rejection):
        if command.may_send_again:
            return admitted
        error = f"child {admitted.facts.get('job', '')} was refused: {admitted.code}"
        return _end_for_good(row, Cause.CHILD_CONFLICT, error)
    # Queues forgotten for the children come before the ACK, since the children follow it.
    forgotten = [event for event in admitted if type(event) is QueueForgotten]
    return [
        *forgotten,
        Acked(row.id, row.token, command.result),
        *admitted[len(forgotten) :],
    ]


def _complete_batch(state: State, command: CompleteBatch, now_ms: int) -> Decision:
    events: list[AnyEvent] = []
    answered: set[int] = set()
    for done in command.done:
        token = done.token
        row = _fenced(state, done.job, token)
        if type(row) is Row and token not in answered:
            answered.add(token)
            events.append(Acked(done.job, token, done.result))
    return events


def _fail(state: State, command: Fail, now_ms: int) -> Decision:
    row = _fenced(state, command.job, command.token)
    if isinstance(row, Rejection):
        return row
    if row.cancel_requested or not command.retry or row.on_last_attempt:
        cause = command.cause
        if not command.retry and cause == Cause.FAILED:
            # That it failed is no reason to end with attempts left.
            cause = Cause.NOT_RETRYABLE
        return _end_for_good(row, cause, command.error)
    delay_ms = command.delay_ms
    if delay_ms is None:
        delay_ms = row.spec.backoff_ms(row.attempt, command.jitter)
    return [Retried(row.id, row.token, now_ms + delay_ms, command.cause, command.error)]


def _expire(state: State, command: Expire, now_ms: int) -> Decision:
    row = _fenced(state, command.job, command.token)
    if isinstance(row, Rejection):
        return row
    if row.cancel_requested or row.on_last_attempt:
        return _end_for_good(row, command.cause, command.error)
    run_at_ms = now_ms
    if command.cause != Cause.LEASE_EXPIRED:
        # A worker that is gone says nothing of its job: another one may have it at once.
        run_at_ms += row.spec.backoff_ms(row.attempt, command.jitter)
    return [TimedOut(row.id, row.token, run_at_ms, command.cause, False, command.error)]


def _release(state: State, command: Release, now_ms: int) -> Decision:
    row = _fenced(state, command.job, command.token)
    if isinstance(row, Rejection):
        return row
    if row.cancel_requested:
        return [Cancelled(row.id, row.token, Cause.OPERATOR)]
    if command.cause == Cause.SNOOZE and row.extra and row.extra.snoozes >= SNOOZES_MAX:
        return _end_for_good(row, Cause.SNOOZE_LIMIT, f"the job has snoozed {SNOOZES_MAX} times")
    run_at_ms = now_ms + command.delay_ms if command.delay_ms else 0
    return [Released(row.id, row.token, run_at_ms, command.cause)]


def _end_for_good(row: Row, cause: str, error: str) -> list[AnyEvent]:
    """Ends an attempt that neither completed nor will be retried."""
    if row.cancel_requested:
        return [Cancelled(row.id, row.token, Cause.OPERATOR)]
    return [Died(row.id, row.token, cause, error)]


def _confirm_cancel(state: State, command: ConfirmCancel, now_ms: int) -> Decision:
    row = _fenced(state, command.job, command.token)
    if isinstance(row, Rejection):
        return row
    # An operator asked to cancel it first, so it is cancelled, however the attempt ended.
    cause = Cause.OPERATOR if row.cancel_requested else command.cause
    return [Cancelled(row.id, row.token, cause, command.error)]


# -- operators ------------------------------------------------------------------------------


def _absent(state: State, job: str, row: Row | None) -> Rejection:
    """Returns why a job is not in the state that a command needs."""
    if row is not None:
        return Rejection("wrong_state", {"job": job, "state": row.state.name})
    tombstone = state.tombstone(job)
    if tombstone is not None:
        return Rejection("finished", {"job": job, "outcome": tombstone.outcome.name})
    return Rejection("no_such_job", {"job": job})


def _cancel(state: State, command: Cancel, now_ms: int) -> Decision:
    row = state.jobs.get(command.job)
    if row is None:
        return _absent(state, command.job, row)
    if row.state == JobState.CANCELLED or row.cancel_requested:
        return []
    if row.state == _PENDING:
        return [Cancelled(row.id, 0, Cause.OPERATOR, by=command.by)]
    if row.state == _IN_FLIGHT:
        return [CancelRequested(row.id, command.by)]
    return _absent(state, command.job, row)


def _requeue(state: State, command: Requeue, now_ms: int) -> Decision:
    row = state.jobs.get(command.job)
    if row is None or CELLS[Trigger.REQUEUE][row.state] is None:
        return _absent(state, command.job, row)
    return [Requeued(row.id, command.payload, command.by)]


def _discard(state: State, command: Discard, now_ms: int) -> Decision:
    row = state.jobs.get(command.job)
    if row is None or CELLS[Trigger.DISCARD][row.state] is None:
        return _absent(state, command.job, row)
    return [Discarded(row.id, command.by)]


def _set_queue(state: State, command: SetQueue, now_ms: int) -> Decision:
    queue = state.queues.get(command.queue)
    row = queue.row if queue is not None else QueueRow(command.queue)
    paused = row.paused if command.paused is None else command.paused
    weight = row.weight if command.weight is None else command.weight
    bytes_max = row.bytes_max if command.bytes_max is None else command.bytes_max
    durable = row.durable_dispatch if command.durable_dispatch is None else command.durable_dispatch
    if not 1 <= weight <= WEIGHT_MAX:
        return Rejection("bad_value", {"weight": weight, "min": 1, "max": WEIGHT_MAX})
    if bytes_max < 0:
        return Rejection("bad_value", {"bytes_max": bytes_max, "min": 0})
    known = (row.paused, row.weight, row.bytes_max, row.durable_dispatch)
    if (paused, weight, bytes_max, durable) == known:
        return []
    forgotten: list[AnyEvent] | None = []
    if queue is None:
        forgotten = room_for(state, {command.queue}, set())
    if forgotten is None:
        return Rejection("too_many_queues", {"queue": command.queue, "max": state.queues_max})
    return [*forgotten, QueueSet(command.queue, paused, weight, bytes_max, durable, command.by)]


def _set_bounds(state: State, command: SetBounds, now_ms: int) -> Decision:
    if command.tombstones_max < 0 or command.tombstones_age_ms < 0:
        return Rejection(
            "bad_value",
            {
                "tombstones_max": command.tombstones_max,
                "tombstones_age_ms": command.tombstones_age_ms,
                "min": 0,
            },
        )
    wanted = (command.tombstones_max, command.tombstones_age_ms)
    if wanted == (state.tombstones_max, state.tombstones_age_ms):
        return []
    return [BoundsSet(*wanted)]


# -- a server starts ------------------------------------------------------------------------


def _boot(state: State, command: Boot, now_ms: int) -> Decision:
    """Returns BOOT and what becomes of every job that a dead server left in flight.

    Attempts that had started are charged, at once and without backoff; others are given back.
    After a power cut that is unknown, so all are charged and become suspects.  Attempts of remote
    workers go on: their workers may be alive, and if not, their leases end.
    """
    events: list[AnyEvent] = [Booted(state.epoch + 1, command.power_cut, command.writer)]
    for token, row in state.in_flight.items():
        if row.is_remote:
            continue
        if not command.power_cut and token not in command.started:
            events.append(
                Cancelled(row.id, token, Cause.OPERATOR)
                if row.cancel_requested
                else Released(row.id, token, 0, Cause.NEVER_STARTED)
            )
        elif row.cancel_requested or row.on_last_attempt:
            error = "the server was lost during the last attempt"
            events += _end_for_good(row, Cause.NODE_LOST, error)
        else:
            events.append(TimedOut(row.id, token, now_ms, Cause.NODE_LOST, command.power_cut))
    return events


_DECIDE: Final[dict[type, Callable[[State, Any, int], Decision]]] = {
    Enqueue: _enqueue,
    Dispatch: _dispatch,
    DispatchBatch: _dispatch_batch,
    Complete: _complete,
    CompleteBatch: _complete_batch,
    Fail: _fail,
    Expire: _expire,
    Release: _release,
    Cancel: _cancel,
    ConfirmCancel: _confirm_cancel,
    Requeue: _requeue,
    Discard: _discard,
    SetQueue: _set_queue,
    SetBounds: _set_bounds,
    Boot: _boot,
}
