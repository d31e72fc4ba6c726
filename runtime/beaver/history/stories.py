"""Stories: the events of jobs, found by the index as far as that reaches, else by reading the log.

What lives here: the events of a job, and lists of finished jobs, for the helper and for
readers without a server.  What may not: a write, or a wait.  What the index does not hold yet
is the end of the log, which is looked through for as many bytes as `TAIL_BYTES_MAX`; whoever
is told something is told up to which seq it goes.

Nothing here depends on the index being there: without it, all of the log is its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from beaver.errors import Corruption, StoreUnavailable
from beaver.history.block_reader import BlockReader
from beaver.history.blocks import Block, Blocks, hash_of, numbers_in
from beaver.history.database import Entry, History
from beaver.history.projection import JobRecord, advance
from beaver.history.rows import HistoryDamaged, HistoryUnusable
from beaver.inspect import queries
from beaver.inspect.listing import event_view
from beaver.journal.port import Position
from beaver.journal.wal.following import Follower, FramedCommit
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import segments
from beaver.ports import Disk
from beaver.structs.questions import Known, Listed, Search, Stories
from beaver.structs.views import EventView, JobView
from beaver_model.events import JOB_EVENTS, Acked, Discarded, Enqueued, JobEvent

TAIL_BYTES_MAX: Final = 1 << 30
"""Bytes of the log after the index that are scanned for one answer: a few seconds."""
SEARCHED_ENDS: Final = 20_000
"""Ended jobs that one step of a search looks at."""
LIST_BYTES_MAX: Final = 8 << 20
_NEEDLES_MAX: Final = 8
"""Ids up to which a payload is searched for them before it is decoded."""
_ATTEMPTS: Final = 5
NO_END: Final = 1 << 62

_NOTHING: Final = msgspec.Raw(b"[]")

_T = TypeVar("_T")


class Story(NamedTuple):
    """The events of a job from one ENQUEUE to the next, as far as they are kept."""

    record: JobRecord
    events: list[EventView]


def tell(
    disk: Disk,
    layout: Layout,
    known: Sequence[Known],
    until_seq: int = NO_END,
    *,
    tail_bytes: int = TAIL_BYTES_MAX,
) -> Stories:
    """Returns every kept event of the newest job with each of these ids, in order.

    Args:
        disk: Where the store lies.
        layout: Its files.
        known: The jobs; those that are unknown have no events.
        until_seq: A seq that is durable; later events may be told as well.
        tail_bytes: Bound on the part of the log that is read without an index.

    Raises:
        Corruption: The log is damaged.
    """

    def ask(past: _Past) -> Stories:
        found = {job.job: past.indexed(job) for job in known}
        open_jobs = {job.job for job in known if not _is_whole(job, found[job.job])}
        as_of_seq = past.until_seq
        if open_jobs:
            as_of_seq = past.search_tail({job: found[job] for job in open_jobs}, tail_bytes)
        by_job = {job: last_life(job, entries).events for job, entries in found.items()}
        return Stories(by_job, as_of_seq, past.first_seq, past.damaged)

    return _asked(disk, layout, until_seq, ask)


def indexed_story(
    disk: Disk, layout: Layout, job: str, before_seq: int, seen_from_seq: int
) -> JobRecord:
    """Returns what a job was before one of its events.

    Args:
        disk: Where the store lies.
        layout: Its files.
        job: Its id.
        before_seq: The seq of that event.
        seen_from_seq: Between this seq and that event the job had no other.

    Returns:
        Its record; an empty one where not all of its events could be found.
    """

    def ask(past: _Past) -> JobRecord:
        whole = past.indexed_seq >= seen_from_seq
        entries = [e for e in past.indexed(Known(job)) if e[0] < before_seq] if whole else []
        return last_life(job, entries).record

    return _asked(disk, layout, before_seq - 1, ask)


def find_finished(
    disk: Disk, layout: Layout, search: Search, until_seq: int = NO_END
) -> tuple[list[JobView], Listed]:
    """Takes a step of a search for jobs that ended in one way.

    Returns:
        What was found, and what is said of it.

    Raises:
        Corruption: The log is damaged.
    """
    return _asked(disk, layout, until_seq, lambda past: _Finder(past, search).step())


def _asked(disk: Disk, layout: Layout, until_seq: int, ask: Callable[[_Past], _T]) -> _T:
    damaged = False
    for _ in range(_ATTEMPTS):
        try:
            with contextlib.closing(_Past(disk, layout, until_seq, ignored=damaged)) as past:
                return ask(past)
        except FileNotFoundError:
            continue  # A segment went while it was to be read.
        except HistoryDamaged:
            damaged = True
    raise StoreUnavailable(
        f"the files of {layout.path} changed {_ATTEMPTS} times while they were read; try again"
    )


def _is_whole(known: Known, entries: Sequence[Entry]) -> bool:
    """True where a job that has ended was found to its end."""
    return (
        known.ended
        and bool(entries)
        and isinstance(entries[-1][2], Acked | Discarded)
        and any(seq == known.seq for seq, _, _ in entries)
    )


# -- the index and the rest of the log ----------------------------------------------------------


class _Past:
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
        self._disk, self._layout = disk, layout
        self.damaged = ignored
        self.reader = BlockReader(disk, layout)
        self._open_files = contextlib.ExitStack()
        self._open_files.callback(self.reader.close)
        infos = segments(disk, layout)
        self.index = None if ignored or not infos else self._open(infos[0].header.store)
        self._log_seq = self.first_seq = infos[0].first_seq if infos else 1
        self.indexed_seq = self.first_seq - 1
        self._position: Position | None = None
        if self.index is not None:
            self.indexed_seq = max(self.indexed_seq, self.index.applied_seq)
            self.first_seq = max(self.first_seq, self.index.first_seq)
            self._position = self.index.position
        self.until_seq = max(until_seq, self.indexed_seq)
        self._tail: UnindexedTail | None = None

    def _open(self, store: bytes) -> History | None:
        try:
            history = History(self._layout.history, store)
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
            infos = segments(self._disk, self._layout)
            if infos and infos[0].first_seq > self.indexed_seq + 1:
                # Indexed and pruned since.
                raise FileNotFoundError(self._layout.archived(self.indexed_seq + 1)) from None
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

        follower = Follower(self._disk, self._layout, self._position, wanted=wanted)
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
            follower = Follower(self._disk, self._layout, self._position)
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


# -- finished jobs ------------------------------------------------------------------------------


class _Finder:
    """One step of a search: through the blocks of the index, then through the rest of the log."""

    def __init__(self, past: _Past, search: Search) -> None:
        self._past, self._search = past, search
        self._kind = Acked if search.word == "completed" else Discarded
        self._found: list[Story] = []
        self._bytes = self._looked = 0
        self._come_to = search.after_seq

    def step(self) -> tuple[list[JobView], Listed]:
        past = self._past
        next_seq = 0
        if not (self._all(self._indexed_blocks()) and self._all(past.tail.blocks)):
            next_seq = self._come_to
        as_of_seq = (
            past.indexed_seq if next_seq and next_seq <= past.indexed_seq else past.tail.as_of_seq
        )
        views = [
            queries.with_history(
                JobView(
                    story.record.id, story.record.seq, "", as_of_seq=as_of_seq, waiting="finished"
                ),
                story.events,
            )
            for story in self._found
        ]
        return views, Listed(_NOTHING, len(views), next_seq, as_of_seq, past.damaged)

    def _indexed_blocks(self) -> Iterator[Block]:
        index = self._past.index
        if index is None:
            return
        from_seq = max(self._search.after_seq + 1, self._past.first_seq)
        for number in range(index.number_at(from_seq), index.next_block):
            block = index.block(number)
            if block is not None:
                yield block

    def _all(self, blocks: Iterable[Block]) -> bool:
        """Looks through blocks; False where there is enough for one step."""
        search = self._search
        for block in blocks:
            if (
                not block.ends
                or block.last_seq <= search.after_seq
                or block.last_ms < search.since_ms
                or (search.until_ms and block.first_ms >= search.until_ms)
            ):
                continue
            for seq, time_ms, event in self._past.reader.read(block):
                if type(event) is not self._kind or seq <= search.after_seq:
                    continue
                if time_ms < search.since_ms or (search.until_ms and time_ms >= search.until_ms):
                    continue
                assert isinstance(event, JobEvent), "an end of a job"
                if not self._take(self._past.story_of(event.job, seq, block), seq):
                    return False
        return True

    def _take(self, story: Story, seq: int) -> bool:
        """Adds a story if it is wanted; False where there is enough."""
        search, record = self._search, story.record
        self._looked += 1
        if (
            (not search.queue or record.queue == search.queue)
            and (not search.task or record.task == search.task)
            and (not search.tag or search.tag in (story.events[0].tags or ()))
        ):
            self._bytes += sum(len(bytes(e.payload)) + len(bytes(e.result)) for e in story.events)
            if self._found and self._bytes > LIST_BYTES_MAX:
                return False
            self._found.append(story)
        self._come_to = seq
        return len(self._found) < search.limit and self._looked < SEARCHED_ENDS
