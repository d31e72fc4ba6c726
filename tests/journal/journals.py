"""Every implementation of the Journal port, opened and opened again, for what runs over all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from beaver.journal.codec import encode_commit
from beaver.journal.memory import MemoryJournal, MemoryLog
from beaver.journal.port import OVERHEAD_BYTES, AppendOutcome, Commit, Journal, Position, Stamp
from beaver.journal.wal.commit_path import CommitPath
from beaver_chaos.sim.disk import SimDisk
from beaver_model.events import AnyEvent
from tests.journal.remote import Network, RemoteJournal, Stream
from tests.stateful.played import PlayedWriter
from tests.worlds.journal import open_sim

EXTEND_BYTES = 1 << 12
"""Growth of a log on disk: a few commits."""


class Journals(ABC):
    """One kind of journal: where it is kept, and whoever writes to it now."""

    journal: Journal

    def __init__(self) -> None:
        self.number = 0
        self.open()

    @abstractmethod
    def open(self) -> None:
        """Opens a journal at its end, where it is kept; the former one is given up."""

    @abstractmethod
    def rival(self, events: Sequence[AnyEvent]) -> None:
        """Another writer appends a commit at the end, behind this one's back."""

    def payload(self, events: Sequence[AnyEvent], writer: str = "me") -> bytes:
        """Encodes a commit of a writer; no two are the same bytes in a stamped journal."""
        self.number += 1
        stamp = Stamp(1, writer, self.number) if self.journal.is_stamped else None
        return encode_commit(self.number, events, stamp)

    def start(
        self, events: Sequence[AnyEvent], after: Position | None = None
    ) -> list[AppendOutcome]:
        """Appends a commit; the list gets its outcome, perhaps later."""
        journal, outcomes = self.journal, list[AppendOutcome]()
        payload = self.payload(events)
        assert journal.reserve(len(payload) + OVERHEAD_BYTES)
        journal.append(after or journal.position, payload, len(events), outcomes.append)
        return outcomes

    def append(self, events: Sequence[AnyEvent], after: Position | None = None) -> AppendOutcome:
        """Appends a commit and returns what became of it."""
        outcomes = self.start(events, after)
        self.journal.wait()
        (outcome,) = outcomes
        return outcome

    def commits(self, after: Position | None = None) -> list[Commit]:
        return list(self.journal.read(after))

    def events(self, after: Position | None = None) -> list[tuple[int, list[AnyEvent]]]:
        """Returns what the commits behind a place say."""
        return [(commit.time_ms, list(commit.events)) for commit in self.commits(after)]


class InMemory(Journals):
    is_stamped = False

    def __init__(self) -> None:
        self.log = MemoryLog(is_stamped=self.is_stamped)
        super().__init__()

    def open(self) -> None:
        self.journal = MemoryJournal(self.log)

    def rival(self, events: Sequence[AnyEvent]) -> None:
        self.log.add(self.payload(events, "rival"), len(events))


class InMemoryStamped(InMemory):
    is_stamped = True


class OnDisk(Journals):
    """The WAL; commits are written on the loop."""

    way = "inline"

    def __init__(self) -> None:
        self.disk = SimDisk("data")
        super().__init__()

    def open(self) -> None:
        self.disk.kill()
        self.writer = PlayedWriter()
        commits = CommitPath(lambda _: self.writer, self.way)
        self.journal = open_sim(self.disk, extend_bytes=EXTEND_BYTES, commits=commits).journal

    def rival(self, events: Sequence[AnyEvent]) -> None:
        """Through the same log: whoever appends at the former place is late all the same."""
        self.append(events)


class BesideTheLoop(OnDisk):
    """The WAL; commits are written by a writer process."""

    way = "writer"


class Remote(Journals):
    """Kept by a cluster, whose network a test may disturb."""

    def __init__(self) -> None:
        self.stream, self.network = Stream(), Network()
        super().__init__()

    def open(self) -> None:
        if hasattr(self, "journal"):
            self.journal.abandon()
        self.journal: RemoteJournal = RemoteJournal(self.stream, self.network)

    def rival(self, events: Sequence[AnyEvent]) -> None:
        self.stream.committed.append(self.payload(events, "rival"))


KINDS = (InMemory, InMemoryStamped, OnDisk, BesideTheLoop, Remote)
