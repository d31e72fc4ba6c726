"""Finding jobs in a state: what `list` asks for, page by page and in slices.

What may not live here: finished jobs, which the log tells of (`history`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from beaver.errors import InvalidInput, NotFound
from beaver.inspect.queries import job_view
from beaver.structs.views import (
    JobView,
)
from beaver.text.near import unknown_name
from beaver_model.rows import Row
from beaver_model.state import State
from beaver_model.states import JobState

LIST_LIMIT_MAX: Final = 10_000
SEQ_MAX: Final = (1 << 62) - 1
LIST_BYTES_MAX: Final = 8 << 20
"""Payloads in one answer; a single larger one still comes."""
SLICE_JOBS: Final = 2_000
"""Jobs that are looked at between two pauses: a few ms at most."""
SORTED_MAX: Final = 50_000
"""Up to this many jobs are sorted by seq to find the next; among more, one is nearby."""
STATES: Final = ("pending", "in_flight", "completed", "dead", "cancelled", "discarded")
"""The words by which `list` filters."""
_NEAR_MAX: Final = 256
"""How many queues are compared with an unknown name."""
FINISHED: Final = ("completed", "discarded")
"""Words for jobs of which a tombstone is left; the log tells the rest."""

Search = Generator[None, None, list[JobView]]
"""Looks for jobs, and pauses."""


def at_once(search: Search) -> list[JobView]:
    """Returns what a search finds, without its pauses."""
    while True:
        try:
            next(search)
        except StopIteration as end:
            views: list[JobView] = end.value
            return views


def check_listing(
    word: str, limit: int, since_ms: int = 0, until_ms: int = 0, after_seq: int = 0
) -> None:
    """Checks what a list is asked for.

    Raises:
        InvalidInput: There is no such state, a number is out of bounds, or jobs that have not
            finished are asked for by the time at which they did.
    """
    if word and word not in STATES:
        hint = unknown_name(word, STATES)
        raise InvalidInput(f"no state {word!r}; the states are {', '.join(STATES)}{hint}")
    if not 0 <= limit <= LIST_LIMIT_MAX:
        raise InvalidInput(f"a limit of {limit}; it must be from 1 to {LIST_LIMIT_MAX}")
    if min(since_ms, until_ms, after_seq) < 0 or max(since_ms, until_ms, after_seq) > SEQ_MAX:
        raise InvalidInput("a time or a seq is out of bounds")
    if (since_ms or until_ms) and word not in FINISHED:
        raise InvalidInput(
            "since and until are about when a job finished; they go with the state "
            f"{' or '.join(FINISHED)}"
        )


def find_jobs(
    state: State,
    word: str = "",
    queue: str = "",
    task: str = "",
    after_seq: int = 0,
    limit: int = 0,
    tag: str = "",
) -> Search:
    """Returns jobs in seq order after `after_seq`, and pauses while it looks for them.

    At most `limit`, and fewer where their payloads pass `LIST_BYTES_MAX`; ask on from the last
    one's seq until nothing comes.
    Without a state word: those that are pending, in flight, dead or cancelled.  Finished jobs
    are not here: see `stories`.

    The state may change in a pause, which comes after some thousand jobs: each job is as it was
    when it was looked at, and one that has gone by then, or comes in later, may be left out.

    Raises:
        InvalidInput: There is no such state, or the limit is out of bounds.
        NotFound: No such queue.
    """
    check_listing(word, limit)
    assert word not in FINISHED, "asked of the log"
    if queue and queue not in state.queues:
        raise NotFound(f"no queue {queue}{unknown_name(queue, tuple(state.queues)[:_NEAR_MAX])}")
    limit = limit or LIST_LIMIT_MAX
    wanted = JobState[word.upper()] if word else None
    views: list[JobView] = []
    size = 0
    for rows in _slices(state, wanted, after_seq):
        if rows is None:
            yield
            continue
        likely = rows
        if queue:
            likely = [row for row in likely if row.spec.queue == queue]
        if task:
            likely = [row for row in likely if row.spec.task == task]
        if tag:
            likely = [row for row in likely if row.extra is not None and tag in row.extra.tags]
        for seen in likely:
            # Another row may stand for the job since it was seen, or none.
            row = state.jobs.get(seen.id)
            if row is not None and row.seq == seen.seq and (wanted is None or row.state == wanted):
                size += len(row.payload)
                if views and size > LIST_BYTES_MAX:
                    return views
                views.append(job_view(state, row))
                if len(views) == limit:
                    return views
    return views


def _slices(
    state: State, wanted: JobState | None, after_seq: int
) -> Iterator[Sequence[Row] | None]:
    """Yields the rows after a seq, in order, some at a time, and `None` for a pause.

    Rows of other states than the one that is wanted may be among them.
    """
    sets: dict[JobState | None, Mapping[Any, Row]] = {
        JobState.IN_FLIGHT: state.in_flight,
        JobState.DEAD: state.dead,
        JobState.CANCELLED: state.cancelled,
    }
    few = sets.get(wanted)
    if few is not None and len(few) <= SORTED_MAX:
        if len(few) > SLICE_JOBS:
            yield None
        rows = sorted(few.values(), key=_seq)
    else:
        if not after_seq:
            # The most frequent query: the first page.
            first = list(islice(state.jobs.values(), SLICE_JOBS))
            yield first
            if len(first) < SLICE_JOBS:
                return
            after_seq = first[-1].seq
        yield None
        rows = list(state.jobs.values())
    start = bisect_right(rows, after_seq, key=_seq)
    for at in range(start, len(rows), SLICE_JOBS):
        if at > start:
            yield None
        yield rows[at : at + SLICE_JOBS]


def _seq(row: Row) -> int:
    return row.seq
