"""A log with its index: what the index holds, and the rest of the log read behind it.

What lives here: one moment of both, opened for one question, and asking anew where files changed
meanwhile.  What may not: what is asked (`stories`, `endings`), a write, or a wait.

Nothing here depends on the index being there: without it, all of the log is its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

from beaver.errors import Corruption, StoreUnavailable
from beaver.history.block_reader import BlockReader
from beaver.history.blocks import Block, Blocks, hash_of, numbers_in
from beaver.history.database import Entry, LogIndex
from beaver.history.projection import JobRecord, advance
from beaver.history.rows import HistoryDamaged, HistoryUnusable
from beaver.inspect.listing import event_view
from beaver.journal.port import Position
from beaver.journal.wal.following import Follower, FramedCommit
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import segments
from beaver.ports import Disk
from beaver.structs.questions import Known
from beaver.structs.views import EventView
from beaver_model.events import JOB_EVENTS, Enqueued, JobEvent

TAIL_BYTES_MAX: Final = 1 << 30
"""Bytes of the log after the index that are scanned for one answer: a few seconds."""
_NEEDLES_MAX: Final = 8
"""Ids up to which a payload is searched for them before it is decoded."""
_ATTEMPTS: Final = 5

_T = TypeVar("_T")


class Story(NamedTuple):
    """The events of a job from one ENQUEUE to the next, as far as they are kept."""

    record: JobRecord
    events: list[EventView]


def asked(disk: Disk, layout: Layout, until_seq: int, ask: Callable[[IndexedLog], _T]) -> _T:
    """Asks one moment of log and index; anew where files changed meanwhile.

    Raises:
        Corruption: The log is damaged.
        StoreUnavailable: They never stop changing.
    """
    damaged = False
    for _ in range(_ATTEMPTS):
        try:
            with contextlib.closing(IndexedLog(disk, layout, until_seq, ignored=damaged)) as past:
                return ask(past)
        except FileNotFoundError:
            continue  # A segment went while it was to be read.
        except HistoryDamaged:
            damaged = True
    raise StoreUnavailable(
        f"the files of {layout.path} changed {_ATTEMPTS} times while they were read; try again"
    )


class IndexedLog:
    """A store's log with its index, as they are now.

    The helper may be at work meanwhile.  All reading of the index is one transaction, so that
    what it adds or moves is not seen twice, or not at all; where it deletes a segment that is
    still to be read, `FileNotFoundError` says so, and everything is asked anew.
    """

    def __init__(self, disk: Disk, layout: Layout, until_seq: int, *, ignored: bool) -> None:
        """Opens the log and its index for reading.

        Args:
            disk: Where the store lies.
            layout: Its files.
            until_seq: The last durable seq.
            ignored: The index is damaged, and to be left alone.
        """
        self.disk, self.layout = disk, layout
        self.damaged = ignored
        self.reader = BlockReader(disk, layout)
        self._open_files = contextlib.ExitStack()
        self._open_files.callback(self.reader.close)
        infos = segments(disk, layout)
        self.index = None if ignored or not infos else self._open(infos[0].header.store)
        self._log_seq = self.first_seq = infos[0].first_seq if infos else 1
        self.indexed_seq = self.first_seq - 1
        self.position: Position | None = None
        if self.index is not None:
            self.indexed_seq = max(self.indexed_seq, self.index.applied_seq)
            self.first_seq = max(self.first_seq, self.index.first_seq)
            self.position = self.index.position
        self.until_seq = max(until_seq, self.indexed_seq)
        self._tail: UnindexedTail | None = None

    def _open(self, store: bytes) -> LogIndex | None:
        try:
            history = LogIndex(self.layout.history, store)
            self._open_files.callback(history.close)
            self._open_files.enter_context(history.snapshot())
            return history
        except HistoryDamaged:
            self.damaged = True
        except (OSError, HistoryUnusable):
            # The helper will make it.  Or SQLite may not write its own files beside it, as in
            # a directory that is read-only: the log itself says the same.
            pass
        return None

    def close(self) -> None:
        self._open_files.close()

    def commits(self, follower: Follower) -> Iterator[FramedCommit]:
        """Yields what the index does not hold yet."""
        try:
            yield from follower.commits(self.indexed_seq, self.until_seq)
        except Corruption:
            infos = segments(self.disk, self.layout)
            if infos and infos[0].first_seq > self.indexed_seq + 1:
                # Indexed and pruned since.
                raise FileNotFoundError(self.layout.archived(self.indexed_seq + 1)) from None
            raise

    def indexed(self, known: Known) -> list[Entry]:
        """Returns the events of a job up to `indexed_seq`.

        Raises:
            HistoryDamaged: The state knows of events that should be there, and are not.
        """
        index, job = self.index, known.job
        if index is None or known.seq > self.indexed_seq:
            return []
        entries = index.kept_of(job)
        for block in index.blocks_of(job):
            if block.last_seq < self._log_seq:
                continue  # Its segment was deleted without the index.
            entries += self.reader.by_job(block).get(job, ())
        # One that ended before the log begins is forgotten; all others are there, from ENQUEUE on.
        told = entries or not known.ended or known.seq >= index.first_seq
        if (
            known.seq >= index.begins_seq
            and told
            and all(seq != known.seq for seq, _, _ in entries)
        ):
            raise HistoryDamaged(f"{index.path} has lost events of job {job}")
        return entries

    def search_tail(self, entries: dict[str, list[Entry]], bytes_max: int) -> int:
        """Adds the events behind the index; returns the seq up to which none is missing."""
        if self.indexed_seq >= self.until_seq:
            return self.indexed_seq
        needles = [job.encode("utf-8", "surrogatepass") for job in entries]
        few = len(needles) <= _NEEDLES_MAX
        read = 0

        def wanted(payload: bytes) -> bool:
            nonlocal read
            read += len(payload)
            return not few or any(needle in payload for needle in needles)

        follower = Follower(self.disk, self.layout, self.position, wanted=wanted)
        for commit in self.commits(follower):
            for seq, event in enumerate(commit.events, commit.first_seq):
                if isinstance(event, JobEvent) and event.job in entries:
                    entries[event.job].append((seq, commit.time_ms, event))
            if read > bytes_max:
                break
        if follower.cursor is None:
            return self.indexed_seq
        return max(self.indexed_seq, follower.cursor.next_seq - 1)

    @property
    def tail(self) -> UnindexedTail:
        """The end of the log, indexed in memory."""
        if self._tail is None:
            follower = Follower(self.disk, self.layout, self.position)
            behind = self.commits(follower) if self.until_seq > self.indexed_seq else ()
            self._tail = UnindexedTail(behind, self.indexed_seq)
        return self._tail

    def story_of(self, job: str, end_seq: int, here: Block) -> Story:
        """Returns the life of a job that ended with a seq in a block."""
        entries = [e for e in self.reader.by_job(here)[job] if e[0] <= end_seq]
        if not any(isinstance(event, Enqueued) for _, _, event in entries):
            entries = self.indexed(Known(job))
            if end_seq > self.indexed_seq:
                for block in self.tail.blocks_of(job):
                    entries += self.reader.by_job(block).get(job, ())
            entries = [e for e in entries if e[0] <= end_seq]
        return last_life(job, entries)


class UnindexedTail:
    """Blocks of what the index does not hold yet."""

    def __init__(self, commits: Iterable[FramedCommit], after_seq: int) -> None:
        cutter = Blocks(0)
        read = 0
        self.as_of_seq = after_seq
        for commit in commits:
            cutter.add(commit)
            read += commit.end - commit.offset
            self.as_of_seq = commit.first_seq + len(commit.events) - 1
            if read > TAIL_BYTES_MAX:
                break
        self.blocks, self._keys = cutter.finish()

    def blocks_of(self, job: str) -> list[Block]:
        return [self.blocks[number] for number in numbers_in(self._keys, hash_of(job))]


def last_life(job: str, entries: Iterable[Entry]) -> Story:
    """Returns the newest job among events of one id, with attempts and workers."""
    record = JobRecord(0, job)
    views: list[EventView] = []
    for seq, time_ms, event in entries:
        assert isinstance(event, JOB_EVENTS), "events of other kinds have no job"
        if isinstance(event, Enqueued) or not views:
            record, views = JobRecord(seq, job), []
        attempt, worker = advance(record, event, seq, time_ms)
        views.append(event_view(seq, time_ms, event, attempt=attempt or None, worker=worker))
    return Story(record, views)
