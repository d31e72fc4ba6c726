"""Which jobs an action on many is for: those that fit the filters, in states that allow it.

What may not live here: finished jobs; no action is possible on them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, NamedTuple

from beaver.server.bulk.sets import Member
from beaver_model import State
from beaver_model.rows import Row
from beaver_model.states import JobState

SLICE_JOBS: Final = 500
"""Jobs looked at between two pauses."""

STATES: Final[dict[str, frozenset[JobState]]] = {
    "cancel": frozenset({JobState.PENDING, JobState.IN_FLIGHT}),
    "retry": frozenset({JobState.DEAD, JobState.CANCELLED}),
    "discard": frozenset({JobState.PENDING, JobState.DEAD, JobState.CANCELLED}),
}
"""The states in which an action is possible."""


class Filters(NamedTuple):
    """What a job must be; empty where it does not matter."""

    states: frozenset[JobState]
    queue: str = ""
    task: str = ""
    tag: str = ""
    parent: str = ""
    text: str = ""
    """Stands in its payload or error."""
    first_seq: int = 0
    last_seq: int = 0
    """Of its ENQUEUE, inclusive."""

    def fits(self, row: Row) -> bool:
        """True for a job that is meant."""
        spec, extra = row.spec, row.extra
        return (
            row.state in self.states
            and self.first_seq <= row.seq <= self.last_seq
            and (not self.queue or spec.queue == self.queue)
            and (not self.task or spec.task == self.task)
            and (not self.tag or (extra is not None and self.tag in extra.tags))
            and (not self.parent or (extra is not None and extra.parent == self.parent))
            and (not self.text or self._has_text(row))
        )

    def _has_text(self, row: Row) -> bool:
        return self.text.encode() in row.payload or (
            row.extra is not None and self.text in row.extra.error
        )


def matching(state: State, filters: Filters) -> Generator[list[Member], None, None]:
    """Yields the jobs that fit, some at a time; the state may go on in between.

    Each is as it is when it is looked at.
    """
    rows = list(state.jobs.values())
    for at in range(0, len(rows), SLICE_JOBS):
        found = []
        for seen in rows[at : at + SLICE_JOBS]:
            # Another row may stand for the job by now, or none.
            row = state.jobs.get(seen.id)
            if row is not None and row.seq == seen.seq and filters.fits(row):
                found.append(Member(row.id, row.seq, generation_of(row)))
        yield found


def generation_of(row: Row) -> int:
    """Returns how often a job was requeued."""
    return 0 if row.extra is None else row.extra.generation
