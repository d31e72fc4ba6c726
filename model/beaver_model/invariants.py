"""The invariants: what holds in every state, as named functions.

Each takes a state and returns what is wrong, or `None`.  The explorer, the Hypothesis
machines, the simulator, `verify` and `replay --check` all use these.  They
scan, so they are for checking, never for the hot path.

Those about one row alone are in `ROW_INVARIANTS`, and those about the counts
in `counts_agree`: a running server checks these on a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from beaver_model.bounds import SNOOZES_MAX
from beaver_model.forgetting import beside_default
from beaver_model.index import QueueIndex, kind_of
from beaver_model.rows import DEFAULT_QUEUE, ROW_BYTES, TOMBSTONE_BYTES, Row
from beaver_model.state import State
from beaver_model.states import JobState

Invariant = Callable[[State], str | None]
RowInvariant = Callable[[State, Row], str | None]

_ROW_STATES: Final = (JobState.PENDING, JobState.IN_FLIGHT, JobState.DEAD, JobState.CANCELLED)


# -- of one row --------------------------------------------------------------------------------


def row_is_in_one_set(state: State, row: Row) -> str | None:
    """P2: a row is filed under its id and stands in the set of its state, and in no other."""
    job = row.id
    if state.jobs.get(job) is not row:
        return f"job {job} is filed under another id than its own, or twice"
    if row.state not in _ROW_STATES:
        return f"job {job} has a row and is {row.state.name}"
    if job in state.tombstones:
        return f"job {job} is {row.state.name} and finished at once"
    sets = [
        state.in_flight.get(row.token) is row,
        state.dead.get(job) is row,
        state.cancelled.get(job) is row,
    ]
    expected = [row.state == s for s in _ROW_STATES[1:]]
    return None if sets == expected else f"job {job} is {row.state.name}, and the sets say {sets}"


def row_is_in_the_log(state: State, row: Row) -> str | None:
    """A job's seq is not ahead of the log."""
    if not 0 < row.seq <= state.last_seq:
        return f"job {row.id} has the seq {row.seq}; the log ends at {state.last_seq}"
    return None


def row_is_fenced(state: State, row: Row) -> str | None:
    """P3: a job has a token and a worker exactly while it is in flight; the token is younger."""
    in_flight = row.state == JobState.IN_FLIGHT
    if in_flight != (row.token > 0) or (not in_flight and row.worker):
        return f"job {row.id} is {row.state.name} with token {row.token}, worker {row.worker}"
    if in_flight and not row.seq < row.token <= state.last_seq:
        return f"job {row.id} has the token {row.token} outside {row.seq}..{state.last_seq}"
    return None


def row_is_bounded(state: State, row: Row) -> str | None:
    """P6: attempts never exceed the limit, and a pending job has one left."""
    spent_max = row.spec.max_attempts - (row.state == JobState.PENDING)
    least = 1 if row.state == JobState.IN_FLIGHT else 0
    if not least <= row.attempt <= spent_max:
        return f"job {row.id} is {row.state.name} after {row.attempt} attempts of {spent_max}"
    if row.extra is not None and row.extra.snoozes > SNOOZES_MAX:
        return f"job {row.id} has snoozed {row.extra.snoozes} times"
    return None


def row_has_a_place(state: State, row: Row) -> str | None:
    """P5: a pending job's place in the index is not empty; `ready_index_matches` checks the job."""
    if row.state != JobState.PENDING:
        return None
    queue = state.queues.get(row.spec.queue)
    if queue is None:
        return f"job {row.id} is in the queue {row.spec.queue}, which there is not"
    if row.scheduled:
        return None if state.scheduled_live else f"job {row.id} is scheduled, and nothing is"
    bucket = queue.buckets.get((row.spec.task, kind_of(row)))
    lane = bucket.lanes[row.spec.priority] if bucket is not None else None
    if bucket is None or lane is None or not lane.live:
        return f"job {row.id} is ready, and its lane is empty"
    if not bucket.mask >> row.spec.priority & 1:
        return f"job {row.id} is ready, and nobody would look into its lane"
    return None


ROW_INVARIANTS: Final[tuple[RowInvariant, ...]] = (
    row_is_in_one_set,
    row_is_in_the_log,
    row_is_fenced,
    row_is_bounded,
    row_has_a_place,
)


def _of_every_row(state: State, check: RowInvariant) -> str | None:
    wrong = (check(state, row) for row in state.jobs.values())
    return next((text for text in wrong if text is not None), None)


