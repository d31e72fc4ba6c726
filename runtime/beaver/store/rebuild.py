"""Rebuilds the state of a journal from a snapshot on, and follows the journal as it grows.

A server rebuilds its state with a `Replica` before it leads; one that follows another's log
keeps calling `catch_up`.  What may not live here: files, and repairs; they are the journal's.

In a journal with stamps a commit may turn up behind the BOOT of its writer's successor: its
writer was deposed and did not know.  Such a commit **does not count**:

1. A BOOT counts where its epoch is newer than the state's.
2. Any other commit counts where its stamp follows the last one that did: the same epoch and
   writer, and the next number.
3. What does not count is dropped, by every reader alike, with an alarm: nobody was told that it
   is durable, since its writer hears of the other commit in its place.

In any other journal such a commit is illegal, and that is corruption.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from beaver.journal.port import Commit, Journal, Log, Owned, Position, Stamp
from beaver.snapshot.port import Snapshot, Snapshots
from beaver.structs.recovery import RecoveryReport
from beaver_model import IllegalEvent, State, build_indexes, replay
from beaver_model.events import Booted
from beaver_model.legality import refuse_left_in_flight

_log: Final = logging.getLogger("beaver")
J = TypeVar("J", bound=Journal)


class Replica:
    """A state that follows a journal."""

    def __init__(
        self, journal: Log, snapshots: Snapshots, report: RecoveryReport | None = None
    ) -> None:
        """Begins with the newest snapshot, or with nothing; `catch_up` does the rest.

        Raises:
            Corruption: The snapshot is another store's, or missing where one is needed.
            NewerFormat: It is of a newer version.
        """
        self.journal = journal
        base = snapshots.load(journal.store, report or RecoveryReport())
        if base is None:
            journal.check_beginning(snapshots.damaged)
            base = Snapshot(State(), ())
            base.state.defer_indexes()
        self.state = base.state
        self.position: Position | None = base.position or None
        """The place up to which the journal is in the state."""
        self.stamp: Stamp | None = base.stamp
        """Stamp of the last valid commit, if the journal has stamps."""
        self.voided = 0
        """Commits that did not count."""
        self._last: Commit | None = None

    def follow(self, journal: Log) -> None:
        """Reads on in another journal, which holds all that was read of the former one."""
        self.journal = journal
        self.catch_up()

    def catch_up(self) -> int:
        """Reads on to the end of the journal; returns how many events were applied.

        Raises:
            Corruption: The journal is damaged, or does not fit the state.
            NewerFormat: It holds something of a newer version.
        """
        state, before = self.state, self.state.last_seq
        for commit in self.journal.read(self.position):
            if commit.stamp is not None and not self._counts(commit):
                self._void(commit)
                continue
            self._last = commit
            self.position, first_seq, time_ms, events, _ = commit
            first_seq = first_seq or state.last_seq + 1
            if first_seq + len(events) - 1 > state.last_seq:
                try:
                    replay(state, first_seq, time_ms, events)
                except IllegalEvent as error:
                    raise self.journal.illegal(commit, error.seq, str(error)) from error
        return state.last_seq - before

    def index(self) -> None:
        """Builds the indexes, with which an attempt that has outlived a BOOT shows.

        Raises:
            Corruption: There is one.
        """
        build_indexes(self.state)
        try:
            refuse_left_in_flight(self.state)
        except IllegalEvent as error:
            assert self._last is not None, "the BOOT was read"
            raise self.journal.illegal(self._last, error.seq, str(error)) from error

    def _counts(self, commit: Commit) -> bool:
        """True where a commit is its writer's to make; see the rules above."""
        stamp, first, last = commit.stamp, commit.events[0], self.stamp
        assert stamp is not None, "asked of a commit with a stamp"
        if isinstance(first, Booted):
            own = stamp == (first.epoch, first.writer, 1)
            if not own or first.epoch <= self.state.epoch:
                return False
        elif last is None or stamp != last._replace(number=last.number + 1):
            return False
        self.stamp = stamp
        return True

    def _void(self, commit: Commit) -> None:
        self.voided += 1
        self.position = commit.position
        _log.error(
            "a commit of %s in epoch %d does not count, since epoch %d of %s has begun: it was "
            "deposed, and nobody was told that these %d events are durable",
            commit.stamp.writer if commit.stamp else "",
            commit.stamp.epoch if commit.stamp else 0,
            self.state.epoch,
            self.stamp.writer if self.stamp else "nobody",
            len(commit.events),
        )

    def snapshot(self) -> Snapshot:
        """Returns what is to be saved of it; reads of the state must be done before it goes on."""
        return Snapshot(self.state, self.position or (), self.stamp)


def rebuild(
    journal: Log,
    snapshots: Snapshots,
    report: RecoveryReport | None = None,
    now_ns: Callable[[], int] = lambda: 0,
) -> Replica:
    """Returns the state that snapshots and journal give, with its indexes.

    Args:
        journal: What happened.
        snapshots: What it is read on from.
        report: Gets what was found, and what each phase took.
        now_ns: Tells the time for that.

    Raises:
        Corruption: They do not give one.
        NewerFormat: A part is of a newer version.
    """
    report = report or RecoveryReport()
    # Nothing here makes cycles, and a collection over a million rows takes its time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with report.phase("load", now_ns):
            replica = Replica(journal, snapshots, report)
        with report.phase("replay", now_ns):
            report.events = replica.catch_up()
        with report.phase("index", now_ns):
            replica.index()
    finally:
        if collecting:
            gc.enable()
    return replica


class Recovered(NamedTuple, Generic[J]):
    """A state, and the journal to go on with: they agree, and all that they hold is durable."""

    state: State
    journal: J
    report: RecoveryReport


def recover(
    owned: Owned[J],
    snapshots: Snapshots,
    now_ns: Callable[[], int],
    ahead: Replica | None = None,
) -> Recovered[J]:
    """Rebuilds the state of a journal, and begins to write to it.

    Args:
        owned: The journal; given up where this raises.
        snapshots: What it is read on from.
        now_ns: Tells the time, for the report.
        ahead: Built from an earlier reading; used if that holds still.

    Raises:
        Corruption: Acknowledged data is damaged or missing.  Nothing was changed.
        NewerFormat: Something is of a newer version.  Nothing was changed.
        StoreUnavailable, StorageFailed: It cannot be read or written.
    """
    try:
        if ahead is not None and owned.resume(ahead.journal):
            replica = ahead
            replica.follow(owned)
        else:
            if ahead is not None:
                ahead.state = State()  # One state in memory is enough.
            replica = rebuild(owned, snapshots, owned.report, now_ns)
        journal = owned.begin(replica.position)
    except BaseException:
        owned.abandon()
        raise
    return Recovered(replica.state, journal, owned.report)
