"""The Journal port: a log of commits, wherever it is kept.

The engine appends to it, recovery and the helper read it.  The port has the same shape for a
local log and for one that a cluster replicates:

- A **position** is a place behind a commit.  It is no event seq: only the journal that gave it
  can tell what it means.  It can be stored, and handed back to `read` and `append`.
- **`append(after, ...)`** adds one commit behind a position, if nothing has been added there
  since.  One append is outstanding at most: with two, a rival's commit could fill the hole
  that the first one leaves, and the second land behind it.  Whoever has more to write collects
  it meanwhile, and appends it as one commit.
- `done` is called once with what became of it: **appended** (the commit is durable, and
  behind `after`), **deposed** (another writer's commit stands there, so this one will never be
  in the log), or **failed** (nobody knows; the journal is useless from here on).
- **Ownership** belongs to the journal.  It is opened in two steps: whoever has it as `Owned`
  reads it, and may refuse what it finds; only `begin` changes anything.  `check` sees that it
  is still its owner's, and `close` and `abandon` give it up.
- A journal that is kept in **segments** lets others prepare room for it (`Segments`).

How a commit becomes durable (a frame, zero-filled room, a sync on the loop or in a process of
its own; a message and its majority) is the journal's own business.

`tests/journal/test_conformance.py` runs over every implementation, and
`tests/stateful/test_agreement.py` holds them against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from beaver.errors import Corruption, LostLeadership
from beaver.structs.recovery import RecoveryReport
from beaver_model.events import AnyEvent

Position = tuple[int, ...]
"""A place behind a commit.  Plain integers, so that it can be stored; opaque otherwise."""

OVERHEAD_BYTES: Final = 64
"""More than a journal adds to a payload; part of what is reserved for a commit."""


class Stamp(NamedTuple):
    """The writer of a commit, in a journal where a deposed writer's commit may arrive late."""

    epoch: int
    """The epoch that the writer's BOOT began."""
    writer: str
    """The writer, as its BOOT names it."""
    number: int
    """Its commits are numbered from 1, which is the one with the BOOT."""


class Commit(NamedTuple):
    """One commit as it is read."""

    position: Position
    """The place behind it."""
    first_seq: int | None
    """`None` in a stamped journal: a commit that does not count takes no seqs."""
    time_ms: int
    events: Sequence[AnyEvent]
    stamp: Stamp | None = None
    """`None` in a journal that has one owner at a time by its nature."""


class Appended(NamedTuple):
    """The commit is durable."""

    position: Position
    """The place behind it."""
    bytes: int
    """What it takes in the journal."""
    seconds: float
    """What writing and syncing it took, without waiting for either to begin."""


class Deposed(NamedTuple):
    """Another writer's commit stands behind the position; this one never will."""

    reason: str


class Failed(NamedTuple):
    """Whether the commit is durable is not known, and the journal is useless from here on."""

    error: BaseException


AppendOutcome = Appended | Deposed | Failed
Done = Callable[[AppendOutcome], None]


class Log(Protocol):
    """A journal as readers see it."""

    @property
    def store(self) -> bytes:
        """Id of the store."""
        ...

    @property
    def lineage(self) -> bytes:
        """The id that idempotency keys are made of; a restored store keeps it."""
        ...

    @property
    def is_stamped(self) -> bool:
        """True where each commit has to carry a `Stamp`.

        In such a journal a deposed writer's commit may turn up behind its successor's BOOT.  Then
        it does not count: whoever replays drops it, with an alarm.  In any other journal
        that would be corruption.
        """
        ...

    def read(self, after: Position | None) -> Iterator[Commit]:
        """Yields the commits behind a position, or from the first one that is kept.

        Ends with the last commit that is known to be durable.  What a writer is appending may
        be missing.

        Raises:
            Corruption: The journal is damaged, begins behind `after`, or ends before it.
            NewerFormat: It holds something of a newer version.
        """
        ...

    def check_beginning(self, damaged: Corruption | None) -> None:
        """Sees that it can be read without a snapshot: that its first commit is still kept.

        Args:
            damaged: Why the newest snapshot is of no use, where there is one.

        Raises:
            Corruption: It is not.
        """
        ...

    def illegal(self, commit: Commit, seq: int, reason: str) -> Corruption:
        """Returns the error that says where a commit stands which cannot follow.

        Args:
            commit: It was just read.
            seq: Which of its events it is.
            reason: Why it cannot follow from the state before it.
        """
        ...


