"""Freezing: converting a state to plain tuples and back.

`freeze` gives the rows as plain tuples; `thaw` rebuilds everything from them.  Snapshot,
explorer and index check share the pair.  The fingerprint is taken over the frozen rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from beaver_model.bulk import build_indexes
from beaver_model.hashing import blake2b
from beaver_model.rows import (
    TOMBSTONE_BYTES,
    Extra,
    QueueRow,
    Row,
    encode_spec,
    spec_of,
)
from beaver_model.state import Header, State
from beaver_model.states import JobState

_STATES: Final = tuple(JobState)
_seq: Final = attrgetter("seq")

JobTuple = tuple[int, str, int, int, int, int, int, bytes, bytes, bytes, "tuple[Any, ...] | None"]
"""A frozen row: seq, id, state, attempt, token, worker, ready_ms, spec, payload, digest, extra."""

QueueTuple = tuple[str, bool, int, int, int, int] | tuple[str, bool, int, int, int, int, bool]
"""A frozen queue: name, paused, weight, bytes_max, enqueued, completed, durable_dispatch.

The last is left out where it is true, so that a queue without it has the fingerprint that it
had in releases which did not know it."""

TombstoneTuple = tuple[str, int, bytes]
"""A frozen tombstone: id, time_ms, packed (seq, outcome, digest)."""


class Frozen(NamedTuple):
    """A whole state as plain, hashable data; jobs in seq order, queues by name."""

    header: Header
    queues: tuple[QueueTuple, ...]
    jobs: tuple[JobTuple, ...]
    tombstones: tuple[TombstoneTuple, ...]


def header(state: State) -> Header:
    """Returns the single values of a state."""
    return Header(
        state.last_seq,
        state.time_ms,
        state.epoch,
        state.tombstones_max,
        state.tombstones_age_ms,
        state.completed_elsewhere,
    )


def freeze_header(values: Header) -> tuple[int, ...]:
    """Returns the single values as plain data.

    The last is left out where it is zero, so that a state without it has the fingerprint that it
    had in releases which did not know it.
    """
    return tuple(values) if values.completed_elsewhere else tuple(values[:5])


def freeze_job(row: Row, spec: bytes = b"") -> JobTuple:
    """Returns a row as plain data; `spec` is its encoded spec, where the caller has it."""
    return (
        row.seq,
        row.id,
        int(row.state),
        row.attempt,
        row.token,
        row.worker,
        row.ready_ms,
        spec or encode_spec(row.spec),
        row.payload,
        row.digest,
        None if row.extra is None else msgspec.structs.astuple(row.extra),
    )


def thaw_job(job: JobTuple) -> Row:
    """Rebuilds a row from plain data."""
    extra = None if job[10] is None else Extra(*job[10])
    return Row(
        seq=job[0],
        id=job[1],
        ready_ms=job[6],
        spec=spec_of(job[7]),
        content=job[9] + job[8],
        state=_STATES[job[2]],
        attempt=job[3],
        token=job[4],
        worker=job[5],
        extra=extra,
    )


def freeze_queue(row: QueueRow) -> QueueTuple:
    """Returns a queue's row as plain data."""
    values: QueueTuple = msgspec.structs.astuple(row)
    return values[:6] if row.durable_dispatch else values


def frozen_queues(state: State) -> Iterator[QueueTuple]:
    """Yields the queues by name."""
    for name in sorted(state.queues):
        yield freeze_queue(state.queues[name].row)


def frozen_jobs(state: State) -> Iterator[JobTuple]:
    """Yields the jobs in seq order."""
    spec, raw = None, b""
    for row in sorted(state.jobs.values(), key=_seq):
        if row.spec is not spec:
            spec, raw = row.spec, encode_spec(row.spec)
        yield freeze_job(row, raw)


def frozen_tombstones(state: State) -> Iterator[TombstoneTuple]:
    """Yields the tombstones, oldest first."""
    for job, time_ms in zip(state.tombstone_ids, state.tombstone_times, strict=True):
        yield (job, time_ms, state.tombstones[job])


def freeze(state: State) -> Frozen:
    """Returns the state as plain, hashable data."""
    return Frozen(
        header(state),
        tuple(frozen_queues(state)),
        tuple(frozen_jobs(state)),
        tuple(frozen_tombstones(state)),
    )


def thaw(
    header: Header,
    queues: Iterable[QueueTuple],
    jobs: Iterable[JobTuple],
    tombstones: Iterable[TombstoneTuple],
    *,
    indexed: bool = True,
) -> State:
    """Rebuilds a state, indexes and all; `thaw(*freeze(state))` equals `state`.

    With `indexed` false the indexes are left to `build_indexes`, after more was replayed.
    """
    return assemble(
        header, queues, [[thaw_job(job) for job in jobs]], [list(tombstones)], indexed=indexed
    )


def assemble(
    header: Header,
    queues: Iterable[QueueTuple],
    rows: Iterable[Sequence[Row]],
    tombstones: Iterable[Sequence[TombstoneTuple]],
    *,
    indexed: bool = True,
) -> State:
    """Builds a state from its parts; rows come in seq order, and like tombstones in pieces.

    Raises:
        ValueError: Two rows or two tombstones have one id.
    """
    state = State(header)
    state.defer_indexes()
    for queue in queues:
        state.add_queue(QueueRow(*queue))
    # All first, then one dict: faster than a dict that grows between the pieces.
    every: list[Row] = []
    for piece in rows:
        every += piece
    state.jobs = {row.id: row for row in every}
    for buried in tombstones:
        for job_id, time_ms, packed in buried:
            state.tombstones[job_id] = packed
            state.tombstone_ids.append(job_id)
            state.tombstone_times.append(time_ms)
            state.bytes += TOMBSTONE_BYTES + len(job_id)
    if len(state.jobs) != len(every) or len(state.tombstones) != len(state.tombstone_ids):
        raise ValueError("two rows have one id")
    if indexed:
        build_indexes(state)
    return state


class Fingerprinter:
    """BLAKE2b over frozen parts, each a MessagePack array, in the order of `Frozen`.

    Feed it the same parts that are written to or read from a snapshot, and the fingerprint
    is taken on the way.
    """

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._encode = msgspec.msgpack.Encoder().encode

    def add(self, part: tuple[Any, ...]) -> None:
        self._hash.update(self._encode(part))

    def add_all(self, parts: Iterable[tuple[Any, ...]]) -> None:
        self._hash.update(b"".join(map(self._encode, parts)))

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def fingerprint(state: State) -> str:
    """Returns the fingerprint of a state: 32 hexadecimal digits, the same for equal rows."""
    fingerprinter = Fingerprinter()
    fingerprinter.add(freeze_header(header(state)))
    for parts in (frozen_queues(state), frozen_jobs(state), frozen_tombstones(state)):
        for part in parts:
            fingerprinter.add(part)
    return fingerprinter.hexdigest()
