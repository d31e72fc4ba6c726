"""The scheduling policy: which eligible job a free slot gets, and why a job waits.

One rule, in one place.  Among queues: stride scheduling by weight, so that each queue gets
slots in proportion to its weight, and one that was idle does not catch up.  Within a queue:
the lowest priority number first, where waiting improves it by one for every `AGEING_MS`;
then (ready time, seq).  Safety never rests on this module: `decide` checks what it picks.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from beaver_model.bounds import AGEING_MS
from beaver_model.index import Kind, QueueIndex, kind_of
from beaver_model.rows import Row
from beaver_model.state import State
from beaver_model.states import JobState

# By name: looking up a member of an enumeration takes longer than all the rest.
_NORMAL: Final = Kind.NORMAL
_SUSPECT: Final = Kind.SUSPECT

Rank = tuple[int, int, int]
"""(aged priority, ready time, seq): lower runs first."""


class Offer(NamedTuple):
    """A free slot: what its worker can run, and whether it starts at once."""

    tasks: frozenset[str] | None = None
    """Tasks that the worker knows; `None` means all."""
    queues: frozenset[str] | None = None
    """Queues that the worker serves; `None` means all."""
    idle: bool = True
    """The job would start now; False if it would wait behind a running one."""


def select(state: State, offer: Offer, now_ms: int) -> Row | None:
    """Returns the job that the slot gets, or `None` where no job may run in it."""
    order = state.stride_order if offer.idle else state.prefetch_stride_order
    return order.first(_first_of, state, offer, now_ms)


def select_run(state: State, offer: Offer, now_ms: int, count: int) -> list[Row]:
    """Returns jobs that the slot gets one after another: the first, and up to `count` in all.

    They are those that `select` would give after each DISPATCH in turn.  Fewer are returned
    where that is not obvious: call again.
    """
    first = select(state, offer, now_ms)
    if first is None:
        return []
    queue = state.queues[first.spec.queue]
    live = [bucket for bucket in queue.buckets.values() if bucket.live]
    bucket = live[0]
    mask = bucket.mask
    if count < 2 or len(live) > 1 or bucket.kind == _SUSPECT or mask & (mask - 1):
        return [first]
    lane = bucket.lanes[mask.bit_length() - 1]
    order = state.stride_order if offer.idle else state.prefetch_stride_order
    return lane.heads(min(count, order.in_a_row(queue))) if lane is not None else [first]


def _first_of(queue: QueueIndex, state: State, offer: Offer, now_ms: int) -> Row | None:
    if queue.row.paused or (offer.queues is not None and queue.row.name not in offer.queues):
        return None
    first: Row | None = None
    first_rank: Rank | None = None
    for bucket in queue.buckets.values():
        if not bucket.live or not bucket.known:
            continue
        kind = bucket.kind
        if kind != _NORMAL and not _may_take(state, kind, offer):
            continue
        if offer.tasks is not None and bucket.task not in offer.tasks:
            continue
        mask = bucket.mask
        if not mask & (mask - 1) and first is None and len(queue.buckets) == 1:
            # Most queues have one priority and one task: nothing to compare.
            lane = bucket.lanes[mask.bit_length() - 1]
            return lane.head() if lane is not None else None
        for lane in bucket.lanes:
            row = lane.head() if lane is not None and lane.live else None
            if row is None:
                continue
            rank = _rank(row, now_ms)
            if first_rank is None or rank < first_rank:
                first, first_rank = row, rank
    return first


def _may_take(state: State, kind: Kind, offer: Offer) -> bool:
    """True if a slot may take a job of a restricted kind."""
    return offer.idle and (kind != _SUSPECT or not state.suspects_in_flight)


def _rank(row: Row, now_ms: int) -> Rank:
    aged = row.spec.priority - max(0, now_ms - row.ready_ms) // AGEING_MS
    return (max(0, aged), row.ready_ms, row.seq)


class Waiting(NamedTuple):
    """Why a job does not run now."""

    reason: str
    """One of `WAITING`."""
    until_ms: int = 0
    worker: int = 0


WAITING = {
    "running": "a worker holds it",
    "time": "its time has not come",
    "paused": "its queue is paused",
    "unknown_task": "no worker knows its task",
    "suspect": "it was running when the machine went down, and another such job runs now",
    "slot": "it waits for a free slot",
    "finished": "it has ended",
}
"""Every reason that `why` gives."""


def why(state: State, row: Row) -> Waiting:
    """Returns why a job does not run now: one look-up, however many jobs there are."""
    if row.state == JobState.IN_FLIGHT:
        return Waiting("running", worker=row.worker)
    if row.state != JobState.PENDING:
        return Waiting("finished")
    if state.queues[row.spec.queue].row.paused:
        return Waiting("paused")
    if row.scheduled:
        return Waiting("time", until_ms=row.ready_ms)
    if state.known_tasks is not None and row.spec.task not in state.known_tasks:
        return Waiting("unknown_task")
    if kind_of(row) == Kind.SUSPECT and state.suspects_in_flight:
        return Waiting("suspect")
    return Waiting("slot")
