"""What may follow in a log: facts that bind every event for ever, asked before it is applied.

A log is legal where every event may follow those before it:

- **structure**: seqs have no gap; texts, sizes and numbers are within their bounds (most are
  part of the type of a field in `events`, and `rows.Spec`);
- **time**: stamps never go back, and nothing starts before its time or is put off into the past;
- **causes**: a job changes only through the cell table; an outcome carries the token in flight;
  a cause stands only where it can be true; a cancel that was asked for ends the attempt unless
  an ACK does; children follow their parent's ACK at once, in its frame;
- **epochs**: each BOOT adds one, and the events right behind it in its frame end every attempt
  from before, charged or given back as it says, but for those of remote workers; of suspects
  only one is in flight;
- **bounds that are facts**: attempts, snoozes, children, queues, what is remembered.

Nothing that `decide` of any release has returned is illegal, and nothing that is legal harms a
server later.

What may not live here: policy, such as order and fairness, which binds only who decides; and
what no reader can know, such as whether a cause was true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import dropwhile, islice
from operator import attrgetter
from typing import Any, Final

import msgspec

from beaver_model.bounds import (
    CHILDREN_MAX,
    DIGEST_BYTES,
    ID_BYTES_MAX,
    NAME_BYTES_MAX,
    SNOOZES_MAX,
    TAGS_MAX,
    WEIGHT_MAX,
)
from beaver_model.events import (
    JOB_EVENTS,
    Acked,
    AnyEvent,
    AttemptEnded,
    Booted,
    BoundsSet,
    Cancelled,
    CancelRequested,
    Cause,
    Died,
    Dispatched,
    Enqueued,
    JobEvent,
    QueueForgotten,
    QueueSet,
    Released,
    Retried,
    TimedOut,
)
from beaver_model.forgetting import beside_default, why_kept
from beaver_model.lifecycle import CELLS
from beaver_model.rows import DEFAULT_QUEUE, SPECS, Row, is_text, spec_of
from beaver_model.state import State
from beaver_model.states import JobState, Trigger

# By name: looking up a member of an enumeration takes longer than the rest of a check.
_IN_FLIGHT: Final = JobState.IN_FLIGHT
_DISPATCH: Final = CELLS[Trigger.DISPATCH]

_ATTEMPT_SPENT: Final = frozenset(
    {Cause.FAILED, Cause.WORKER_LOST, Cause.TIME_LIMIT, Cause.LEASE_EXPIRED, Cause.NODE_LOST}
)
"""These make a job dead only where they end its last attempt."""

CAUSES: Final[dict[type, frozenset[str]]] = {
    Retried: frozenset({Cause.FAILED, Cause.WORKER_LOST}),
    TimedOut: frozenset({Cause.TIME_LIMIT, Cause.LEASE_EXPIRED, Cause.NODE_LOST}),
    Released: frozenset({Cause.DRAIN, Cause.SNOOZE, Cause.NEVER_STARTED, Cause.NEIGHBOUR}),
    Died: _ATTEMPT_SPENT | {Cause.NOT_RETRYABLE, Cause.CHILD_CONFLICT, Cause.SNOOZE_LIMIT},
    Cancelled: frozenset({Cause.OPERATOR, Cause.JOB}),
}
"""Which known causes each event may carry.  What is not known is a newer release's, and passes."""
_KNOWN: Final = frozenset[str]().union(*CAUSES.values())
_MISPLACED: Final = {kind: _KNOWN - causes for kind, causes in CAUSES.items()}


_is_remote: Final = attrgetter("is_remote")
_SHORT: Final = ID_BYTES_MAX // 4
"""Characters of an id that is not too long, whatever they are."""
_LOOK_MAX: Final = 1_000
"""Rows that each BOOT of a log may cost its reader."""


class IllegalEvent(Exception):
    """The log holds an event that cannot follow: corruption, with the seq that shows it."""

    def __init__(self, seq: int, event: AnyEvent, reason: str) -> None:
        super().__init__(f"seq {seq}: {event.NAME} is illegal here: {reason}")
        self.seq, self.event, self.reason = seq, event, reason


