"""Invariants in the running server, asked of a sample.

A scan of a million jobs would stop the loop for a second, so each turn looks at a bounded
number of rows: the ones that the last commit touched, those in flight, those that go next,
and a stretch of all others that moves on from turn to turn.  Each is asked what can be said
of one row alone; the counts are compared with each other.  What no sample can see is compared
at every snapshot with what a replay of the log gives (`beaver_model.contents`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from beaver_model import Row, State
from beaver_model.events import AnyEvent
from beaver_model.invariants import ROW_INVARIANTS, counts_agree, one_suspect_at_a_time

ROWS_EACH: Final = 50
"""Rows of each kind that one turn looks at."""
REACH: Final = 100_000
"""How far the moving stretch goes in from the oldest and from the newest job: skipping more rows
would take longer than checking them."""
QUEUES_MAX: Final = 1_000
"""Beyond this many queues their counts are not compared, since each turn would take too long."""


class Sampled(NamedTuple):
    """What one turn looked at."""

    rows: int
    wrong: str
    """The first violation, or nothing."""


class Sampler:
    """Samples one state.  Observes the engine's commits."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._recent: Sequence[AnyEvent] = ()
        self._offset = 0

    def observe(self, first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
        """Remembers the last commit; its events are only looked at when a turn comes."""
        self._recent = events

    def turn(self) -> Sampled:
        """Looks at the next sample."""
        state, rows = self._state, 0
        if len(state.queues) <= QUEUES_MAX:
            wrong = counts_agree(state)
            if wrong is not None:
                return Sampled(rows, f"{counts_agree.__name__}: {wrong}")
        wrong = one_suspect_at_a_time(state) if len(state.in_flight) <= REACH else None
        if wrong is not None:
            return Sampled(rows, f"{one_suspect_at_a_time.__name__}: {wrong}")
        for row in self._sample():
            rows += 1
            for check in ROW_INVARIANTS:
                wrong = check(state, row)
                if wrong is not None:
                    return Sampled(rows, f"{check.__name__}: {wrong}")
        return Sampled(rows, "")

    def _sample(self) -> Iterator[Row]:
        state = self._state
        for event in islice(self._recent, ROWS_EACH):
            row = state.jobs.get(getattr(event, "job", ""))
            if row is not None:
                yield row
        yield from islice(state.in_flight.values(), ROWS_EACH)
        yield from islice(self._heads(), ROWS_EACH)
        yield from self._stretch()

    def _heads(self) -> Iterator[Row]:
        """Yields the jobs that go next, of some queues."""
        for queue in islice(self._state.queues.values(), ROWS_EACH):
            for bucket in queue.buckets.values():
                lane = bucket.lanes[bucket.mask.bit_length() - 1] if bucket.mask else None
                row = lane.head() if lane is not None else None
                if row is not None:
                    yield row

    def _stretch(self) -> Iterator[Row]:
        """Yields the next rows, from the oldest on and from the newest back."""
        jobs = self._state.jobs
        offset = self._offset = self._offset if self._offset < min(len(jobs), REACH) else 0
        self._offset += ROWS_EACH
        yield from islice(jobs.values(), offset, offset + ROWS_EACH)
        if len(jobs) > REACH:
            yield from islice(reversed(jobs.values()), offset, offset + ROWS_EACH)
