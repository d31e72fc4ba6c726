"""The explorer's row of a job: the model's row with its numbers compressed by rank.

The model compares seqs, tokens and times, but never looks at their values.  So a seq becomes
the job's place, a token its rank among the tokens of its job that somebody still knows (a
*label*), and a time becomes "has come" or "has not".  Without that the space is infinite.

What may not live here: the model itself (`space`), and the world around it (`rules`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from beaver_model import State
from beaver_model.bounds import DIGEST_BYTES, REMOTE_WORKERS_FROM
from beaver_model.freezing import JobTuple
from beaver_model.rows import Extra, Spec, encode_spec, pack_tombstone
from beaver_model.state import Header
from beaver_model.states import JobState

NEW: Final = int(JobState.NEW)
PENDING: Final = int(JobState.PENDING)
IN_FLIGHT: Final = int(JobState.IN_FLIGHT)
COMPLETED: Final = int(JobState.COMPLETED)
DEAD: Final = int(JobState.DEAD)
CANCELLED: Final = int(JobState.CANCELLED)
FORGOTTEN: Final = int(JobState.FORGOTTEN)
LIVE: Final = frozenset({PENDING, IN_FLIGHT, DEAD, CANCELLED})
"""States in which a job has a row."""

NAMES: Final = "abcdefghijklmnop"
"""Ids of the jobs, by place."""
QUEUE: Final = "default"
SECOND: Final = "second"
SAME: Final = b"s" * DIGEST_BYTES
OTHER: Final = b"o" * DIGEST_BYTES
"""Digests of a request, and of another one with the same id."""
NOW_MS: Final = 1_000_000
LATER_MS: Final = NOW_MS + 1_000
LAST_SEQ: Final = 1_000_000
"""Last seq of every state that the explorer thaws: above all tokens."""
BACKOFF_MS: Final = 1 << 30


class JobRow(NamedTuple):
    """A job as the explorer sees it; tombstones are `COMPLETED` or `FORGOTTEN` (discarded)."""

    state: int = NEW
    attempt: int = 0
    label: int = 0
    """Rank of the token in flight, else 0."""
    waiting: bool = False
    """Its time has not come."""
    cancel: bool = False
    suspect: bool = False
    generation: int = 0
    snoozes: int = 0
    second: bool = False
    """It is in the second queue."""


ABSENT: Final = JobRow()


class Model(NamedTuple):
    """The state of the queue as the explorer sees it."""

    rows: tuple[JobRow, ...]
    paused: bool
    buried: tuple[int, ...]
    """Places of the tombstones, oldest first; sorted where none is ever evicted."""


def job_spec(attempts: int, queue: str = QUEUE) -> Spec:
    """Returns the options of every job of a scope, in one queue."""
    return Spec(
        task="t",
        queue=queue,
        max_attempts=attempts,
        backoff_kind=0,
        backoff_base_ms=BACKOFF_MS,
        backoff_max_ms=BACKOFF_MS,
        # All the way from 0 to twice the base, so that jobs become ready in any order.
        backoff_jitter=1.0,
    )


def token_of(job: int, label: int) -> int:
    """Returns the token that a label stands for while a state is thawed."""
    return len(NAMES) + label * len(NAMES) + job


def queues_of(*, paused: bool, second: bool) -> list[Any]:
    """Returns the queues of a scope, for `thaw`; the second has another weight."""
    return [(QUEUE, paused, 10, 0, 0, 0), *([(SECOND, False, 30, 0, 0, 0)] if second else ())]


def concrete(
    model: Model, spec: Spec, tombstones_max: int, *, second: bool = False, remote: bool = False
) -> tuple[Header, list[Any], list[JobTuple], list[Any]]:
    """Returns the arguments of `thaw` for a state as the explorer sees it."""
    raws = [encode_spec(msgspec.structs.replace(spec, queue=queue)) for queue in (QUEUE, SECOND)]
    jobs: list[JobTuple] = []
    worker = REMOTE_WORKERS_FROM if remote else 1
    for place, row in enumerate(model.rows):
        if row.state in LIVE:
            extra = (row.generation, row.snoozes, row.cancel, row.suspect, "", "", "", ())
            jobs.append(
                (
                    place + 1,
                    NAMES[place],
                    row.state,
                    row.attempt,
                    token_of(place, row.label) if row.label else 0,
                    worker if row.label else 0,
                    LATER_MS if row.waiting else NOW_MS - len(NAMES) + place,
                    raws[row.second],
                    b"null",
                    SAME,
                    extra if any(extra) else None,
                )
            )
    tombstones = [
        (NAMES[place], NOW_MS, pack_tombstone(place + 1, _outcome(model.rows[place]), SAME))
        for place in model.buried
    ]
    queues = queues_of(paused=model.paused, second=second)
    return Header(LAST_SEQ, NOW_MS, 1, tombstones_max, 0), queues, jobs, tombstones


def _outcome(row: JobRow) -> JobState:
    return JobState.COMPLETED if row.state == COMPLETED else JobState.PENDING


_PLAIN: Final = Extra()


def seen_rows(state: State, jobs: int, now_ms: int, labels: dict[int, int]) -> tuple[JobRow, ...]:
    """Returns the rows of a state as the explorer sees them.

    Args:
        state: A state of the real model.
        jobs: How many jobs the scope has.
        now_ms: The time; jobs due by then are ready.
        labels: The label of each token that may be in flight.
    """
    rows: list[JobRow] = []
    for name in NAMES[:jobs]:
        row = state.jobs.get(name)
        if row is None:
            tombstone = state.tombstone(name)
            if tombstone is None:
                rows.append(ABSENT)
            elif tombstone.outcome == JobState.COMPLETED:
                rows.append(JobRow(COMPLETED))
            else:
                rows.append(JobRow(FORGOTTEN))
            continue
        extra = row.extra or _PLAIN
        rows.append(
            JobRow(
                int(row.state),
                row.attempt,
                labels[row.token] if row.token else 0,
                row.state == JobState.PENDING and row.ready_ms > now_ms,
                extra.cancel_requested,
                extra.suspect,
                extra.generation,
                extra.snoozes,
                row.spec.queue == SECOND,
            )
        )
    return tuple(rows)


def seen_buried(state: State, *, ordered: bool) -> tuple[int, ...]:
    """Returns the places of the tombstones; in their order where that decides anything."""
    places = [NAMES.index(job) for job in state.tombstone_ids]
    return tuple(places if ordered else sorted(places))


def renamed(rows: Sequence[JobRow], job: int, labels: dict[int, int]) -> tuple[JobRow, ...]:
    """Returns rows in which the labels of one job are renamed."""
    row = rows[job]
    if not row.label:
        return tuple(rows)
    return (*rows[:job], row._replace(label=labels[row.label]), *rows[job + 1 :])