class JudgedFrame:
    """A frame whose events are judged in order: what it binds beside the state."""

    __slots__ = (
        "boot_before",
        "children",
        "events",
        "fates_end",
        "first_seq",
        "is_power_cut",
        "time_ms",
    )

    def __init__(self, time_ms: int, first_seq: int = 0, events: Sequence[AnyEvent] = ()) -> None:
        self.time_ms, self.first_seq, self.events = time_ms, first_seq, events
        self.fates_end = 0
        """Last seq of the BOOT here and of the fates right behind it; 0 where there is none."""
        self.boot_before = 0
        self.is_power_cut = False
        self.children = 0
        """Children of the last ACK so far."""

    def resume(self, state: State, known: int) -> None:
        """Goes on behind the first events, which the state holds already."""
        for index, event in enumerate(self.events[:known]):
            if type(event) is Booted:
                self.booting(state, event)
                self.fates_end = state.last_seq
                state.boot_seq = self.first_seq + index

    def why_out_of_time(self, state: State) -> str | None:
        """Stamps never go back, whatever the clock of the machine does."""
        if self.time_ms < state.time_ms:
            return f"the time goes back from {state.time_ms} to {self.time_ms}"
        return None

    def booting(self, state: State, event: Booted) -> None:
        self.fates_end, self.boot_before = state.last_seq + 1, state.boot_seq
        self.is_power_cut = event.power_cut

    def why_no_child(self, state: State, event: Enqueued) -> str | None:
        """A child follows its parent's ACK, or another child of it, at once."""
        index = state.last_seq - self.first_seq
        before = self.events[index] if 0 <= index < len(self.events) else None
        if type(before) is Acked and before.job == event.parent:
            self.children = 0
        elif not (type(before) is Enqueued and before.parent == event.parent):
            return f"job {event.job} is a child of {event.parent}, which has not completed here"
        self.children += 1
        if self.children > CHILDREN_MAX:
            return f"job {event.parent} has more than {CHILDREN_MAX} children"
        return None

    def why_no_fate(self, state: State, event: AttemptEnded) -> str | None:
        """An attempt from before a BOOT ends right behind it, as BOOT says; see `decide`."""
        kind = type(event)
        cause = getattr(event, "cause", "")
        if self.fates_end != state.last_seq or event.token < self.boot_before:
            return f"BOOT at seq {state.boot_seq} left job {event.job} in flight"
        if kind is TimedOut or kind is Died:
            is_wrong = cause != Cause.NODE_LOST
        elif kind is Released:
            is_wrong = self.is_power_cut or cause != Cause.NEVER_STARTED
        else:
            is_wrong = kind is not Cancelled
        if is_wrong:
            how = "a power cut" if self.is_power_cut else "a restart"
            cause = f", cause {cause}," if cause else ""
            return f"{event.NAME}{cause} is not how {how} ends the attempt of job {event.job}"
        self.fates_end += 1
        return None


def legal(state: State, event: AnyEvent, frame: JudgedFrame) -> str | None:
    """Returns why `event` cannot be the next one of `frame`, or `None` where it can."""
    return CHECK[type(event)](state, event, frame)


def refuse_left_in_flight(state: State) -> None:
    """Refuses attempts that have outlived a BOOT, once its frame is applied.

    Where the indexes are deferred, a look at many rows is put off: ask again when they stand.

    Raises:
        IllegalEvent: There is one.
    """
    rows: Iterable[Row] = ()
    if state.indexed:
        rows = islice(dropwhile(_is_remote, state.in_flight.values()), 1)
    elif len(state.jobs) <= _LOOK_MAX:
        rows = state.jobs.values()
    for row in rows:
        if 0 < row.token < state.boot_seq and not row.is_remote:
            reason = f"it leaves job {row.id} in flight"
            raise IllegalEvent(state.boot_seq, Booted(state.epoch, False), reason)


# -- jobs ----------------------------------------------------------------------------------------


