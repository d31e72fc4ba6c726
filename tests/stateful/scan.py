"""What a scan over all rows finds, to be compared with what the indexes say.

Slow and plain on purpose: nothing here reads an index, a lane, a heap or a count.
"""

from __future__ import annotations

from typing import Any

from beaver_model import JobState, Offer, Row, State, fingerprint, freeze, select, thaw, violations
from beaver_model.bounds import ADVANCE_MAX, AGEING_MS
from beaver_model.rows import ROW_BYTES

OFFERS = (
    Offer(idle=True),
    Offer(idle=False),
    Offer(tasks=frozenset({"fetch"})),
    Offer(queues=frozenset({"mail"}), idle=False),
)


def is_eligible(state: State, row: Row, offer: Offer, now_ms: int) -> bool:
    """True where the slot may get this job, by the rules as the documents tell them."""
    spec, tasks = row.spec, state.known_tasks
    if row.state != JobState.PENDING or row.ready_ms > now_ms:
        return False
    if state.queues[spec.queue].row.paused:
        return False
    if tasks is not None and spec.task not in tasks:
        return False
    if offer.tasks is not None and spec.task not in offer.tasks:
        return False
    if offer.queues is not None and spec.queue not in offer.queues:
        return False
    if row.suspect:
        return offer.idle and not any(other.suspect for other in running(state))
    return offer.idle or row.attempt + 1 < spec.max_attempts


def running(state: State) -> list[Row]:
    return [row for row in state.jobs.values() if row.state == JobState.IN_FLIGHT]


def choice(state: State, offer: Offer, now_ms: int) -> Row | None:
    """Returns the job that the slot should get: the policy, by a scan.

    Which queue is next is a matter of the passes, which no row holds: they are read.
    """
    rows = [row for row in state.jobs.values() if is_eligible(state, row, offer, now_ms)]
    if not rows:
        return None
    names = list(state.queues)
    first = min(
        {row.spec.queue for row in rows},
        key=lambda name: (state.queues[name].stride_pass, names.index(name)),
    )

    def rank(row: Row) -> tuple[int, int, int]:
        aged = row.spec.priority - (now_ms - row.ready_ms) // AGEING_MS
        return max(0, aged), row.ready_ms, row.seq

    return min((row for row in rows if row.spec.queue == first), key=rank)


def queue_bytes(state: State, queue: str) -> int:
    """Returns the bytes that the jobs of a queue are charged for."""
    rows = [row for row in state.jobs.values() if row.spec.queue == queue]
    return sum(ROW_BYTES + len(row.payload) + len(row.id) for row in rows)


def derived(state: State) -> dict[str, Any]:
    """Returns what the indexes say, in a form that does not depend on how they came to be."""
    lanes = {
        (name, task, kind.name, priority): sorted(row.seq for row in lane)
        for name, queue in state.queues.items()
        for (task, kind), bucket in queue.buckets.items()
        for priority, lane in enumerate(bucket.lanes)
        if lane is not None and lane.live
    }
    queues = {
        name: (queue.counts, queue.bytes, queue.ready, queue.oldest_ready_ms())
        for name, queue in state.queues.items()
    }
    return {
        "lanes": lanes,
        "queues": queues,
        "in flight": [(token, row.id) for token, row in state.in_flight.items()],
        "dead": sorted(state.dead),
        "cancelled": sorted(state.cancelled),
        "next ready": state.next_ready_ms(),
        "scheduled": state.scheduled_live,
        "counts": [state.count(each) for each in JobState],
        "bytes": state.bytes,
        "ledger": state.ledger,
        "suspects": state.suspects_in_flight,
    }


def advance(state: State, now_ms: int) -> None:
    while state.advance(now_ms) == ADVANCE_MAX:
        pass


def check_picks(state: State, now_ms: int) -> None:
    """Checks indexes and policy of a state whose due jobs were made ready at `now_ms`."""
    again = thaw(*freeze(state))
    again.set_known_tasks(state.known_tasks)
    assert fingerprint(again) == fingerprint(state), "freezing and thawing changes the state"
    advance(again, now_ms)
    found, expected = derived(state), derived(again)
    assert found == expected, "the indexes differ from those that the rows give"
    for offer in OFFERS:
        picked, wanted = select(state, offer, now_ms), choice(state, offer, now_ms)
        assert picked is wanted, f"{offer} gets {picked and picked.id}, not {wanted and wanted.id}"


def check_state(state: State, now_ms: int) -> str:
    """Checks the invariants, the indexes and the policy; returns the fingerprint.

    What is due is made ready, which changes no row.
    """
    now_ms = max(now_ms, state.time_ms)
    assert violations(state) == []
    advance(state, now_ms)
    assert violations(state) == []
    check_picks(state, now_ms)
    return fingerprint(state)
