"""Contents: check values over everything that a state holds, to compare two states whole.

What lives here: `contents_of` reads a whole state and may be slow; `glance_at` gives
what a server's event loop can compute of its own state at once.  Both read the rows directly,
every field of them, and not through `freezing`: so they notice a field that `freeze`, and
with it a snapshot and the fingerprint, would leave out.

What may not live here: derived values, but for the counts that a glance needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from beaver_model.hashing import blake2b
from beaver_model.rows import Row
from beaver_model.state import Header, State

SAMPLE_EACH: Final = 50
"""Rows of each kind that a glance looks at."""
_CLIPPED_BYTES: Final = 1 << 10
"""Bytes of a payload that go into a glance, with its length."""
_RUN: Final = 1_000
"""Rows encoded together."""

_header: Final = attrgetter(*Header._fields)
_row: Final = attrgetter(*(name for name in Row.__struct_fields__ if name != "scheduled"))
"""Every field of a row but the one that only the indexes know."""
_encode: Final = msgspec.msgpack.Encoder().encode


class Part(NamedTuple):
    """One part of a state: how many values it has, and a check value over all of them."""

    values: int
    digest: str


class Contents(NamedTuple):
    """A whole state; two with equal contents are the same state."""

    header: Part
    queues: Part
    jobs: Part
    """In the order in which the state holds them."""
    tombstones: Part


def contents_of(state: State) -> Contents:
    """Returns the contents of a state: a million jobs take about a second."""
    header = _header(state)
    buried = (
        (job, time_ms, state.tombstones[job])
        for job, time_ms in zip(state.tombstone_ids, state.tombstone_times, strict=True)
    )
    return Contents(
        _part(len(header), header),
        _queues(state),
        _part(len(state.jobs), ((job, _row(row)) for job, row in state.jobs.items())),
        _part(len(state.tombstones), buried),
    )


def _queues(state: State) -> Part:
    queues = sorted(state.queues.items())
    return _part(len(queues), ((name, queue.row) for name, queue in queues))


def _part(count: int, values: Iterable[Any]) -> Part:
    digest, values = blake2b(digest_size=16), iter(values)
    while run := list(islice(values, _RUN)):
        digest.update(_encode(run))
    return Part(count, digest.hexdigest())


def difference(wanted: Contents, found: Contents) -> str:
    """Returns the first part in which two states differ; empty if they are the same."""
    for name, ours, theirs in zip(Contents._fields, wanted, found, strict=True):
        if ours.values != theirs.values:
            return f"{theirs.values} {name} instead of {ours.values}"
        if ours.digest != theirs.digest:
            return f"other {name}: {theirs.digest} instead of {ours.digest}"
    return ""


# -- at a glance ----------------------------------------------------------------------------


class Glance(msgspec.Struct, array_like=True):
    """What a state shows without reading every row."""

    last_seq: int
    figures: dict[str, int]
    """Counts, and sums over all rows; the `ledger` is over seq, state, attempt and token."""
    queues: Part
    rows: dict[str, str]
    """A check value over every field of some rows, by job."""
    tombstones: dict[str, bytes]
    """The last ones."""


def glance_at(state: State) -> Glance:
    """Returns a glance at a state whose indexes stand; it takes a millisecond or two."""
    rows = {row.id: _of_row(row) for row in _sample(state)}
    last = islice(reversed(state.tombstone_ids), SAMPLE_EACH)
    tombstones = {job: state.tombstones[job] for job in last}
    return Glance(state.last_seq, _figures(state), _queues(state), rows, tombstones)


def _figures(state: State) -> dict[str, int]:
    return {
        **dict(zip(Header._fields, _header(state), strict=True)),
        "ledger": state.ledger,
        "bytes": state.bytes,
        "jobs": len(state.jobs),
        "in_flight": len(state.in_flight),
        "dead": len(state.dead),
        "cancelled": len(state.cancelled),
        "suspects_in_flight": state.suspects_in_flight,
        "tombstones": len(state.tombstones),
    }


def _sample(state: State) -> Iterator[Row]:
    jobs = state.jobs
    yield from islice(jobs.values(), SAMPLE_EACH)
    yield from islice(reversed(jobs.values()), SAMPLE_EACH)
    for rows in (state.in_flight, state.dead, state.cancelled):
        yield from islice(rows.values(), SAMPLE_EACH)
    for _, _, row in state.scheduled[:SAMPLE_EACH]:
        if jobs.get(row.id) is row:  # else it is a husk
            yield row


def _of_row(row: Row) -> str:
    content = row.content
    if len(content) > _CLIPPED_BYTES:
        row = msgspec.structs.replace(row, content=content[:_CLIPPED_BYTES])
    return blake2b(_encode((len(content), _row(row))), digest_size=8).hexdigest()


def difference_at_a_glance(state: State, seen: Glance) -> str:
    """Returns what a glance claims that a state does not have; empty if all of it holds."""
    for name, value in _figures(state).items():
        if seen.figures.get(name) != value:
            return f"{name} is {value}, and was seen as {seen.figures.get(name)}"
    if _queues(state) != seen.queues:
        return "a queue has other settings or counts"
    for job, digest in seen.rows.items():
        row = state.jobs.get(job)
        if row is None or _of_row(row) != digest:
            return f"job {job} differs"
    for job, tombstone in seen.tombstones.items():
        if state.tombstones.get(job) != tombstone:
            return f"the tombstone of job {job} differs"
    return ""