def _check_enqueued(state: State, event: Enqueued, frame: JudgedFrame) -> str | None:
    job = event.job
    if job in state.jobs or job in state.tombstones:
        return f"job {job} exists"
    if not (job.isprintable() and 0 < len(job) <= _SHORT) and not is_text(job, ID_BYTES_MAX):
        return f"{job!r:.80} is no id"
    if len(event.digest) != DIGEST_BYTES:
        return f"job {job} has a digest of {len(event.digest)} bytes"
    spec = SPECS.get(event.spec)
    if spec is None:
        try:
            spec = spec_of(event.spec)
        except msgspec.MsgspecError as error:
            return f"job {job} has an unreadable spec: {error}"
    if event.tags and not _are_tags(event.tags):
        return f"job {job} has tags that are none"
    if event.parent and (reason := frame.why_no_child(state, event)) is not None:
        return reason
    return None if spec.queue in state.queues else _why_no_room(state, spec.queue)


def _are_tags(tags: Sequence[str]) -> bool:
    return len(tags) <= TAGS_MAX and all(is_text(tag, NAME_BYTES_MAX) for tag in tags)


def _why_no_room(state: State, queue: str) -> str | None:
    if queue == DEFAULT_QUEUE or beside_default(state) < state.queues_max:
        return None
    return f"there is no room for queue {queue} beside {state.queues_max} others"


def _check_dispatched(state: State, event: Dispatched, frame: JudgedFrame) -> str | None:
    row = state.jobs.get(event.job)
    if row is None or _DISPATCH[row.state] is None:
        return _out_of_place(event, row)
    if row.ready_ms > frame.time_ms:
        return f"job {event.job} starts at {frame.time_ms}, before its time {row.ready_ms}"
    spec = row.spec
    if row.attempt >= spec.max_attempts:
        return f"job {event.job} has no attempt left of {spec.max_attempts}"
    if state.queues[spec.queue].row.paused:
        return f"job {event.job} starts from the paused queue {spec.queue}"
    if row.extra is not None and row.extra.suspect and _has_suspect_in_flight(state):
        return f"job {event.job} is a suspect, and starts beside another"
    return None


def _has_suspect_in_flight(state: State) -> bool:
    if state.indexed:
        return state.suspects_in_flight > 0
    if state.suspect_out is None:
        return any(row.token and row.suspect for row in state.jobs.values())
    # Only one at a time: if another is out, it is the last one that went.
    job, token = state.suspect_out
    row = state.jobs.get(job)
    return row is not None and row.token == token


def _check_outcome(state: State, event: AttemptEnded, frame: JudgedFrame) -> str | None:
    row = state.jobs.get(event.job)
    if row is None or CELLS[event.TRIGGER][row.state] is None:  # type: ignore[index]
        return _out_of_place(event, row)
    if row.state != _IN_FLIGHT:
        return f"job {event.job} is not in flight with token {event.token}" if event.token else None
    if row.token != event.token:
        return f"job {event.job} is in flight with token {row.token}, not {event.token}"
    if event.token < state.boot_seq and not row.is_remote:
        return frame.why_no_fate(state, event)
    return None


def _check_ended_ill(
    state: State, event: Retried | TimedOut | Released | Died, frame: JudgedFrame
) -> str | None:
    """RETRY, TIMEOUT, RELEASE and DEAD: the cause fits, and nobody wants the job cancelled."""
    reason = _check_outcome(state, event, frame)
    if reason is not None:
        return reason
    if state.jobs[event.job].cancel_requested:
        return f"job {event.job} was to be cancelled, and is not by {event.NAME}"
    return _misplaced(event)


def _misplaced(event: Retried | TimedOut | Released | Died | Cancelled) -> str | None:
    if event.cause in _MISPLACED[type(event)]:
        return f"job {event.job}: {event.cause} is no cause of {event.NAME}"
    return None


def _check_retried(state: State, event: Retried | TimedOut, frame: JudgedFrame) -> str | None:
    reason = _check_ended_ill(state, event, frame)
    if reason is not None:
        return reason
    if state.jobs[event.job].on_last_attempt:
        return f"job {event.job} has no attempt left after {state.jobs[event.job].attempt}"
    if event.run_at_ms < frame.time_ms:
        return f"job {event.job} waits until {event.run_at_ms}, which has passed"
    return None


def _check_timed_out(state: State, event: TimedOut, frame: JudgedFrame) -> str | None:
    reason = _check_retried(state, event, frame)
    if reason is not None:
        return reason
    met = event.token < state.boot_seq and not state.jobs[event.job].is_remote
    if event.suspect != (met and frame.is_power_cut):
        return f"job {event.job} is a suspect exactly where a power cut met it in flight"
    return None