# -- of a whole state ----------------------------------------------------------------------------


def one_set_per_job(state: State) -> str | None:
    """P2: each job is in exactly one of pending, in_flight, completed, dead, cancelled."""
    for job, row in state.jobs.items():
        if row.id != job:
            return f"job {job} is filed under another id than its own, {row.id}"
    return _of_every_row(state, row_is_in_one_set)


def seqs_ascend(state: State) -> str | None:
    """Jobs stand in the order of their seqs, no two share one, and none is ahead of the log."""
    for before, row in pairwise(state.jobs.values()):
        if before.seq >= row.seq:
            return f"job {row.id} of seq {row.seq} stands behind {before.id} of seq {before.seq}"
    return _of_every_row(state, row_is_in_the_log)


def tokens_fence(state: State) -> str | None:
    """P3: a job has a token and a worker exactly while it is in flight; the token is younger."""
    return _of_every_row(state, row_is_fenced)


def attempts_are_bounded(state: State) -> str | None:
    """P6: attempts never exceed the limit, and a pending job has one left."""
    return _of_every_row(state, row_is_bounded)


def counts_agree(state: State) -> str | None:
    """Counts that are kept separately agree; only the queues have to be read.

    It follows from `INVARIANTS`, so it is not one of them.
    """
    counts = [0] * len(JobState)
    ready = 0
    for name, queue in state.queues.items():
        wrong = queue_agrees(name, queue)
        if wrong is not None:
            return wrong
        for at, count in enumerate(queue.counts):
            counts[at] += count
        ready += queue.ready
    pairs = {
        "rows": (sum(counts), len(state.jobs)),
        "jobs in flight": (counts[JobState.IN_FLIGHT], len(state.in_flight)),
        "dead jobs": (counts[JobState.DEAD], len(state.dead)),
        "cancelled jobs": (counts[JobState.CANCELLED], len(state.cancelled)),
        "pending jobs": (counts[JobState.PENDING], state.ready + state.scheduled_live),
        "ready jobs": (ready, state.ready),
        "tombstones": (len(state.tombstone_ids), len(state.tombstones)),
        "times of tombstones": (len(state.tombstone_times), len(state.tombstones)),
    }
    for what, (one, other) in pairs.items():
        if one != other:
            return f"there are {one} {what} by one count and {other} by another"
    return None


def queue_agrees(name: str, queue: QueueIndex) -> str | None:
    """The counts of a queue are the sums over its buckets."""
    if min(queue.counts) < 0 or queue.bytes < 0:
        return f"queue {name} counts {queue.counts} and {queue.bytes} bytes"
    live = sum(bucket.live for bucket in queue.buckets.values())
    return None if live == queue.ready else f"queue {name} has {live} ready jobs or {queue.ready}"


def one_suspect_at_a_time(state: State) -> str | None:
    """At most one suspect is in flight, and the count says so."""
    suspects = sum(row.suspect for row in state.in_flight.values())
    if suspects != state.suspects_in_flight:
        return f"{suspects} suspects are in flight, counted as {state.suspects_in_flight}"
    return None if suspects <= 1 else f"{suspects} suspects are in flight at once"


def ready_index_matches(state: State) -> str | None:
    """P5: each pending job stands exactly once where `select` or `advance` will find it."""
    placed: dict[int, str] = {}
    for _, _, row in state.scheduled:
        if row.state == JobState.PENDING:
            if not row.scheduled or row.seq in placed:
                return f"job {row.id} stands in the schedule wrongly or twice"
            placed[row.seq] = row.id
    if len(placed) != state.scheduled_live:
        return f"{len(placed)} jobs are scheduled, counted as {state.scheduled_live}"
    ready = 0
    for name, queue in state.queues.items():
        before = len(placed)
        for (task, kind), bucket in queue.buckets.items():
            if bucket.known != (state.known_tasks is None or task in state.known_tasks):
                return f"bucket {name}/{task} is parked wrongly"
            for priority, lane in enumerate(bucket.lanes):
                rows = list(lane) if lane is not None else []
                if bool(rows) != bool(bucket.mask >> priority & 1):
                    return f"bucket {name}/{task} has a wrong mask at priority {priority}"
                if lane is not None and lane.live != len(rows):
                    return f"lane {name}/{task}/{priority} counts {lane.live}, holds {len(rows)}"
                for row in rows:
                    place = (row.spec.queue, row.spec.task, kind_of(row), row.spec.priority)
                    if place != (name, task, kind, priority) or row.scheduled or row.seq in placed:
                        return f"job {row.id} stands in the lane {name}/{task}/{priority} wrongly"
                    placed[row.seq] = row.id
        if len(placed) - before != queue.ready:
            return f"queue {name} has {len(placed) - before} ready jobs, counted as {queue.ready}"
        ready += queue.ready
    if ready != state.ready:
        return f"{ready} jobs are ready, counted as {state.ready}"
    pending = {row.seq: i for i, row in state.jobs.items() if row.state == JobState.PENDING}
    return None if placed == pending else "a pending job stands in no index, or a stranger does"