class Journal(Log, Protocol):
    """A journal as its writer sees it.  One owner, one thread."""

    @property
    def position(self) -> Position:
        """The place behind the last commit; of one under way nothing is known yet."""
        ...

    @property
    def commit_bytes_max(self) -> int:
        """Bound on the payload of one commit."""
        ...

    @property
    def commit_path(self) -> str:
        """How commits are written now, in a word for people."""
        ...

    @property
    def segments(self) -> Segments | None:
        """Itself, where others can prepare room for it."""
        ...

    def append(self, after: Position, payload: bytes, count: int, done: Done) -> None:
        """Appends one commit of `count` events behind a position; one at a time.

        `done` is called once, perhaps before this returns.  Room was reserved before anything
        was decided.  Nothing is raised but for bugs of the caller.
        """
        ...

    def wait(self) -> None:
        """Blocks until the append under way has its outcome and `done` has returned."""
        ...

    def reserve(self, size: int) -> int:
        """Makes room for `size` bytes of payloads, with `OVERHEAD_BYTES` for each.

        May wait for the append under way, whose `done` is then called.

        Returns:
            How much there is room for by now, `size` at least; 0 where there is none.  Nothing
            was changed then, and what was reserved before is still there.

        Raises:
            StorageFailed: The journal is useless from here on.
        """
        ...

    def idle(self) -> None:
        """Told after a quiet moment: the last commit may be made harder to lose.

        Raises:
            StorageFailed: The journal is useless from here on.
        """
        ...

    def check(self) -> None:
        """Sees that the journal is still what this writer opened, and still its own.

        Raises:
            StorageFailed: It is not; the journal is useless from here on.
        """
        ...

    def close(self) -> None:
        """Ends the journal cleanly and gives it up.  Raises `StorageFailed`."""
        ...

    def abandon(self) -> None:
        """Gives it up as it is, without writing.  Never raises."""
        ...


class Segments(Protocol):
    """A journal kept in files: the next one is prepared by others, zero-filled and synced."""

    @property
    def next_path(self) -> str:
        """Where it is prepared."""
        ...

    @property
    def segment_bytes(self) -> int:
        """How large it should be."""
        ...

    @property
    def has_next(self) -> bool:
        """True where one was adopted and is not in use yet."""
        ...

    @property
    def wants_next(self) -> bool:
        """True where one should be prepared now and adopted."""
        ...

    def adopt(self, path: str) -> bool:
        """Takes a prepared file, to go on in once it is needed.

        Returns:
            False where no descriptor is left for it.  Nothing was changed.

        Raises:
            StorageFailed: The journal is useless from here on.
        """
        ...

    def seal(self) -> bool:
        """Goes on in the next file now; false where nothing was sealed.

        Raises:
            StorageFailed: The journal is useless from here on.
        """
        ...


Journal_co = TypeVar("Journal_co", bound=Journal, covariant=True)


class Owned(Log, Protocol[Journal_co]):
    """A journal that nobody else may write to, and that was not written to yet.

    Recovery reads it to its end.  Whatever it refuses, nothing was changed.
    """

    @property
    def report(self) -> RecoveryReport:
        """What was found so far; whoever rebuilds the state adds to it."""
        ...

    def resume(self, earlier: Log) -> bool:
        """True where all that `earlier`, another reading, has read holds still.

        A state that was built from it then follows this journal, and nothing is read twice.
        """
        ...

    def begin(self, after: Position | None) -> Journal_co:
        """Makes good what the last writer has left, and returns the journal to append to.

        Args:
            after: What was read: up to here, which is the end as the owner knows it.

        Raises:
            StorageFailed, StoreUnavailable: It cannot be written.
        """
        ...

    def abandon(self) -> None:
        """Gives it up as it is, begun or not.  Never raises."""
        ...


def append_now(journal: Journal, payload: bytes, count: int) -> Appended:
    """Appends one commit behind the last one; durable on return.

    For writers without an event loop.

    Raises:
        LostLeadership: Another writer has appended; nothing of this commit is in the log.
        StorageFailed: Whether it is durable is not known.
    """
    outcomes: list[AppendOutcome] = []
    journal.append(journal.position, payload, count, outcomes.append)
    if not outcomes:
        journal.wait()
    (outcome,) = outcomes
    if isinstance(outcome, Appended):
        return outcome
    if isinstance(outcome, Deposed):
        raise LostLeadership(outcome.reason)
    raise outcome.error
