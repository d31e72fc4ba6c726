"""Runs: many events of one kind in a row, applied at once.

A commit is made of runs: a batch of ENQUEUE, the DISPATCH of all that a worker gets, the ACK
of all that it has ended.  One by one, half of what they cost is looking up the same queue,
bucket and lane again and adding one to the same counts.  Here that is done once a run.

Each function does exactly what `apply` does event by event, or nothing: it returns False
where the run is not of the plain shape, and `apply_all` goes on one by one.  Events are
legal and the indexes stand.  A test holds both ways against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

from beaver_model.bounds import DIGEST_BYTES
from beaver_model.events import Acked, Dispatched, Enqueued
from beaver_model.index import Kind, kind_of
from beaver_model.lifecycle import CELLS, Trigger
from beaver_model.rows import Row, pack_tombstone, spec_of
from beaver_model.state import State
from beaver_model.states import JobState
from beaver_model.turns import STRIDE

RUN_MIN: Final = 3
"""From so many events a run is worth it."""

_PENDING: Final = JobState.PENDING
_IN_FLIGHT: Final = JobState.IN_FLIGHT
_FORGOTTEN: Final = JobState.FORGOTTEN
_SUSPECT: Final = Kind.SUSPECT
_DISPATCHED: Final = CELLS[Trigger.DISPATCH][_PENDING]
_ACKED: Final = CELLS[Trigger.ACK][_IN_FLIGHT]
_worker: Final = attrgetter("worker")


def _enqueued(state: State, events: Sequence[Enqueued]) -> bool:
    """Jobs that are ready at once, and have nothing that only few jobs have."""
    time_ms = state.time_ms
    for event in events:
        if event.run_at_ms > time_ms or event.parent or event.tags:
            return False
    jobs, seq = state.jobs, state.last_seq
    lanes: dict[tuple[str, str, int, bool], list[Row]] = {}
    raw, spec, rows = None, None, []
    for event in events:
        if event.spec is not raw:
            raw = event.spec
            spec = spec_of(raw)
            state.queue(spec.queue)
            # One attempt is a kind of its own.
            lane = (spec.queue, spec.task, spec.priority, spec.max_attempts <= 1)
            rows = lanes.setdefault(lane, [])
        assert spec is not None, "it was looked up for the first event"
        seq += 1
        job = event.job
        row = jobs[job] = Row(seq, job, time_ms, spec, event.digest + event.payload)
        rows.append(row)
    state.last_seq = seq
    for rows in lanes.values():
        state.enter_ready(rows).row.enqueued += len(rows)
    return True


def _dispatched(state: State, events: Sequence[Dispatched]) -> bool:
    """The jobs that go first in one lane, in their order, to one worker."""
    jobs, worker = state.jobs, events[0].worker
    rows = [jobs[event.job] for event in events]
    workers = set(map(_worker, events))
    if len(workers) > 1 or kind_of(rows[0]) == _SUSPECT or not state.take_heads(rows):
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
    state.put_in_flight(rows)
    queue.stride_pass += len(rows) * (STRIDE // queue.row.weight)
    state.stride_pass = queue.stride_pass
    return True


def _acked(state: State, events: Sequence[Acked]) -> bool:
    """Attempts that have completed, of whatever jobs."""
    forget = state.jobs.pop
    rows = [forget(event.job) for event in events]
    state.last_seq += len(rows)
    state.take_completed(rows)
    assert _ACKED is not None, "the Machine says so"
    jobs, tombstones = [], []
    for row in rows:
        row.state = _FORGOTTEN
        jobs.append(row.id)
        tombstones.append(pack_tombstone(row.seq, _ACKED, row.content[:DIGEST_BYTES]))
    state.bury_all(jobs, state.time_ms, tombstones)
    return True


AT_ONCE: Final[dict[type, Callable[[State, Any], bool]]] = {
    Enqueued: _enqueued,
    Dispatched: _dispatched,
    Acked: _acked,
}
"""Applies a run of that kind; its time stands in the state."""
