"""Going through the log in order, on from where the last of a few readings ended.

A follower of the log asks repeatedly for new events.  So a reader keeps a few positions, with what
it knows about the jobs there, and reads nothing twice.

What may not live here: a wait.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import msgspec

from beaver.history.projection import JobRecord, advance
from beaver.history.stories import indexed_story
from beaver.inspect.listing import event_view
from beaver.journal.port import Position
from beaver.journal.wal.following import Follower, FramedCommit
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import segments
from beaver.ports import Disk
from beaver.structs.questions import CameIn, Walked, WalkedEvent, Wanted
from beaver_model.events import Acked, Discarded, Enqueued, JobEvent
from beaver_model.rows import spec_of

PLACES_MAX: Final = 16
"""Maximum number of positions kept."""
LOOKED_MAX: Final = 100_000
"""Maximum number of events examined for one request."""
RECORDS_MAX: Final = 20_000
"""Maximum number of jobs tracked at a position; others are looked up in the index."""

_encode: Final = msgspec.json.Encoder().encode


class _Place:
    """A place in the log, and the jobs of which every event up to there was seen."""

    def __init__(self, come_to: int, position: Position | None = None) -> None:
        self.begins = come_to
        self.position = position
        self.records: OrderedDict[str, JobRecord] = OrderedDict()

    def know(self, record: JobRecord) -> None:
        self.records[record.id] = record
        if len(self.records) > RECORDS_MAX:
            self.records.popitem(last=False)


class Walker:
    """Goes through the log of one store."""

    def __init__(self, disk: Disk, layout: Layout) -> None:
        self._disk, self._layout = disk, layout
        self._places: OrderedDict[int, _Place] = OrderedDict()
        """By the seq that they have come to."""

    def events(self, after_seq: int, until_seq: int, bytes_max: int) -> Walked:
        """Returns the events behind a seq as JSON, as `beaver replay --json` gives them.

        Args:
            after_seq: Where to begin; where the log begins later, nothing is returned but
                `first_seq`.
            until_seq: A seq that is durable.
            bytes_max: So much JSON is enough; one commit may be longer.

        Raises:
            Corruption: The log is damaged.
            FileNotFoundError: A segment was pruned meanwhile: ask again.
        """
        walked = Walked([], after_seq, self._first_seq())
        size = 0
        if after_seq + 1 >= walked.first_seq:
            with self._going(after_seq, until_seq, walked) as (place, commits):
                for commit in commits:
                    views = list(self._views(place, commit, after_seq))
                    walked.events += views
                    walked.come_to = _last_seq(commit)
                    size += sum(len(bytes(view.json)) for view in views)
                    if size >= bytes_max:
                        break
        return walked

    def enqueued(self, wanted: Wanted, after_seq: int, until_seq: int, jobs_max: int) -> CameIn:
        """Returns jobs that came in behind a seq, whatever has become of them.

        Args:
            wanted: Which.
            after_seq: As for `events`.
            until_seq: A seq that is durable.
            jobs_max: So many are enough; so are `LOOKED_MAX` events.

        Raises:
            Corruption, FileNotFoundError: As `events`.
        """
        found = CameIn([], after_seq, self._first_seq())
        if after_seq + 1 < found.first_seq:
            return found
        looked = 0
        with self._going(after_seq, until_seq, found) as (_, commits):
            for commit in commits:
                for seq, event in enumerate(commit.events, commit.first_seq):
                    if seq > after_seq and isinstance(event, Enqueued):
                        if len(found.jobs) >= jobs_max:
                            return found
                        if _is_wanted(wanted, event, commit.time_ms):
                            found.jobs.append((seq, event.job))
                    found.come_to = seq
                looked += len(commit.events)
                if looked >= LOOKED_MAX:
                    break
        return found

    def _first_seq(self) -> int:
        infos = segments(self._disk, self._layout)
        return infos[0].first_seq if infos else 1

    @contextlib.contextmanager
    def _going(
        self, after_seq: int, until_seq: int, found: Walked | CameIn
    ) -> Iterator[tuple[_Place, Iterator[FramedCommit]]]:
        """Goes on from a place, and keeps the place that is come to."""
        place = self._places.pop(after_seq, None) or _Place(after_seq)
        follower = Follower(self._disk, self._layout, place.position)
        with contextlib.closing(follower.commits(after_seq, until_seq)) as commits:
            yield place, commits
        place.position = follower.cursor
        if place.position is not None and place.position.next_seq == found.come_to + 1:
            self._places[found.come_to] = place
        if len(self._places) > PLACES_MAX:
            self._places.popitem(last=False)

    def _views(self, place: _Place, commit: FramedCommit, after_seq: int) -> Iterator[WalkedEvent]:
        for seq, event in enumerate(commit.events, commit.first_seq):
            if seq <= after_seq:
                continue
            if not isinstance(event, JobEvent):
                view = event_view(seq, commit.time_ms, event)
                yield WalkedEvent(seq, view.event, "", "", msgspec.Raw(_encode(view)))
                continue
            record = place.records.get(event.job)
            if isinstance(event, Enqueued):
                record = JobRecord(seq, event.job)
                place.know(record)
            elif record is None:
                record = self._look_up(place, event.job, seq)
                place.know(record)
            attempt, worker = advance(record, event, seq, commit.time_ms)
            view = event_view(seq, commit.time_ms, event, attempt=attempt or None, worker=worker)
            if isinstance(event, Acked | Discarded):
                place.records.pop(event.job, None)
            yield WalkedEvent(seq, view.event, event.job, record.queue, msgspec.Raw(_encode(view)))

    def _look_up(self, place: _Place, job: str, before_seq: int) -> JobRecord:
        """Returns what the log tells of a job before a seq; an empty record where it cannot."""
        return indexed_story(self._disk, self._layout, job, before_seq, place.begins)


def _last_seq(commit: FramedCommit) -> int:
    return commit.first_seq + len(commit.events) - 1


def _is_wanted(wanted: Wanted, event: Enqueued, time_ms: int) -> bool:
    if time_ms < wanted.since_ms or (wanted.until_ms and time_ms >= wanted.until_ms):
        return False
    if wanted.parent and event.parent != wanted.parent:
        return False
    if wanted.tag and wanted.tag not in event.tags:
        return False
    if not (wanted.queue or wanted.task):
        return True
    spec = spec_of(event.spec)
    return (not wanted.queue or spec.queue == wanted.queue) and (
        not wanted.task or spec.task == wanted.task
    )
