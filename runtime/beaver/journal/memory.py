"""A journal in memory: for tests, measurements, and whatever need not outlive its process.

Several journals may be open on one `MemoryLog`, as several servers on a replicated log: the
first one to append at a position gets the place, and the others are deposed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from beaver.errors import Corruption, StorageFailed
from beaver.journal.codec import decode_commit, decode_stamped
from beaver.journal.port import (
    Appended,
    Commit,
    Deposed,
    Done,
    Failed,
    Log,
    Position,
)
from beaver.structs.recovery import RecoveryReport

ROOM_BYTES: Final = 1 << 40
"""Effectively no bound: whoever fills a journal in memory bounds it."""

COMMIT_BYTES_MAX: Final = 8 << 20


class MemoryLog:
    """What several journals share: payloads, each with the seq of its first event."""

    def __init__(self, store: bytes = bytes(16), *, is_stamped: bool = False) -> None:
        self.store = store
        self.is_stamped = is_stamped
        self.commits: list[tuple[int, bytes]] = []
        self.next_seq = 1

    def add(self, payload: bytes, count: int) -> None:
        """Adds a commit at the end."""
        self.commits.append((self.next_seq, payload))
        self.next_seq += count

    def read(self, after: Position | None) -> Iterator[Commit]:
        """See `port.Log`; a position is how many commits stand before it."""
        decode = decode_stamped if self.is_stamped else decode_commit
        index = after[0] if after else 0
        if index > len(self.commits):
            reason = f"the journal ends with commit {len(self.commits)}, and {index} were known"
            raise Corruption("the journal", index, 0, reason)
        while index < len(self.commits):
            first_seq, payload = self.commits[index]
            index += 1
            time_ms, events, *stamp = decode(payload)
            yield Commit((index,), None if stamp else first_seq, time_ms, events, *stamp)

    def check_beginning(self, damaged: Corruption | None) -> None:
        """Nothing was ever dropped."""

    def illegal(self, commit: Commit, seq: int, reason: str) -> Corruption:
        """See `port.Log`."""
        return Corruption("the journal", commit.position[0] - 1, seq, reason)


class MemoryJournal:
    """The `port.Journal` of one writer, and its `port.Owned`."""

    commit_bytes_max = COMMIT_BYTES_MAX
    commit_path = "memory"
    segments = None

    def __init__(self, log: MemoryLog | None = None) -> None:
        """Opens a log at its end; a new one by default."""
        self.report = RecoveryReport()
        self.log = log or MemoryLog()
        self.position: Position = (len(self.log.commits),)
        self._closed = False

    @property
    def store(self) -> bytes:
        """Id of the store."""
        return self.log.store

    @property
    def lineage(self) -> bytes:
        """See `port.Log`."""
        return self.log.store

    @property
    def is_stamped(self) -> bool:
        """See `port.Journal`."""
        return self.log.is_stamped

    def read(self, after: Position | None) -> Iterator[Commit]:
        """See `port.Log`."""
        return self.log.read(after)

    def check_beginning(self, damaged: Corruption | None) -> None:
        """See `port.Log`."""

    def illegal(self, commit: Commit, seq: int, reason: str) -> Corruption:
        """See `port.Log`."""
        return self.log.illegal(commit, seq, reason)

    def resume(self, earlier: Log) -> bool:
        """See `port.Owned`: commits are never changed."""
        return isinstance(earlier, MemoryJournal) and earlier.log is self.log

    def begin(self, after: Position | None) -> MemoryJournal:
        """See `port.Owned`."""
        self.position = after or (0,)
        return self

    def append(self, after: Position, payload: bytes, count: int, done: Done) -> None:
        """See `port.Journal`; `done` is called at once."""
        assert count > 0, "a commit has events"
        log = self.log
        if self._closed:
            done(Failed(StorageFailed("the journal is closed")))
        elif after != (len(log.commits),):
            done(Deposed("another writer has appended"))
        else:
            log.add(payload, count)
            self.position = (len(log.commits),)
            done(Appended(self.position, len(payload), 0.0))

    def wait(self) -> None:
        """Nothing is ever under way."""

    def reserve(self, size: int) -> int:
        """There is always room."""
        return max(size, ROOM_BYTES)

    def idle(self) -> None:
        """Nothing can be made safer."""

    def check(self) -> None:
        """Nobody can take it away."""

    def close(self) -> None:
        """See `port.Journal`."""
        self._closed = True

    def abandon(self) -> None:
        """See `port.Journal`."""
        self._closed = True
