"""Bulk forms: what `applying` and `State` do for one event or row, done for many at once.

A commit is made of runs: a batch of ENQUEUE, the DISPATCH of all that a worker gets, the ACK
of all that it has ended.  One by one, half of what they cost is looking up the same queue,
bucket and lane again and adding one to the same counts.  Here that is done once a run.  It is
the same for the rows of a whole state, whose indexes recovery builds at the end.

Each function does exactly what its single form does row by row, or nothing.  The explorer
takes every step of every scope both ways, runs of one included; each docstring names the
property that holds the two forms equal over whatever has happened.

What may not live here: anything that has no single form.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from itertools import count, repeat
from operator import attrgetter
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from beaver_model.bounds import DIGEST_BYTES, ID_BYTES_MAX, TOMBSTONES_EVICTED_PER_EVENT
from beaver_model.events import Acked, Dispatched, Enqueued
from beaver_model.index import Kind, QueueIndex, kind_of
from beaver_model.lifecycle import CELLS
from beaver_model.rows import TOMBSTONE_BYTES, Row, Spec, pack_tombstone, size_of_all, spec_of
from beaver_model.state import LEDGER_MASK, State
from beaver_model.states import JobState, Trigger
from beaver_model.stride import STRIDE

RUN_MIN: Final = 3
"""Shorter runs are faster event by event."""
ROWS_MIN: Final = 1_000
"""Fewer rows are not worth sorting first; the explorer thaws millions of small states."""

_PENDING: Final = JobState.PENDING
_IN_FLIGHT: Final = JobState.IN_FLIGHT
_FORGOTTEN: Final = JobState.FORGOTTEN
_SUSPECT: Final = Kind.SUSPECT
_DISPATCHED: Final = CELLS[Trigger.DISPATCH][_PENDING]
_ACKED: Final = CELLS[Trigger.ACK][_IN_FLIGHT]
_job: Final = attrgetter("job")
_spec: Final = attrgetter("spec")
_digest: Final = attrgetter("digest")
_worker: Final = attrgetter("worker")
_seq: Final = attrgetter("seq")
_attempt: Final = attrgetter("attempt")
_token: Final = attrgetter("token")
_ready_ms: Final = attrgetter("ready_ms")


# -- runs of like events -------------------------------------------------------------------


def _enqueued(state: State, events: Sequence[Enqueued], *, are_legal: bool) -> bool:
    """Jobs that are ready at once, and have nothing that only few jobs have.

    Held equal to `applying`:
    `test_a_run_applied_at_once_leaves_what_its_events_leave_one_by_one`, and to `legal`:
    `test_a_run_is_replayed_as_its_events_are_one_by_one`.
    """
    time_ms = state.time_ms
    contents = [
        event.digest + event.payload
        for event in events
        if not (event.run_at_ms > time_ms or event.parent or event.tags)
    ]
    if len(contents) != len(events):
        return False
    jobs, raws = list(map(_job, events)), list(map(_spec, events))
    if not are_legal and not (
        state.tombstones.keys().isdisjoint(jobs)
        and set(map(len, map(_digest, events))) == {DIGEST_BYTES}
        and _are_ids(jobs)
        and _are_specs(state, raws)
    ):
        return False
    seqs, times = count(state.last_seq + 1), repeat(time_ms)
    lanes: Iterable[list[Row]]
    if raws.count(raws[0]) == len(raws):
        rows = list(map(Row, seqs, jobs, times, repeat(spec_of(raws[0])), contents))
        lanes = (rows,)
    else:
        rows = list(map(Row, seqs, jobs, times, map(spec_of, raws), contents))
        lanes = _lanes_of(rows)
    if are_legal:
        state.jobs.update(zip(jobs, rows, strict=True))
    elif not _enter_new(state.jobs, jobs, rows):
        return False
    state.last_seq += len(rows)
    for lane in lanes:
        # In the order in which they come: the first job of a queue makes it.
        queue = state.queue(lane[0].spec.queue)
        queue.row.enqueued += len(lane)
        if state.indexed:
            _enter_ready(state, lane)
    return True


def _enter_new(known: dict[str, Row], jobs: Sequence[str], rows: list[Row]) -> bool:
    """Enters rows under ids that are all new; else returns False, with nothing changed.

    Each id is looked up once: that misses the caches, and takes a third of a long replay.
    """
    if list(map(known.setdefault, jobs, rows)) == rows:
        return True
    for job, row in zip(jobs, rows, strict=True):
        if known.get(job) is row:
            del known[job]
    return False


def _are_ids(jobs: Sequence[str]) -> bool:
    """False where one is no id, or where only a closer look tells."""
    joined, longest = "".join(jobs), len(max(jobs, key=len))
    bytes_max = longest if joined.isascii() else 4 * longest
    return joined.isprintable() and all(jobs) and bytes_max <= ID_BYTES_MAX


def _are_specs(state: State, raws: Sequence[bytes]) -> bool:
    """True where all can be read, and there is room for their queues."""
    try:
        some = raws[:1] if raws.count(raws[0]) == len(raws) else raws
        new = {spec_of(raw).queue for raw in some} - state.queues.keys()
    except msgspec.MsgspecError:
        return False
    return not new or len(state.queues) + len(new) <= state.queues_max


def _lanes_of(rows: Sequence[Row]) -> Iterable[list[Row]]:
    """Returns new rows lane by lane."""
    lanes: dict[tuple[str, str, int, bool], list[Row]] = {}
    for row in rows:
        spec = row.spec
        # One attempt is a kind of its own.
        lane = (spec.queue, spec.task, spec.priority, spec.max_attempts <= 1)
        lanes.setdefault(lane, []).append(row)
    return lanes.values()


def _dispatched(state: State, events: Sequence[Dispatched], *, are_legal: bool) -> bool:
    """The jobs that go first in one lane, in their order, to one worker.

    Held equal to `applying`:
    `test_a_run_applied_at_once_leaves_what_its_events_leave_one_by_one`, and to `legal`:
    `test_a_run_is_replayed_as_its_events_are_one_by_one`.
    """
    jobs, worker = state.jobs, events[0].worker
    if not are_legal:
        time_ms = state.time_ms
        for event in events:
            found = jobs.get(event.job)
            if found is None or found.state != _PENDING or found.ready_ms > time_ms:
                return False
            if found.attempt >= found.spec.max_attempts:
                return False
            if found.extra is not None and found.extra.suspect:
                return False
        if len(set(map(_job, events))) != len(events):
            return False
        if state.queues[jobs[events[0].job].spec.queue].row.paused:
            return False
    rows = [jobs[event.job] for event in events]
    if len(set(map(_worker, events))) > 1 or not _take_heads(state, rows):
        return False
    assert _DISPATCHED is not None, "the Machine says so"
    queue = state.queues[rows[0].spec.queue]
    first = state.last_seq + 1
    for token, row in enumerate(rows, first):
        row.state = _DISPATCHED
        row.attempt += 1
        row.token = token
        row.worker = worker
    state.last_seq += len(rows)
    _put_in_flight(state, rows)
    queue.stride_pass += len(rows) * (STRIDE // queue.row.weight)
    state.stride_pass = queue.stride_pass
    return True


def _acked(state: State, events: Sequence[Acked], *, are_legal: bool) -> bool:
    """Attempts that have completed, of whatever jobs.

    Held equal to `applying`:
    `test_a_run_applied_at_once_leaves_what_its_events_leave_one_by_one`, and to `legal`:
    `test_a_run_is_replayed_as_its_events_are_one_by_one`.
    """
    if not are_legal:
        for event in events:
            row = state.jobs.get(event.job)
            if row is None or row.state != _IN_FLIGHT or row.token != event.token:
                return False
            if event.token < state.boot_seq:
                return False
        if len(set(map(_job, events))) != len(events):
            return False
    forget = state.jobs.pop
    rows = [forget(event.job) for event in events]
    state.last_seq += len(rows)
    _take_completed(state, rows)
    assert _ACKED is not None, "the Machine says so"
    jobs, tombstones = [], []
    for row in rows:
        row.state = _FORGOTTEN
        jobs.append(row.id)
        tombstones.append(pack_tombstone(row.seq, _ACKED, row.content[:DIGEST_BYTES]))
    _bury(state, jobs, tombstones)
    return True


class Form(Protocol):
    """The bulk form of one kind of event."""

    def __call__(self, state: State, events: Any, *, are_legal: bool) -> bool:
        """Applies a run of events, whose time stands in the state.

        Returns False, with nothing changed, where the run is not of the plain shape, or where
        `are_legal` is false and an event cannot follow those before it.
        """
        ...


BULK: Final[dict[type, Form]] = {
    Enqueued: _enqueued,
    Dispatched: _dispatched,
    Acked: _acked,
}


# -- rows into the indexes, and out of them --------------------------------------------------


def _enter_ready(state: State, rows: Sequence[Row]) -> None:
    """Enters pending rows of one lane that are ready: `State.put` of each."""
    queue = _count_pending(state, rows)
    state.count_ready(queue, len(rows))
    bucket = queue.bucket(rows[0], state.known_tasks)
    bucket.extend(rows)
    if bucket.live == len(rows):
        state.list_bucket(queue, bucket)


def _count_pending(state: State, rows: Sequence[Row]) -> QueueIndex:
    """Adds pending rows of one queue, which it returns, to counts, bytes and ledger."""
    queue = state.queues[rows[0].spec.queue]
    queue.counts[_PENDING] += len(rows)
    size = size_of_all(rows)
    queue.bytes += size
    state.bytes += size
    state.ledger = (state.ledger + _ledger_of(rows, _PENDING)) & LEDGER_MASK
    return queue


def _take_heads(state: State, rows: Sequence[Row]) -> bool:
    """Takes rows that go first in one lane, in their order, out of every index.

    Returns False, with nothing changed, where they are anything else: suspects, too.
    """
    if not state.indexed:
        return len({row.spec.queue for row in rows}) == 1
    if rows[0].scheduled or kind_of(rows[0]) == _SUSPECT:
        return False
    queue = state.queues[rows[0].spec.queue]
    if not queue.bucket(rows[0], state.known_tasks).take_heads(rows):
        return False
    count = len(rows)
    queue.counts[_PENDING] -= count
    queue.ready -= count
    state.ready -= count
    state.ledger = (state.ledger - _ledger_of(rows, _PENDING)) & LEDGER_MASK
    return True


def _put_in_flight(state: State, rows: Sequence[Row]) -> None:
    """Enters rows of one queue that are in flight, and no suspects, into the indexes."""
    if not state.indexed:
        return
    state.queues[rows[0].spec.queue].counts[_IN_FLIGHT] += len(rows)
    state.ledger = (state.ledger + _ledger_of(rows, _IN_FLIGHT)) & LEDGER_MASK
    state.in_flight.update(zip(map(_token, rows), rows, strict=True))


def _take_completed(state: State, rows: Sequence[Row]) -> None:
    """Takes rows that were in flight and have completed out of every index."""
    by_queue: dict[str, list[Row]] = {}
    spec, queued = None, []
    for row in rows:
        if row.spec is not spec:
            spec = row.spec
            queued = by_queue.setdefault(spec.queue, [])
        queued.append(row)
    for name, queued in by_queue.items():
        state.queues[name].row.completed += len(queued)
    if not state.indexed:
        return
    in_flight, suspects = state.in_flight, 0
    for row in rows:
        del in_flight[row.token]
        if row.extra is not None:
            suspects += row.extra.suspect
    state.suspects_in_flight -= suspects
    state.ledger = (state.ledger - _ledger_of(rows, _IN_FLIGHT)) & LEDGER_MASK
    for name, queued in by_queue.items():
        queue, size = state.queues[name], size_of_all(queued)
        queue.counts[_IN_FLIGHT] -= len(queued)
        queue.bytes -= size
        state.bytes -= size


def _bury(state: State, jobs: Sequence[str], tombstones: Sequence[bytes]) -> None:
    """Remembers finished jobs and evicts a few of the oldest tombstones for each."""
    state.tombstones.update(zip(jobs, tombstones, strict=True))
    state.tombstone_ids.extend(jobs)
    state.tombstone_times.extend(repeat(state.time_ms, len(jobs)))
    state.bytes += TOMBSTONE_BYTES * len(jobs) + sum(map(len, jobs))
    if len(state.tombstones) > state.tombstones_max or state.tombstones_age_ms:
        state.evict(len(jobs) * TOMBSTONES_EVICTED_PER_EVENT)


def _ledger_of(rows: Sequence[Row], state: JobState) -> int:
    """Returns the sum of what rows in one state add to the ledger."""
    parts = zip(
        map(_seq, rows), repeat(state), map(_attempt, rows), map(_token, rows), strict=False
    )
    return sum(map(hash, parts))


# -- the indexes of a whole state --------------------------------------------------------------


def build_indexes(state: State) -> None:
    """Builds the indexes from the rows, if they were deferred.

    Held equal to `State.put` of each: `test_indexes_built_at_once_are_those_built_row_by_row`.
    """
    if state.indexed:
        return
    state.indexed = True
    if len(state.jobs) < ROWS_MIN:
        for row in state.jobs.values():
            state.put_new(row)
    else:
        gathered = gather(state.jobs.values(), state.time_ms)
        for rows in filter(None, gathered.ready):
            _enter_ready(state, rows)
        for rows in filter(None, gathered.scheduled.values()):
            _count_pending(state, rows)
            _schedule(state, rows)
        for row in gathered.rest:
            state.put_new(row)
    # Tokens give the order of dispatch, seqs that of the rows.
    state.in_flight = dict(sorted(state.in_flight.items()))


def _schedule(state: State, rows: Sequence[Row]) -> None:
    for row in rows:
        row.scheduled = True
    state.scheduled_live += len(rows)
    state.scheduled += [(row.ready_ms, row.seq, row) for row in rows]
    heapq.heapify(state.scheduled)


class Gathered(NamedTuple):
    """The rows of a state; every list of waiting rows is of one queue."""

    ready: list[list[Row]]
    """One list a lane, first to run first; some are empty."""
    scheduled: dict[str, list[Row]]
    """Rows whose time has not come, in seq order, by queue; some are empty."""
    rest: list[Row]
    """Rows that do not wait, and suspects, of which there are few."""


class _Lists(NamedTuple):
    """The lists that the rows of one spec go to."""

    add: Callable[[Row], None]
    add_last_attempt: Callable[[Row], None]
    add_scheduled: Callable[[Row], None]
    last_attempt: int
    """Attempts spent from which the next one is the last."""


def gather(rows: Iterable[Row], now_ms: int) -> Gathered:
    """Sorts rows, which come in seq order, into their places at `now_ms`."""
    lanes: dict[tuple[str, str, bool, int], list[Row]] = {}
    scheduled: dict[str, list[Row]] = {}
    rest: list[Row] = []

    def lists_of(spec: Spec) -> _Lists:
        normal, last = (
            lanes.setdefault((spec.queue, spec.task, is_last, spec.priority), []).append
            for is_last in (False, True)
        )
        later = scheduled.setdefault(spec.queue, []).append
        return _Lists(normal, last, later, spec.max_attempts - 1)

    # By identity: the hash of a spec is that of all its fields.
    by_spec: dict[int, _Lists] = {}
    add_rest = rest.append
    spec: Spec | None = None
    for row in rows:
        if row.spec is not spec:
            spec = row.spec
            lists = by_spec.get(id(spec))
            if lists is None:
                lists = by_spec[id(spec)] = lists_of(spec)
            add, add_last_attempt, add_scheduled, last_attempt = lists
        extra = row.extra
        if row.state is not _PENDING or (extra is not None and extra.suspect):
            add_rest(row)
        elif row.ready_ms > now_ms:
            add_scheduled(row)
        elif row.attempt < last_attempt:
            add(row)
        else:
            add_last_attempt(row)
    for lane in lanes.values():
        # Stable: rows of one time keep the order of their seqs.
        lane.sort(key=_ready_ms)
    return Gathered(list(lanes.values()), scheduled, rest)
