"""Sorting the rows of a whole state into the places where they wait, for recovery.

`State.put` enters one row; a million calls of it take most of a second.  So recovery leaves
the indexes alone (`State.defer_indexes`), and `State.index` enters at the end what `gather`
has sorted here, place by place.  What may not live here: the indexes, which are the state's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final, NamedTuple

from beaver_model.rows import Row, Spec
from beaver_model.states import JobState

_PENDING: Final = JobState.PENDING
_ready_ms: Final = attrgetter("ready_ms")


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
