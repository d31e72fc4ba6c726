"""`history.db`: where in the log the events of a job stand.

What lives here: an index of the log in SQLite, made by the helper.  What may not: anything
that a decision depends on.  The log is the authority and holds the events themselves; this
file can be deleted at any time and is built again from it.  Rows and `applied_seq` change in
one transaction, so after any crash it holds exactly the events up to `applied_seq`.

- A *block* is a few hundred events in a row of one segment, and where its bytes stand.
- A *key* is the hash of a job's id and the number of a block with events of that job.  Keys
  are kept sorted, in *runs*: each transaction adds one, and many small ones are merged into a
  larger one.  So a job costs a few bytes written in sequence, whatever its id; a look-up asks
  each run.
- Where segments are pruned, events of jobs that have not ended are *kept*: they move here.

SQLite checks no content, so each row carries a CRC over all its columns: a bit that rots on
the disk is seen when the row is read, and the index is made anew.

An id may be used again once its tombstone was evicted; it means the newest job that bears it.
What the events say is for `stories` to tell.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec

from beaver.errors import HelperFailed
from beaver.history.blocks import Block, Blocks, hash_of, numbers_in
from beaver.journal.wal.following import Commit, Cursor
from beaver_model.events import Acked, AnyEvent, Discarded, Enqueued, Event, JobEvent

SCHEMA_VERSION: Final = 4
_APPLICATION_ID: Final = 0x42454156
_TRANSACTION_EVENTS: Final = 20_000
_BUSY_SECONDS: Final = 10.0
CHUNK_KEYS: Final = 4_096
"""Keys in a row, on average."""
MERGE_RUNS: Final = 16
"""So many runs of one magnitude become one."""
RUN_KEYS_MAX: Final = 1 << 20

_SCHEMA: Final = """
CREATE TABLE meta (
    store TEXT NOT NULL, begins_seq INTEGER NOT NULL, first_seq INTEGER NOT NULL,
    applied_seq INTEGER NOT NULL, first_block INTEGER NOT NULL, next_block INTEGER NOT NULL,
    runs INTEGER NOT NULL, next_run INTEGER NOT NULL, cursor BLOB NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE blocks (
    block INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, segment INTEGER NOT NULL,
    begin INTEGER NOT NULL, end INTEGER NOT NULL, crc_before INTEGER NOT NULL,
    ends INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, keys INTEGER NOT NULL, bits INTEGER NOT NULL,
    last_block INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE keys (chunk INTEGER PRIMARY KEY, keys BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE kept (
    hash INTEGER NOT NULL, seq INTEGER NOT NULL, time_ms INTEGER NOT NULL, event BLOB NOT NULL,
    crc INTEGER NOT NULL, PRIMARY KEY (hash, seq)
) WITHOUT ROWID;
"""
_CHUNKS_MAX_BITS: Final = 20

Entry = tuple[int, int, Event]
"""Seq, time in ms, event."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_event: Final = msgspec.msgpack.Decoder(AnyEvent).decode


class HistoryUnusable(HelperFailed):
    """The file is no intact history of this store: it is to be deleted and made anew."""


class HistoryDamaged(HistoryUnusable):
    """A row or a page is not what was written."""


class _Run(NamedTuple):
    """Keys in order, in rows of those that begin with the same bits."""

    number: int
    keys: int
    bits: int
    last_block: int


class _Meta(NamedTuple):
    store: str
    begins_seq: int
    """The log was read from this seq on."""
    first_seq: int
    """Events of finished jobs are known from this seq on."""
    applied_seq: int
    first_block: int
    next_block: int
    runs: int
    next_run: int
    cursor: bytes


class History:
    """The index of one store's log, for one writer or any number of readers.

    Raises:
        HistoryUnusable: From every method, where the file is damaged, of another store or
            of another schema.  `History.create` starts anew.
        FileNotFoundError: From the constructor, where there is no file.
    """

    def __init__(self, path: str, store: bytes, *, write: bool = False) -> None:
        _refuse_links(path)
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
        try:
            with _translated():
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
            db.executescript(f"BEGIN; {_SCHEMA}")
            meta = _Meta(store.hex(), 1, 1, 0, 1, 1, 0, 1, b"")
            db.execute(_INSERT_META, _with_crc(meta))
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")
        finally:
            db.close()
        return cls(path, store, write=True)

    @classmethod
    def open_or_create(cls, path: str, store: bytes) -> Self:
        """Opens the index for writing; one that is missing or unusable is made anew."""
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
        if (application, version) != (_APPLICATION_ID, SCHEMA_VERSION):
            raise HistoryUnusable(f"{self.path} has schema {version}, not {SCHEMA_VERSION}")
        if self._meta().store != store.hex():
            raise HistoryUnusable(f"{self.path} belongs to another store")

    # -- what it holds ----------------------------------------------------------------------

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is asked inside is answered from one state of the file."""
        with _translated():
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
    def cursor(self) -> Cursor | None:
        """Where the log is to be read on."""
        meta = self._meta()
        if not meta.cursor:
            return None
        cursor = Cursor(*msgspec.msgpack.decode(meta.cursor))
        return cursor if cursor.next_seq == meta.applied_seq + 1 else None

    def _meta(self) -> _Meta:
        with _translated():
            row = self._db.execute("SELECT * FROM meta").fetchone()
            if row is None:
                raise HistoryDamaged(f"{self.path} does not say whose it is")
            return _Meta(*_checked(row))

    def _set_meta(self, meta: _Meta) -> None:
        self._db.execute("DELETE FROM meta")
        self._db.execute(_INSERT_META, _with_crc(meta))

    def blocks_of(self, job: str) -> list[Block]:
        """Returns the blocks that may hold events of a job, in order."""
        wanted = hash_of(job)
        meta = self._meta()
        numbers: set[int] = set()
        with _translated():
            runs = self._runs()
            if len(runs) != meta.runs:
                raise HistoryDamaged(f"{self.path} has lost keys")
            for run in runs:
                chunk = run.number << _CHUNKS_MAX_BITS | wanted >> (32 - run.bits)
                numbers.update(numbers_in(self._keys(chunk), wanted))
            found = (self.block(number) for number in sorted(numbers) if number >= meta.first_block)
            return [block for block in found if block is not None]

    def block(self, number: int) -> Block | None:
        """Returns one block; `None` where it was pruned meanwhile."""
        with _translated():
            row = self._db.execute("SELECT * FROM blocks WHERE block = ?", (number,)).fetchone()
            if row is not None:
                return Block(*_checked(row))
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
        with _translated():
            entries: list[Entry] = []
            for row in self._db.execute(rows, (hash_of(job),)).fetchall():
                _, seq, time_ms, raw = _checked(row)
                event = _decode_event(raw)
                if isinstance(event, JobEvent) and event.job == job:
                    entries.append((int(seq), int(time_ms), event))
            return entries

    # -- following the log ------------------------------------------------------------------

    def apply(self, commits: Iterable[Commit], cursor: Callable[[], Cursor | None]) -> int:
        """Indexes commits, skipping what is indexed already; returns `applied_seq`.

        Where events are missing before a commit, everything before it is forgotten: half a
        story would be told as a whole one.

        Args:
            commits: What follows in the log.
            cursor: Tells where their reading stands.
        """
        applied = self.applied_seq
        batch: list[Commit] = []
        size = 0
        for commit in commits:
            if commit.first_seq + len(commit.events) - 1 <= applied:
                continue
            batch.append(commit)
            size += len(commit.events)
            if size >= _TRANSACTION_EVENTS:
                applied = self._apply_batch(batch, applied, cursor())
                batch, size = [], 0
        return self._apply_batch(batch, applied, cursor()) if batch else applied

    def _apply_batch(self, batch: list[Commit], applied: int, cursor: Cursor | None) -> int:
        """Indexes a few commits in one transaction."""
        first_seq = batch[0].first_seq
        with _translated(), self._transaction():
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
            self._db.executemany(_UPSERT_BLOCK, map(_with_crc, blocks))
            applied = batch[-1].first_seq + len(batch[-1].events) - 1
            meta = meta._replace(
                applied_seq=applied,
                next_block=cutter.next_number,
                cursor=b"" if cursor is None else _encode(cursor),
            )
            meta = self._merge(self._add_run(meta, keys, cutter.next_number - 1))
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

    # -- keys ---------------------------------------------------------------------------------

    def _runs(self) -> list[_Run]:
        rows = self._db.execute("SELECT * FROM runs ORDER BY run").fetchall()
        return [_Run(*_checked(row)) for row in rows]

    def _keys(self, chunk: int) -> Sequence[int]:
        row = self._db.execute("SELECT * FROM keys WHERE chunk = ?", (chunk,)).fetchone()
        if row is None:
            raise HistoryDamaged(f"{self.path} has lost keys")
        return memoryview(_checked(row)[1]).cast("Q")

    def _add_run(self, meta: _Meta, keys: list[int], last_block: int) -> _Meta:
        if not keys:
            return meta
        run = meta.next_run
        bits = (len(keys) // CHUNK_KEYS).bit_length()
        row = _with_crc((run, len(keys), bits, last_block))
        self._db.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", row)
        begin = 0
        for part in range(1 << bits):
            end = bisect_left(keys, (part + 1) << (64 - bits), begin)
            body = array("Q", keys[begin:end]).tobytes()
            chunk = run << _CHUNKS_MAX_BITS | part
            self._db.execute("INSERT INTO keys VALUES (?, ?, ?)", _with_crc((chunk, body)))
            begin = end
        return meta._replace(runs=meta.runs + 1, next_run=run + 1)

    def _merge(self, meta: _Meta) -> _Meta:
        """Makes one run of many small ones; each key is written again a few times at most."""
        while True:
            runs = self._runs()
            magnitude = _magnitude(runs[-1].keys) if runs else 0
            same: list[_Run] = []
            for run in reversed(runs):
                if _magnitude(run.keys) > magnitude:
                    break
                same.append(run)
            if len(same) < MERGE_RUNS or sum(run.keys for run in same) > RUN_KEYS_MAX:
                return meta
            merged = array("Q")
            for run in reversed(same):
                for part in range(1 << run.bits):
                    merged.extend(self._keys(run.number << _CHUNKS_MAX_BITS | part))
                self._drop_run(run.number)
            keys = [key for key in sorted(merged) if key & 0xFFFFFFFF >= meta.first_block]
            last_block = max(run.last_block for run in same)
            meta = self._add_run(meta._replace(runs=meta.runs - len(same)), keys, last_block)

    def _drop_run(self, run: int) -> None:
        chunks = (run << _CHUNKS_MAX_BITS, (run + 1) << _CHUNKS_MAX_BITS)
        self._db.execute("DELETE FROM keys WHERE chunk >= ? AND chunk < ?", chunks)
        self._db.execute("DELETE FROM runs WHERE run = ?", (run,))

    # -- pruning ------------------------------------------------------------------------------

    def keep(self, before_seq: int, read: Callable[[Block], Iterable[Entry]]) -> None:
        """Takes over what is still to be told of events before a seq, which will be deleted.

        Jobs that completed or were discarded before are forgotten.  Those that have not ended,
        or ended later, keep their story; dead and cancelled ones can still be requeued.

        Args:
            before_seq: Where the log will begin.
            read: Reads the events of a block.
        """
        with _translated():
            # What moves here is deleted there: it has to be on the disk before.
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
                    gone = [run.number for run in self._runs() if run.last_block <= block.number]
                    for run in gone:
                        self._drop_run(run)
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
            _with_crc((hash_of(job), seq, time_ms, _encode(event)))
            for job, story in stays.items()
            for seq, time_ms, event in story
        )
        self._db.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?)", rows_kept)


_INSERT_META: Final = "INSERT INTO meta VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPSERT_BLOCK: Final = "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _magnitude(count: int) -> int:
    """Returns how large a run is, in steps of sixteen times."""
    return (count.bit_length() + 3) // 4


def _with_crc(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns a row with the CRC over its columns behind it."""
    return (*row, zlib.crc32(_encode(row)))


def _checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns a row without its CRC.

    Raises:
        HistoryDamaged: The CRC is that of another row.
    """
    *columns, crc = row
    if zlib.crc32(_encode(tuple(columns))) != crc:
        raise HistoryDamaged(f"the row of {row[0]} has been changed")
    return tuple(columns)


_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")
"""Of the files of a projection: what SQLite keeps beside it."""


def delete_history(path: str) -> None:
    """Removes an index with what SQLite keeps beside it."""
    for suffix in _SUFFIXES:
        Path(path + suffix).unlink(missing_ok=True)


def _refuse_links(path: str) -> None:
    """Checks that SQLite, which follows links and waits for FIFOs, meets regular files only.

    Raises:
        HistoryDamaged: Something else is in their place; a new one takes it.
    """
    for name in (path + suffix for suffix in _SUFFIXES):
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(name).st_mode):
                raise HistoryDamaged(f"{name} is no regular file")


_OUTSIDE: Final = ("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_NOMEM")
"""Errors that say nothing against the file."""


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turns what says that the file is damaged into `HistoryUnusable`, the rest into `OSError`."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith(_OUTSIDE):
            raise OSError(f"history.db: {error}") from error
        raise HistoryDamaged(str(error)) from error
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise HistoryDamaged(str(error)) from error