def turns_are_listed(state: State) -> str | None:
    """P9: a queue with an eligible job is in the order of turns once, and not too late."""
    for order, prefetched in ((state.stride_order, False), (state.prefetch_stride_order, True)):
        listed = {number: stride_pass for stride_pass, number, _ in order}
        if len(listed) != len(list(order)):
            return "a queue is twice in the stride order"
        for name, queue in state.queues.items():
            if (queue.number in listed) != (queue in order):
                return f"queue {name} is listed wrongly"
            if queue.has_work(prefetched=prefetched) and queue not in order:
                return f"queue {name} has jobs that may be taken, and no turn"
            if listed.get(queue.number, 0) > queue.stride_pass:
                return f"the turn of queue {name} is later than its virtual time"
    return None


def lanes_are_ordered(state: State) -> str | None:
    """P9: the deque of a lane ascends by (ready time, seq)."""
    for name, queue in state.queues.items():
        for (task, _), bucket in queue.buckets.items():
            for lane in bucket.lanes:
                arrivals = lane.arrivals if lane is not None else ()
                keys = [(r.ready_ms, r.seq) for r in arrivals if r.state == JobState.PENDING]
                if keys != sorted(keys):
                    return f"a lane of {name}/{task} is out of order"
    return None


def counts_match(state: State) -> str | None:
    """Counts, bytes and ledger equal what a scan finds."""
    counts = {name: [0] * len(JobState) for name in state.queues}
    sizes = dict.fromkeys(state.queues, 0)
    ledger = 0
    for row in state.jobs.values():
        counts[row.spec.queue][row.state] += 1
        sizes[row.spec.queue] += ROW_BYTES + len(row.payload) + len(row.id)
        ledger += hash((row.seq, row.state, row.attempt, row.token))
    for name, queue in state.queues.items():
        if queue.counts != counts[name] or queue.bytes != sizes[name]:
            return f"queue {name} counts {queue.counts} and {queue.bytes} bytes; a scan differs"
    total = sum(sizes.values()) + sum(TOMBSTONE_BYTES + len(job) for job in state.tombstones)
    if total != state.bytes:
        return f"the state takes {total} bytes, counted as {state.bytes}"
    return None if ledger % (1 << 64) == state.ledger else "the ledger does not match the rows"


def tombstones_match(state: State) -> str | None:
    """The tombstones and their eviction order name the same jobs, once each."""
    ids = list(state.tombstone_ids)
    if len(ids) != len(set(ids)) or set(ids) != set(state.tombstones):
        return "the order of tombstones and the tombstones differ"
    return None if len(ids) == len(state.tombstone_times) else "a tombstone has no time"


def queues_are_known_and_bounded(state: State) -> str | None:
    """Every job's queue is known, and there are no more queues than allowed."""
    for row in state.jobs.values():
        if row.spec.queue not in state.queues:
            return f"job {row.id} is in queue {row.spec.queue}, which is not known"
    count = beside_default(state)
    if count > state.queues_max:
        return f"{count} queues are known beside {DEFAULT_QUEUE}; at most {state.queues_max} may be"
    return None


INVARIANTS: Final[tuple[Invariant, ...]] = (
    one_set_per_job,
    queues_are_known_and_bounded,
    seqs_ascend,
    tokens_fence,
    attempts_are_bounded,
    one_suspect_at_a_time,
    ready_index_matches,
    turns_are_listed,
    lanes_are_ordered,
    counts_match,
    tombstones_match,
)


def violations(state: State) -> list[str]:
    """Returns every violated invariant as `name: what is wrong`."""
    found = ((check.__name__, check(state)) for check in INVARIANTS)
    return [f"{name}: {wrong}" for name, wrong in found if wrong is not None]
