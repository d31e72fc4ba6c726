"""`history.db`: what became of every job, projected from the log into SQLite.

What lives here: the projection and its two queries.  What may not: anything that a decision
depends on.  The archive is the authority; this file can be deleted at any time and is built
again from it.  Rows and `applied_seq` change in one transaction, so after any crash the
projection holds exactly the events up to `applied_seq`.

SQLite checks no content, so each row carries a CRC over all its columns: a bit that rots on
the disk is seen when the row is read, and the projection is made anew.

A job is known by the seq of its ENQUEUE, since an id may be used again once its tombstone
was evicted; an id means the newest job that bears it.  A job whose ENQUEUE lies before the
oldest kept segment is known by the first of its events that was seen.

One process writes (the helper), others read at the same time: SQLite's own write-ahead mode
keeps readers from waiting.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

import msgspec

from beaver.errors import HelperFailed
from beaver.listing import event_view
from beaver.projection import END_NAMES, JobRecord, advance
from beaver.views import EventView, ResultView
from beaver_model.events import Acked, AnyEvent, Cancelled, Died, Enqueued, JobEvent
from beaver_model.states import JobState

_Answer = TypeVar("_Answer")

Commit = tuple[int, int, Sequence[AnyEvent]]
"""First seq, time in ms, events: one frame of the log."""

SCHEMA_VERSION: Final = 3
_APPLICATION_ID: Final = 0x42454156
_TRANSACTION_EVENTS: Final = 20_000
_CACHED_JOBS_MAX: Final = 100_000
_BUSY_SECONDS: Final = 10.0

_SCHEMA: Final = """
CREATE TABLE meta (
    store TEXT NOT NULL, first_seq INTEGER NOT NULL, applied_seq INTEGER NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, task TEXT NOT NULL, queue TEXT NOT NULL,
    state INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL, token INTEGER NOT NULL, worker INTEGER NOT NULL,
    end_seq INTEGER NOT NULL, events INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE INDEX jobs_by_id ON jobs (id, seq);
CREATE INDEX jobs_by_end ON jobs (end_seq) WHERE end_seq > 0;
CREATE TABLE chapters (
    seq INTEGER PRIMARY KEY, job INTEGER NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL
);
CREATE INDEX later_chapters ON chapters (job) WHERE seq != job;
"""
_JOB_COLUMNS: Final = (
    "seq, id, task, queue, state, enqueued_ms, finished_ms, attempts, token, worker, end_seq, "
    "events, crc"
)
_UPSERT_JOB: Final = (
    "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (seq) DO UPDATE SET (task, queue, state, enqueued_ms, finished_ms, attempts, "
    "token, worker, end_seq, events, crc) = (excluded.task, excluded.queue, excluded.state, "
    "excluded.enqueued_ms, excluded.finished_ms, excluded.attempts, excluded.token, "
    "excluded.worker, excluded.end_seq, excluded.events, excluded.crc)"
)
_INSERT_CHAPTER: Final = "INSERT INTO chapters VALUES (?, ?, ?, ?)"
CHAPTERS: Final = (
    "SELECT seq, job, body, crc FROM chapters WHERE seq = ?1 "
    "UNION ALL SELECT seq, job, body, crc FROM chapters WHERE job = ?1 AND seq != job ORDER BY seq"
)
"""A job's story: the first chapter has the seq of the job, and the others are few."""
_ENDED: Final = "FROM jobs WHERE end_seq > 0 AND end_seq < ? AND state IN (?, ?)"
PRUNE_CHAPTERS: Final = (
    f"DELETE FROM chapters WHERE seq IN (SELECT seq {_ENDED})",  # noqa: S608 - a constant
    f"DELETE FROM chapters WHERE job IN (SELECT seq {_ENDED}) AND seq != job",  # noqa: S608
)

Entry = tuple[int, int, int, int, Any]
"""Seq, time in ms, attempt, worker, and the `JobEvent`; on disk without the id of its job."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_chapter: Final = msgspec.msgpack.Decoder(list[tuple[int, int, int, int, AnyEvent]]).decode


class HistoryUnusable(HelperFailed):
    """The file is no intact history of this store: it is to be deleted and projected anew."""


class HistoryDamaged(HistoryUnusable):
    """A row or a page is not what was written."""


class JobSummary(NamedTuple):
    """A job as the projection knows it."""

    seq: int
    id: str
    task: str
    queue: str
    state: str
    enqueued_ms: int
    finished_ms: int
    attempts: int


class History:
    """The projection of one store, for one writer or any number of readers.

    Raises:
        HistoryUnusable: From every method, where the file is damaged, of another store or
            of another schema.  `History.create` starts anew.
        FileNotFoundError: From the constructor, where there is no file.
    """

    def __init__(self, path: str, store: bytes, *, write: bool = False) -> None:
        if not Path(path).exists():
            raise FileNotFoundError(path)
        self.path = path
        self._jobs: dict[str, JobRecord] = {}
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
        """Makes an empty projection in the place of whatever stands there, and opens it."""
        delete_history(path)
        Path(path).touch(mode=0o600, exist_ok=False)
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"BEGIN; {_SCHEMA}")
            db.execute("INSERT INTO meta VALUES (?, ?, ?, ?)", _with_crc((store.hex(), 1, 0)))
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")
        finally:
            db.close()
        return cls(path, store, write=True)

    @classmethod
    def open_or_create(cls, path: str, store: bytes) -> Self:
        """Opens the projection for writing; one that is missing or unusable is made anew."""
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
        if self._meta()[0] != store.hex():
            raise HistoryUnusable(f"{self.path} belongs to another store")

    # -- what it holds ----------------------------------------------------------------------

    @property
    def applied_seq(self) -> int:
        """The last seq that is projected."""
        return int(self._meta()[2])

    @property
    def first_seq(self) -> int:
        """Events of finished jobs are kept from this seq on."""
        return int(self._meta()[1])

    def _meta(self) -> tuple[Any, ...]:
        """Returns store, first seq and last projected seq."""
        with _translated():
            row = self._db.execute("SELECT store, first_seq, applied_seq, crc FROM meta").fetchone()
            if row is None:
                raise HistoryDamaged(f"{self.path} does not say whose it is")
            return _checked(row)

    def _set_meta(self, first_seq: int, applied_seq: int) -> None:
        meta = _with_crc((self._meta()[0], first_seq, applied_seq))
        self._db.execute("UPDATE meta SET first_seq = ?, applied_seq = ?, crc = ?", meta[1:])

    def summary_of(self, job: str) -> JobSummary | None:
        """Returns what is known of the newest job with this id."""
        found = self._newest(job)
        if found is None:
            return None
        state = JobState(found.state).name.lower()
        return JobSummary(
            found.seq,
            found.id,
            found.task,
            found.queue,
            END_NAMES.get(JobState(found.state), state),
            found.enqueued_ms,
            found.finished_ms,
            found.attempts,
        )

    def events_of(self, job: str) -> list[EventView]:
        """Returns every kept event of the newest job with this id, in order."""
        found = self._newest(job)
        if found is None:
            return []
        return [
            event_view(seq, time_ms, event, attempt=attempt or None, worker=worker)
            for seq, time_ms, attempt, worker, event in self._story(found)
        ]

    def result_of(self, job: str) -> ResultView | None:
        """Returns how the newest job with this id ended; `None` where it has not, or is unknown."""
        found = self._newest(job)
        if found is None or not found.end_seq:
            return None
        ends = (entry[-1] for entry in self._story(found) if entry[0] == found.end_seq)
        event = next(ends, None)
        if event is None:
            raise HistoryDamaged(f"{self.path} has lost event {found.end_seq}")
        view = ResultView(job, END_NAMES[JobState(found.state)])
        if isinstance(event, Acked):
            view.result = msgspec.Raw(event.result)
        elif isinstance(event, Died):
            view.cause, view.error = event.cause, event.error
        elif isinstance(event, Cancelled):
            view.cause = event.cause
        return view

    def _story(self, job: JobRecord) -> list[Entry]:
        """Returns every kept event of a job, in order."""
        story: list[Entry] = []
        with _translated():
            for row in self._db.execute(CHAPTERS, (job.seq,)).fetchall():
                for seq, time_ms, attempt, worker, event in _decode_chapter(_checked(row)[2]):
                    if not isinstance(event, JobEvent):
                        raise TypeError(f"event {seq} is of no job")
                    event.job = job.id
                    story.append((seq, time_ms, attempt, worker, event))
        if len(story) != job.events or not story or story[0][0] != job.seq:
            # A row may also be missed: its key has rotted.
            raise HistoryDamaged(f"{self.path} has lost events of job {job.id}")
        return story

    def _newest(self, job: str) -> JobRecord | None:
        with _translated():
            row = self._db.execute(
                f"SELECT {_JOB_COLUMNS} FROM jobs WHERE id = ? ORDER BY seq DESC LIMIT 1",  # noqa: S608 - a constant
                (job,),
            ).fetchone()
        return None if row is None else JobRecord(*_checked(row))

    # -- projecting -------------------------------------------------------------------------

    def apply(self, commits: Iterable[Commit]) -> int:
        """Projects commits, skipping what is projected already; returns `applied_seq`.

        Where events are missing before a commit, everything before it is forgotten: half a
        story would be told as a whole one.
        """
        applied = self.applied_seq
        batch: list[Commit] = []
        size = 0
        for first_seq, time_ms, events in commits:
            if first_seq + len(events) - 1 <= applied:
                continue
            batch.append((first_seq, time_ms, events))
            size += len(events)
            if size >= _TRANSACTION_EVENTS:
                applied = self._apply_batch(batch, applied)
                batch, size = [], 0
        return self._apply_batch(batch, applied) if batch else applied

    def _apply_batch(self, batch: list[Commit], applied: int) -> int:
        """Projects a few commits in one transaction."""
        told: dict[int, tuple[JobRecord, list[Entry]]] = {}
        first_seq = batch[0][0]
        if first_seq > applied + 1:
            self._jobs.clear()
        with _translated(), self._transaction():
            if self.applied_seq != applied:
                raise HelperFailed(f"{self.path}: another process projects as well; try again")
            if first_seq > applied + 1:
                self._db.execute("DELETE FROM jobs")
                self._db.execute("DELETE FROM chapters")
                self._set_meta(first_seq, applied)
            for commit_seq, time_ms, events in batch:
                for seq, event in enumerate(events, commit_seq):
                    if seq <= applied or not isinstance(event, JobEvent):
                        continue
                    job = self._job(event, seq)
                    attempt, worker = advance(job, event, seq, time_ms)
                    job.events += 1
                    entry = (seq, time_ms, attempt, worker, event)
                    known = told.get(job.seq)
                    if known is None:
                        told[job.seq] = job, [entry]
                    else:
                        known[1].append(entry)
                applied = commit_seq + len(events) - 1
            jobs = (_with_crc(msgspec.structs.astuple(job)) for job, _ in told.values())
            self._db.executemany(_UPSERT_JOB, jobs)
            chapters = (
                _with_crc((chapter[0][0], job.seq, _encode_chapter(chapter)))
                for job, chapter in told.values()
            )
            self._db.executemany(_INSERT_CHAPTER, chapters)
            self._set_meta(self.first_seq, applied)
        self._tidy_cache()
        return applied

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._jobs.clear()
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _job(self, event: JobEvent, seq: int) -> JobRecord:
        """Returns the job of an event: a new one for ENQUEUE, else the newest of its id."""
        if not isinstance(event, Enqueued):
            job = self._jobs.get(event.job) or self._newest(event.job)
            if job is not None:
                self._jobs[event.job] = job
                return job
        job = self._jobs[event.job] = JobRecord(seq, event.job)
        return job

    def _tidy_cache(self) -> None:
        jobs = {name: job for name, job in self._jobs.items() if not job.end_seq}
        self._jobs = jobs if len(jobs) <= _CACHED_JOBS_MAX else {}

    def prune(self, before_seq: int) -> int:
        """Forgets jobs that completed or were discarded before a seq; returns how many.

        Dead and cancelled jobs can still be requeued, so their story is kept as long as they
        are.
        """
        with _translated(), self._transaction():
            ended = (before_seq, JobState.COMPLETED, JobState.FORGOTTEN)
            for statement in PRUNE_CHAPTERS:
                self._db.execute(statement, ended)
            count = self._db.execute(f"DELETE {_ENDED}", ended).rowcount
            self._set_meta(max(self.first_seq, before_seq), self.applied_seq)
        return count


class HistoryReader:
    """The projection as a server reads it: another process writes it, and may replace it.

    What is missing or unusable reads as empty; the writer will make it anew.
    """

    def __init__(self, path: str, store: bytes) -> None:
        self._path, self._store = path, store
        self._history: History | None = None
        self._inode = 0
        self.damaged = False
        """An answer was empty because the file is damaged: drop it, and have it made anew."""

    @property
    def applied_seq(self) -> int:
        return self._ask(lambda history: history.applied_seq, 0)

    @property
    def first_seq(self) -> int:
        return self._ask(lambda history: history.first_seq, 1)

    def events_of(self, job: str) -> list[EventView]:
        return self._ask(lambda history: history.events_of(job), [])

    def result_of(self, job: str) -> ResultView | None:
        return self._ask(lambda history: history.result_of(job), None)

    def close(self) -> None:
        if self._history is not None:
            self._history.close()
        self._history, self._inode = None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, question: Callable[[History], _Answer], otherwise: _Answer) -> _Answer:
        try:
            inode = Path(self._path).stat().st_ino
            if self._history is None or inode != self._inode:
                self.close()
                self._history, self._inode = History(self._path, self._store), inode
            return question(self._history)
        except (HistoryUnusable, OSError) as error:
            self.damaged = isinstance(error, HistoryDamaged)
            self.close()
            return otherwise


def _encode_chapter(chapter: list[Entry]) -> bytes:
    """Returns the events of one job as they are stored: its id would stand in each of them."""
    job = chapter[0][-1].job
    for entry in chapter:
        entry[-1].job = ""
    body = _encode(chapter)
    for entry in chapter:
        entry[-1].job = job
    return body


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


def delete_history(path: str) -> None:
    """Removes a projection with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(path + suffix).unlink(missing_ok=True)


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
