"""Counts of the queues for the metrics: a bounded number of labels, collected in slices.

A store may know ten thousand queues.  Each would be a label of five families: a page of
megabytes, which holds the loop for half a second and a time series each.  So the `LABELS_MAX`
queues that hold the most jobs have a label of their own, and all the others share `OTHER`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from heapq import nlargest
from itertools import islice
from typing import Final, NamedTuple

from beaver_model import State
from beaver_model.index import QueueIndex
from beaver_model.states import JobState

LABELS_MAX: Final = 100
"""Queues with a label of their own."""

OTHER: Final = "other"
"""The label of all the rest, once there are more."""

SLICE: Final = 250
"""Queues that are looked at between two pauses: a millisecond or two."""


class QueueCounts(NamedTuple):
    """Values by label."""

    pending: dict[str, int]
    in_flight: dict[str, int]
    dead: dict[str, int]
    oldest_s: dict[str, float]
    """For how long the oldest ready job waits; among `OTHER` the longest."""
    paused: dict[str, int]
    """1 where the queue is paused; for `OTHER` how many are."""


Taking = Generator[None, None, QueueCounts]


def take(state: State, now_ms: int) -> Taking:
    """Returns the counts of all queues, and pauses while it looks at them."""
    queues = list(state.queues.items())
    own = yield from _largest(queues)
    counts = QueueCounts({}, {}, {}, {}, {})
    for at in range(0, len(queues), SLICE):
        if at:
            yield
        for name, queue in islice(queues, at, at + SLICE):
            _add(counts, name if name in own else OTHER, queue, now_ms)
    return counts


def _largest(queues: Sequence[tuple[str, QueueIndex]]) -> Generator[None, None, set[str]]:
    """Returns the names of the queues that get labels of their own."""
    if len(queues) <= LABELS_MAX:
        return {name for name, _ in queues}
    sizes: list[tuple[int, int, str]] = []
    for at in range(0, len(queues), SLICE * 4):
        if at:
            yield
        for name, queue in islice(queues, at, at + SLICE * 4):
            if name != OTHER:  # One label cannot stand for itself and for the rest.
                sizes.append((sum(queue.counts), queue.row.enqueued, name))
    return {name for _, _, name in nlargest(LABELS_MAX, sizes)}


def _add(counts: QueueCounts, label: str, queue: QueueIndex, now_ms: int) -> None:
    for values, state in (
        (counts.pending, JobState.PENDING),
        (counts.in_flight, JobState.IN_FLIGHT),
        (counts.dead, JobState.DEAD),
    ):
        values[label] = values.get(label, 0) + queue.counts[state]
    oldest_ms = queue.oldest_ready_ms() if queue.ready else None
    waited_s = 0.0 if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000
    counts.oldest_s[label] = max(counts.oldest_s.get(label, 0.0), waited_s)
    counts.paused[label] = counts.paused.get(label, 0) + queue.row.paused


def at_once(taking: Taking) -> QueueCounts:
    """Returns what a taking finds, without its pauses."""
    while True:
        try:
            next(taking)
        except StopIteration as end:
            counts: QueueCounts = end.value
            return counts
