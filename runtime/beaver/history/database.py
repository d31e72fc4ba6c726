"""`history.db`: where in the log the events of a job stand.

What lives here: an index of the log in SQLite, made by the helper.  What may not: anything
that a decision depends on.  The log is the authority and holds the events themselves; this
file can be deleted at any time and is built again from it.  Rows and `applied_seq` change in
one transaction, so after any crash it holds exactly the events up to `applied_seq`.

- A *block* is a few hundred events in a row of one segment, and where its bytes stand.
- `runs` holds in which blocks a job has events.
- Where segments are pruned, events of jobs that have not ended are *kept*: they move here.

An id may be used again once its tombstone was evicted; it means the newest job that bears it.
`stories` reads the events themselves.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

from beaver.errors import HelperFailed
from beaver.history.blocks import Block, Blocks, hash_of
from beaver.history.rows import (
    APPLICATION_ID,
    INSERT_META,
    SCHEMA,
    SCHEMA_VERSION,
    UPSERT_BLOCK,
    HistoryDamaged,
    HistoryUnusable,
    Meta,
    checked,
    delete_history,
    encode,
    refuse_links,
    translated,
    with_crc,
)
from beaver.history.runs import Runs
from beaver.journal.port import Position
from beaver.journal.wal.following import FramedCommit
from beaver_model.events import Acked, AnyEvent, Discarded, Enqueued, Event, JobEvent

_TRANSACTION_EVENTS: Final = 20_000
_BUSY_SECONDS: Final = 10.0
_decode_event: Final = msgspec.msgpack.Decoder(AnyEvent).decode

Entry = tuple[int, int, Event]
"""Seq, time in ms, event."""

__decode_event: Final = msgspec.msgpack.Decoder(AnyEvent).decode


class LogIndex:
    """The index of one store's log, for one writer or any number of readers.

    Raises:
        HistoryUnusable: From every method, where the file is damaged, of another store or
            of another schema.  `LogIndex.create` starts anew.
        FileNotFoundError: From the constructor, where there is no file.
    """

    def __init__(self, path: str, store: bytes, *, write: bool = False) -> None:
        refuse_links(path)
        if not Path(path).exists():
            raise FileNotFoundError(path)
        self.path = path
        mode = "rw" if write else "ro"
        uri = f"{Path(path).absolute().as_uri()}?mode={mode}"
        self._db = sqlite3.connect(
            uri,
            uri=True,
            isolation_level=None,
            timeout=_BUSY_SECONDS,
            check_same_thread=False,
        )
        self._runs = Runs(self._db, path)
        try:
            with translated():
                self._check(store)
                self._db.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def create(cls, path: str, store: bytes) -> Self:
        """Makes an empty index in the place of whatever stands there, and opens it."""
        delete_history(path)
        Path(path).touch(mode=0o600, exist_ok=False)
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"BEGIN; {SCHEMA}")
            meta = Meta(store.hex(), 1, 1, 0, 1, 1, 0, 1, b"")
            db.execute(INSERT_META, with_crc(meta))
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")
        finally:
            db.close()
        return cls(path, store, write=True)

    @classmethod
    def open_or_create(cls, path: str, store: bytes) -> Self:
        """Opens the index for writing; a missing or unusable one is rebuilt."""
        try:
            return cls(path, store, write=True)
        except (FileNotFoundError, HistoryUnusable):
            return cls.create(path, store)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, store: bytes) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
            raise HistoryUnusable(f"{self.path} has schema {version}, not {SCHEMA_VERSION}")
        if self._meta().store != store.hex():
            raise HistoryUnusable(f"{self.path} belongs to another store")

    # -- what it holds ----------------------------------------------------------------------

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside the block see one state of the file."""
        with translated():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    @property
    def applied_seq(self) -> int:
        """The last seq that is indexed."""
        return self._meta().applied_seq

    @property
    def first_seq(self) -> int:
        """Events of finished jobs are known from this seq on."""
        return self._meta().first_seq

    @property
    def begins_seq(self) -> int:
        """The log was read from this seq on: jobs that came in later are known whole."""
        return self._meta().begins_seq

    @property
    def next_block(self) -> int:
        """Number above those of all blocks."""
        return self._meta().next_block

    @property
    def position(self) -> Position | None:
        """Where the journal is to be read on, as it has told; only it knows what that means."""
        stored = self._meta().cursor
        return tuple(msgspec.msgpack.decode(stored)) if stored else None

    def _meta(self) -> Meta:
        with translated():
            row = self._db.execute("SELECT * FROM meta").fetchone()
            if row is None:
                raise HistoryDamaged(f"{self.path} does not say whose it is")
            return Meta(*checked(row))

    def _set_meta(self, meta: Meta) -> None:
        self._db.execute("DELETE FROM meta")
        self._db.execute(INSERT_META, with_crc(meta))

    def blocks_of(self, job: str) -> list[Block]:
        """Returns the blocks that may hold events of a job, in order."""
        wanted = hash_of(job)
        meta = self._meta()
        with translated():
            numbers = self._runs.numbers_of(wanted, meta.runs)
            found = (self.block(number) for number in sorted(numbers) if number >= meta.first_block)
            return [block for block in found if block is not None]

    def block(self, number: int) -> Block | None:
        """Returns one block; `None` where it was pruned meanwhile."""
        with translated():
            row = self._db.execute("SELECT * FROM blocks WHERE block = ?", (number,)).fetchone()
            if row is not None:
                return Block(*checked(row))
        if number >= self._meta().first_block:
            raise HistoryDamaged(f"{self.path} has lost block {number}")
        return None

    def number_at(self, seq: int) -> int:
        """Returns the number of the first block that ends with or behind a seq."""
        meta = self._meta()
        low, high = meta.first_block, meta.next_block
        while low < high:
            middle = (low + high) // 2
            block = self.block(middle)
            if block is not None and block.last_seq < seq:
                low = middle + 1
            else:
                high = middle
        return low

    def kept_of(self, job: str) -> list[Entry]:
        """Returns the events of a job that were kept when their segment was pruned."""
        rows = "SELECT * FROM kept WHERE hash = ? ORDER BY seq"
        with translated():
            entries: list[Entry] = []
            for row in self._db.execute(rows, (hash_of(job),)).fetchall():
                _, seq, time_ms, raw = checked(row)
                event = _decode_event(raw)
                if isinstance(event, JobEvent) and event.job == job:
                    entries.append((int(seq), int(time_ms), event))
            return entries

    # -- following the log ------------------------------------------------------------------

    def apply(
        self, commits: Iterable[FramedCommit], position: Callable[[], Position | None]
    ) -> int:
        """Indexes commits, skipping what is indexed already; returns `applied_seq`.

        Where events are missing before a commit, everything before it is forgotten: half a
        story would be told as a whole one.

        Args:
            commits: The next commits of the log.
            position: Tells the place behind the last of them.
        """
        applied = self.applied_seq
        batch: list[FramedCommit] = []
        size = 0
        for commit in commits:
            if commit.first_seq + len(commit.events) - 1 <= applied:
                continue
            batch.append(commit)
            size += len(commit.events)
            if size >= _TRANSACTION_EVENTS:
                applied = self._apply_batch(batch, applied, position())
                batch, size = [], 0
        return self._apply_batch(batch, applied, position()) if batch else applied

    def _apply_batch(
        self, batch: list[FramedCommit], applied: int, position: Position | None
    ) -> int:
        """Indexes a few commits in one transaction."""
        first_seq = batch[0].first_seq
        with translated(), self._transaction():
            meta = self._meta()
            if meta.applied_seq != applied:
                raise HelperFailed(f"{self.path}: another process indexes as well; try again")
            if first_seq > applied + 1:
                for table in ("blocks", "runs", "keys", "kept"):
                    self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - a constant
                meta = meta._replace(
                    begins_seq=first_seq, first_seq=first_seq, first_block=meta.next_block, runs=0
                )
            last = self.block(meta.next_block - 1) if meta.next_block > meta.first_block else None
            cutter = Blocks(meta.next_block, last)
            for commit in batch:
                cutter.add(commit)
            blocks, keys = cutter.finish()
            self._db.executemany(UPSERT_BLOCK, map(with_crc, blocks))
            applied = batch[-1].first_seq + len(batch[-1].events) - 1
            meta = meta._replace(
                applied_seq=applied,
                next_block=cutter.next_number,
                cursor=b"" if position is None else encode(position),
            )
            meta = self._runs.merge(self._runs.add(meta, keys, cutter.next_number - 1))
            self._set_meta(meta)
        return applied

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # -- pruning ------------------------------------------------------------------------------

    def keep(self, before_seq: int, read: Callable[[Block], Iterable[Entry]]) -> None:
        """Takes over what is still to be told of events before a seq, which will be deleted.

        Jobs that completed or were discarded before are forgotten.  Those that have not ended,
        or ended later, keep their story; dead and cancelled ones can still be requeued.

        Args:
            before_seq: Where the log will begin.
            read: Reads the events of a block.
        """
        with translated():
            # Rows moved here are deleted there: they have to be on disk first.
            self._db.execute("PRAGMA synchronous = FULL")
            while True:
                meta = self._meta()
                block = self.block(meta.first_block) if meta.first_block < meta.next_block else None
                if block is None or block.last_seq >= before_seq:
                    break
                with self._transaction():
                    self._keep_block(block, read(block))
                    self._db.execute("DELETE FROM blocks WHERE block = ?", (block.number,))
                    first_seq = max(meta.first_seq, block.last_seq + 1)
                    gone = [run for run in self._runs.listed() if run.last_block <= block.number]
                    for run in gone:
                        self._runs.drop(run.number)
                    meta = meta._replace(
                        first_seq=first_seq,
                        first_block=block.number + 1,
                        runs=meta.runs - len(gone),
                    )
                    self._set_meta(meta)
            if meta.first_seq < before_seq:
                with self._transaction():
                    self._set_meta(self._meta()._replace(first_seq=before_seq))

    def _keep_block(self, block: Block, entries: Iterable[Entry]) -> None:
        stays: dict[str, list[Entry]] = {}
        for entry in entries:
            event = entry[2]
            if not isinstance(event, JobEvent):
                continue
            if isinstance(event, Acked | Discarded):
                # Whatever was kept of it goes, and of no other job with its hash.
                stays.pop(event.job, None)
                rows = [(hash_of(event.job), seq) for seq, _, _ in self.kept_of(event.job)]
                self._db.executemany("DELETE FROM kept WHERE hash = ? AND seq = ?", rows)
            elif isinstance(event, Enqueued):
                stays[event.job] = [entry]
            else:
                stays.setdefault(event.job, []).append(entry)
        rows_kept = (
            with_crc((hash_of(job), seq, time_ms, encode(event)))
            for job, story in stays.items()
            for seq, time_ms, event in story
        )
        self._db.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?)", rows_kept)
