"""Stories: the events of jobs, found by the index as far as that reaches, else by reading the log.

What lives here: the events of a job, and lists of finished jobs, for the helper and for
readers without a server.  What may not: a write, or a wait.  What the index does not hold yet
is the end of the log, which is looked through for as many bytes as `TAIL_BYTES_MAX`; whoever
is told something is told up to which seq it goes.

Nothing here depends on the index being there: without it, all of the log is its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from beaver.history.blocks import Block
from beaver.history.database import Entry
from beaver.history.indexed_log import (
    TAIL_BYTES_MAX,
    IndexedLog,
    Story,
    asked,
    last_life,
)
from beaver.history.projection import JobRecord
from beaver.inspect import queries
from beaver.journal.wal.layout import Layout
from beaver.ports import Disk
from beaver.structs.questions import Known, Listed, Search, Stories
from beaver.structs.views import JobView
from beaver_model.events import Acked, Discarded, JobEvent

SEARCHED_ENDS: Final = 20_000
"""Ended jobs that one step of a search looks at."""
LIST_BYTES_MAX: Final = 8 << 20
NO_END: Final = 1 << 62

_NOTHING: Final = msgspec.Raw(b"[]")


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

    def ask(past: IndexedLog) -> Stories:
        found = {job.job: past.indexed(job) for job in known}
        open_jobs = {job.job for job in known if not _is_whole(job, found[job.job])}
        as_of_seq = past.until_seq
        if open_jobs:
            as_of_seq = past.search_tail({job: found[job] for job in open_jobs}, tail_bytes)
        by_job = {job: last_life(job, entries).events for job, entries in found.items()}
        return Stories(by_job, as_of_seq, past.first_seq, past.damaged)

    return asked(disk, layout, until_seq, ask)


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

    def ask(past: IndexedLog) -> JobRecord:
        whole = past.indexed_seq >= seen_from_seq
        entries = [e for e in past.indexed(Known(job)) if e[0] < before_seq] if whole else []
        return last_life(job, entries).record

    return asked(disk, layout, before_seq - 1, ask)


def find_finished(
    disk: Disk, layout: Layout, search: Search, until_seq: int = NO_END
) -> tuple[list[JobView], Listed]:
    """Takes a step of a search for jobs that ended in one way.

    Returns:
        What was found, and what is said of it.

    Raises:
        Corruption: The log is damaged.
    """
    return asked(disk, layout, until_seq, lambda past: _Finder(past, search).step())


def _is_whole(known: Known, entries: Sequence[Entry]) -> bool:
    """True where a job that has ended was found to its end."""
    return (
        known.ended
        and bool(entries)
        and isinstance(entries[-1][2], Acked | Discarded)
        and any(seq == known.seq for seq, _, _ in entries)
    )


# -- finished jobs ------------------------------------------------------------------------------


class _Finder:
    """One step of a search: through the blocks of the index, then through the rest of the log."""

    def __init__(self, past: IndexedLog, search: Search) -> None:
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
