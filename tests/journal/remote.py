"""A journal that is kept remotely, behind a network with every fault: stands for a cluster.

`Stream` is a replicated log as JetStream offers it: a message is accepted where the sequence
before it is the expected one.  Its check reads a tail that is not committed yet and that a
change of its leader may drop, so "wrong sequence" is no verdict.  `Network` holds what is on
its way until a test delivers it, late and in any order, or loses it.

`RemoteJournal` settles one append at a time.  The bytes for a place never change:

1. publish, expecting the sequence of the place;
2. acknowledged: appended.  Anything else, also silence: ask what stands behind the place;
3. mine: appended, and the acknowledgement was lost.  Another's: deposed, for good, since an
   expected sequence never comes back.  Nothing: begin again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from beaver.errors import Corruption, StorageFailed
from beaver.journal.codec import decode_stamped
from beaver.journal.port import Appended, Commit, Deposed, Done, Failed, Log, Position
from beaver.structs.recovery import RecoveryReport

STEPS_MAX = 10_000


class Stream:
    """What the cluster holds."""

    def __init__(self, store: bytes = bytes(16)) -> None:
        self.store = store
        self.committed: list[bytes] = []
        self.tail: list[tuple[bytes, Callable[[int | None], None]]] = []
        """Accepted by the leader and not by a majority, each with who waits for it."""

    def publish(self, expected: int, message: bytes, answer: Callable[[int | None], None]) -> None:
        """Accepts a message, or answers `None`: the sequence is another one."""
        if expected != len(self.committed) + len(self.tail):
            answer(None)
        else:
            self.tail.append((message, answer))

    def commit(self) -> None:
        """A majority has the oldest message of the tail."""
        message, answer = self.tail.pop(0)
        self.committed.append(message)
        answer(len(self.committed))

    def change_leader(self) -> None:
        """The tail is gone, and nobody hears of it."""
        self.tail.clear()

    def message(self, sequence: int) -> bytes | None:
        """Returns what is committed under a sequence."""
        return self.committed[sequence - 1] if sequence <= len(self.committed) else None


class Network:
    """What is on its way between the journals and the stream."""

    def __init__(self) -> None:
        self.under_way: list[Callable[[], None]] = []

    def send(self, deliver: Callable[[], None]) -> None:
        self.under_way.append(deliver)

    def deliver(self, index: int = 0) -> None:
        """Lets one message arrive; 0 is the one that was sent first."""
        self.under_way.pop(index)()

    def lose(self, index: int) -> None:
        self.under_way.pop(index)


class _Pending(NamedTuple):
    expected: int
    message: bytes
    done: Done


class RemoteJournal:
    """The `port.Journal` of one writer, and its `port.Owned`: whoever appends next owns it."""

    commit_bytes_max = 8 << 20
    is_stamped = True
    commit_path = "remote"
    segments = None

    def __init__(self, stream: Stream, network: Network) -> None:
        self.report = RecoveryReport()
        self.store = self.lineage = stream.store
        self.position: Position = (len(stream.committed),)
        self._stream, self._network = stream, network
        self._pending: _Pending | None = None
        self._closed = False

    @property
    def is_settling(self) -> bool:
        """An append is under way."""
        return self._pending is not None

    def read(self, after: Position | None) -> Iterator[Commit]:
        """See `port.Log`."""
        sequence = after[0] if after else 0
        if sequence > len(self._stream.committed):
            raise Corruption("the stream", sequence, 0, "it ends before what was known")
        while (message := self._stream.message(sequence + 1)) is not None:
            sequence += 1
            time_ms, events, stamp = decode_stamped(message)
            yield Commit((sequence,), None, time_ms, events, stamp)

    def check_beginning(self, damaged: Corruption | None) -> None:
        """See `port.Log`: nothing was dropped."""

    def resume(self, earlier: Log) -> bool:
        """See `port.Owned`: what is committed stays."""
        return isinstance(earlier, RemoteJournal) and earlier._stream is self._stream

    def begin(self, after: Position | None) -> RemoteJournal:
        """See `port.Owned`."""
        self.position = after or (0,)
        return self

    def illegal(self, commit: Commit, seq: int, reason: str) -> Corruption:
        """See `port.Log`."""
        return Corruption("the stream", commit.position[0], seq, reason)

    def append(self, after: Position, payload: bytes, count: int, done: Done) -> None:
        """See `port.Journal`."""
        assert count > 0, "a commit has events"
        assert self._pending is None, "one append at a time"
        if self._closed:
            done(Failed(StorageFailed("the journal is closed")))
            return
        self._pending = _Pending(after[0], payload, done)
        self._publish(self._pending)

    def _publish(self, pending: _Pending) -> None:
        def answer(sequence: int | None) -> None:
            self._network.send(lambda: self._answered(pending, sequence))

        self._network.send(lambda: self._stream.publish(pending.expected, pending.message, answer))

    def _answered(self, pending: _Pending, sequence: int | None) -> None:
        if pending is not self._pending:
            return  # It is settled: this answer came late.
        if sequence is None:
            self.ask()
        else:
            assert sequence == pending.expected + 1, "the fence holds"
            self._settle(sequence)

    def ask(self) -> None:
        """Asks what stands behind the place: also after a silence."""
        pending = self._pending
        if pending is None:
            return

        def look() -> None:
            found = self._stream.message(pending.expected + 1)
            self._network.send(lambda: self._found(pending, found))

        self._network.send(look)

    def _found(self, pending: _Pending, message: bytes | None) -> None:
        if pending is not self._pending:
            return
        if message is None:
            self._publish(pending)
        elif message == pending.message:
            self._settle(pending.expected + 1)
        else:
            self._pending = None
            pending.done(
                Deposed(f"another writer's commit has the sequence {pending.expected + 1}")
            )

    def _settle(self, sequence: int) -> None:
        pending, self._pending = self._pending, None
        assert pending is not None, "it was under way"
        self.position = (sequence,)
        pending.done(Appended(self.position, len(pending.message), 0.001))

    def wait(self) -> None:
        """See `port.Journal`: the network works again, and nothing is lost any more."""
        for _ in range(STEPS_MAX):
            if self._pending is None:
                return
            if self._stream.tail:
                self._stream.commit()
            elif self._network.under_way:
                self._network.deliver()
            else:
                self.ask()
        raise AssertionError("an append is never settled")

    def reserve(self, size: int) -> int:
        """See `port.Journal`."""
        return max(size, 1 << 40)

    def idle(self) -> None:
        """Nothing can be made safer."""

    def check(self) -> None:
        """Whether it is deposed shows with the next append."""

    def close(self) -> None:
        """See `port.Journal`."""
        self.wait()
        self._closed = True

    def abandon(self) -> None:
        """See `port.Journal`: what is under way is heard of no more."""
        self._pending, self._closed = None, True