def _check_released(state: State, event: Released, frame: JudgedFrame) -> str | None:
    reason = _check_ended_ill(state, event, frame)
    if reason is None and event.cause == Cause.SNOOZE:
        extra = state.jobs[event.job].extra
        if extra is not None and extra.snoozes >= SNOOZES_MAX:
            return f"job {event.job} has snoozed {SNOOZES_MAX} times"
    return reason


def _check_died(state: State, event: Died, frame: JudgedFrame) -> str | None:
    reason = _check_ended_ill(state, event, frame)
    if reason is None and event.cause in _ATTEMPT_SPENT:
        row = state.jobs[event.job]
        if row.state == _IN_FLIGHT and not row.on_last_attempt:
            spent = f"attempt {row.attempt} of {row.spec.max_attempts}"
            return f"job {event.job} dies of {event.cause} in {spent}"
    return reason


def _check_cancelled(state: State, event: Cancelled, frame: JudgedFrame) -> str | None:
    return _check_outcome(state, event, frame) or _misplaced(event)


def _check_cancel_requested(state: State, event: CancelRequested, frame: JudgedFrame) -> str | None:
    reason = _check_cell(state, event, frame)
    if reason is not None:
        return reason
    row = state.jobs[event.job]
    if row.cancel_requested:
        return f"job {event.job} is asked to stop a second time"
    if row.token < state.boot_seq and not row.is_remote:
        return f"BOOT at seq {state.boot_seq} left job {event.job} in flight"
    return None


def _check_cell(state: State, event: JobEvent, frame: JudgedFrame) -> str | None:
    row = state.jobs.get(event.job)
    if row is None or CELLS[event.TRIGGER][row.state] is None:  # type: ignore[index]
        return _out_of_place(event, row)
    return None


def _out_of_place(event: JobEvent, row: Row | None) -> str:
    if row is None:
        return f"job {event.job} is not known"
    return f"job {event.job} is {row.state.name.lower()}"


# -- the store -----------------------------------------------------------------------------------


def _check_booted(state: State, event: Booted, frame: JudgedFrame) -> str | None:
    if event.epoch != state.epoch + 1:
        return f"epoch {event.epoch} does not follow {state.epoch}"
    frame.booting(state, event)
    return None


def _check_queue_set(state: State, event: QueueSet, frame: JudgedFrame) -> str | None:
    if not is_text(event.queue, NAME_BYTES_MAX):
        return f"{event.queue!r:.80} is no name of a queue"
    if not 1 <= event.weight <= WEIGHT_MAX or event.bytes_max < 0:
        return f"queue {event.queue} gets a weight or a bound out of range"
    return None if event.queue in state.queues else _why_no_room(state, event.queue)


def _check_queue_forgotten(state: State, event: QueueForgotten, frame: JudgedFrame) -> str | None:
    queue = state.queues.get(event.queue)
    if queue is None:
        return f"queue {event.queue} is not known"
    why = why_kept(queue)
    return None if why is None else f"queue {event.queue} cannot be forgotten: {why}"


def _check_bounds_set(state: State, event: BoundsSet, frame: JudgedFrame) -> str | None:
    if event.tombstones_max < 0 or event.tombstones_age_ms < 0:
        return "a bound of tombstones is negative"
    return None


CHECK: Final[dict[type, Callable[[State, Any, JudgedFrame], str | None]]] = {
    **{k: _check_outcome if issubclass(k, AttemptEnded) else _check_cell for k in JOB_EVENTS},
    Enqueued: _check_enqueued,
    Dispatched: _check_dispatched,
    Retried: _check_retried,
    TimedOut: _check_timed_out,
    Released: _check_released,
    Died: _check_died,
    CancelRequested: _check_cancel_requested,
    Cancelled: _check_cancelled,
    QueueSet: _check_queue_set,
    Booted: _check_booted,
    BoundsSet: _check_bounds_set,
    QueueForgotten: _check_queue_forgotten,
}
"""By event: why it cannot follow, or `None`."""
