"""Writing the log: the one writer of the active segment.

`append` is one frame, one write, one sync; then the frame is on disk, and `done` is called.
While the disk is fast that is done on the loop, else by a process beside it (`commit_path`).
Any error of a write or a sync makes the log useless for this process: memory, page cache and
disk may differ, and a later sync may say "done" of data that is gone.  From then on every
call raises, and the process must end; the next start recovers from what the disk has.

The log is locked by whoever writes it, beside the directory's `LOCK`, which people remove.
And it is looked at: behind each sync, whether the file still has a name and its bytes, and
once a second and before sealing (`check`), whether it is still the file of its name.  What
is written into a file that was deleted, replaced or cut is never acknowledged.

Room comes before decisions.  `reserve` makes sure that frames of so many bytes fit into
space that is zero-filled and synced, so that a commit changes no metadata of the file and
the disk cannot turn out to be full inside it.  The order of preference:

a. the active segment has the room;
b. a prepared next segment was adopted: the active one is sealed, and the next takes over
   (`sealing`);
c. the active file is extended with zero bytes.  New stores and commands without a server
   live of this, and so does a server whose next segment is late.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Final, NoReturn

from beaver.errors import Corruption, StorageFailed
from beaver.journal.port import Appended, Commit, Deposed, Done, Failed, Position
from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.condition import Condition
from beaver.journal.wal.following import Cursor, read_from
from beaver.journal.wal.format import (
    CLOSE,
    EMPTY_FRAME_BYTES,
    MARK,
    PAYLOAD_BYTES_MAX,
    frame_bytes,
)
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import Hold
from beaver.journal.wal.loss import rescue, told_of_loss, trouble
from beaver.journal.wal.scan import Damage, Damaged
from beaver.journal.wal.sealing import NextSegment
from beaver.journal.wal.tail import Tail
from beaver.journal.wal.zeros import EXTEND_BYTES, extend
from beaver.ports import Clock, Disk, File

SERVER_BYTES: Final = 1 << 20
"""Room that clients without a server leave in the log: on a full disk a server needs it to run the
jobs."""

SEGMENT_BYTES: Final = 64 << 20
"""Size of a prepared segment, by default."""
_log: Final = logging.getLogger("beaver")
_INTERRUPTED: Final = "the log was interrupted in the middle of a write; this process must end"


class Wal:
    """The log of one store, open for writing: the `port.Journal` of one machine."""

    commit_bytes_max = PAYLOAD_BYTES_MAX
    is_stamped = False

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        file: File,
        tail: Tail,
        *,
        hold: Hold,
        clock: Clock,
        commits: CommitPath | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        extend_bytes: int = EXTEND_BYTES,
    ) -> None:
        """Takes over an active segment that recovery has made good.

        Args:
            disk: Where the store lies.
            layout: Its names.
            file: `wal.log`, open for writing and locked, zero bytes from `tail.offset` on.
            tail: Where it goes on.
            hold: The lock on the directory, which is given back with the log.
            clock: For what syncs take.
            commits: Chooses how each commit is written; by default on the loop.
            segment_bytes: Size that a prepared segment should have.
            extend_bytes: Least growth of a segment that is extended in place.
        """
        self._disk = disk
        self._layout = layout
        self._file = file
        self._tail = tail
        self._place: Cursor | None = None
        """The place behind the last frame, once it was asked for."""
        self._size = min(file.size(), disk.file_bytes_max())
        self._condition = Condition()
        self._next = NextSegment(disk, layout, self._condition.fail)
        self._is_staged = False
        """A frame has its place and is not confirmed: nothing may be written now."""
        self._hold = hold
        self._clock = clock
        self._commits = commits or CommitPath()
        self._done: Done | None = None
        """Callback waiting for the frame that the writer process holds."""
        self._frame_bytes = 0
        """Its size."""
        self.segment_bytes = segment_bytes
        self._extend_bytes = extend_bytes

    # -- what it is ------------------------------------------------------------------------

    @property
    def store(self) -> bytes:
        """The id of the store."""
        return self._tail.header.store

    @property
    def lineage(self) -> bytes:
        """See `port.Log`."""
        return self._tail.header.lineage

    @property
    def path(self) -> str:
        return self._layout.log

    @property
    def first_seq(self) -> int:
        """First seq of the active segment."""
        return self._tail.header.first_seq

    @property
    def next_seq(self) -> int:
        return self._tail.next_seq

    @property
    def last_seq(self) -> int:
        """Last seq in the log; durable, unless a staged frame is not confirmed yet."""
        return self._tail.next_seq - 1

    @property
    def used(self) -> int:
        """Bytes of the active segment that hold frames."""
        return self._tail.offset

    @property
    def room(self) -> int:
        """Bytes of frames that fit into synced space; what a CLOSE takes is kept back."""
        return max(0, self._size - self._tail.offset - EMPTY_FRAME_BYTES)

    @property
    def has_next(self) -> bool:
        """See `port.Segments`."""
        return self._next.is_there

    @property
    def wants_next(self) -> bool:
        """See `port.Segments`."""
        return not self._next.is_there and self.room < self.segment_bytes // 2

    # -- frames ----------------------------------------------------------------------------

    @property
    def position(self) -> Cursor:
        """See `port.Journal`: the place behind the last frame."""
        place = self._place
        if place is None:
            place = self._place = self._tail.place()
        return place

    @property
    def commit_path(self) -> str:
        """How commits are written now: `inline`, or by a `writer` process."""
        return self._commits.name

    @property
    def segments(self) -> Wal:
        """See `port.Journal`."""
        return self

    @property
    def next_path(self) -> str:
        """See `port.Segments`."""
        return self._layout.next

    def check_beginning(self, damaged: Corruption | None) -> None:
        """See `port.Log`: whoever opened it has seen to that."""

    def read(self, after: Position | None) -> Iterator[Commit]:
        """See `port.Log`.

        Raises:
            FileNotFoundError: A segment was pruned meanwhile; start over.
        """
        return read_from(self._disk, self._layout, after)

    def illegal(self, commit: Commit, seq: int, reason: str) -> Corruption:
        """See `port.Log`; the offset is the one behind the frame."""
        place = Cursor(*commit.position)
        active = place.segment_seq == self.first_seq
        path = self.path if active else self._layout.archived(place.segment_seq)
        return Damaged(Damage.ILLEGAL, path, place.offset, seq, reason)

    def append(self, after: Position, payload: bytes, count: int, done: Done) -> None:
        """Writes one commit of `count` events as one frame; see `port.Journal`.

        On the loop `done` is called before this returns; else once the writer process has
        answered.  Until then nothing else may be written; `reserve` answers for the room behind
        the frame.
        """
        assert count > 0, "a commit has events"
        assert len(payload) <= PAYLOAD_BYTES_MAX, "commits are bounded by the engine"
        assert self._done is None, "one append at a time"
        if after is not self.position and Cursor(*after).next_seq != self._tail.next_seq:
            done(Deposed(f"{self.path} has grown to seq {self.last_seq} meanwhile"))
            return
        try:
            self._refuse_if_unusable()
            assert frame_bytes(len(payload)) <= self.room, "room is reserved before a commit"
            frame, offset = self._stage(payload, count, 0)
            if self._commits.beside_the_loop and self._commits.is_ready(self._hold):
                self._done, self._frame_bytes = done, len(frame)
                self._commits.write(self._file, frame, offset, self._written)
                return
            started_ns = self._clock.monotonic_ns()
            self._write_durable(frame, offset)
            seconds = (self._clock.monotonic_ns() - started_ns) / 1e9
        except StorageFailed as error:
            done(Failed(error))
            return
        done(Appended(self.position, len(frame), seconds))
        self._commits.observe(seconds)

    def _written(self, error: OSError | None, seconds: float) -> None:
        """The writer process has written the frame, or failed to."""
        done, self._done = self._done, None
        assert done is not None, "a frame was handed over"
        if error is not None:
            reason = f"the writer process could not write the log: {error}"
            self._condition.unusable = reason
            done(Failed(StorageFailed(reason)))
            return
        try:
            self._confirm()
        except StorageFailed as failure:
            done(Failed(failure))
            return
        self._commits.observe(seconds)
        done(Appended(self.position, self._frame_bytes, seconds))

    def wait(self) -> None:
        """See `port.Journal`."""
        if self._done is not None:
            self._commits.wait()

    def _confirm(self) -> None:
        """The staged frame is on disk.

        Raises:
            LogLost: But in a file that has no name any more, or not all of its bytes.
        """
        assert self._is_staged, "a frame was staged"
        if not self._file.is_kept(self._size):
            self._lose()
        self._is_staged = False
        self._place = None

    def check(self) -> None:
        """Sees that the log is still the file of its name, and whole; costs a few us.

        A lock file that somebody has removed is made again.

        Raises:
            LogLost: It is not; every further call raises, and the process must end.
        """
        self._condition.refuse()
        if trouble(self._disk, self._layout, self._file, self._size):
            self._lose()
        if self._hold.renew():
            _log.warning(
                "somebody has removed the lock file; it is there again. It keeps other "
                "processes out while this one runs, and is no sign of one that has died"
            )

    def idle(self) -> None:
        """Closes the last frame with an empty one, if it is not closed.

        A valid frame behind it proves that it was synced: damage to it can then no longer
        pass for a torn write.  Left out where the segment has no room for it.

        Raises:
            StorageFailed: It could not be written; every further call raises, and the process
                must end.
        """
        self._refuse_if_unusable()
        if not self._tail.flags & (MARK | CLOSE) and self.room >= EMPTY_FRAME_BYTES:
            self._write(b"", 0, MARK)

    def close(self) -> None:
        """Ends the log with a CLOSE frame, synced, and gives up the files.

        Raises:
            StorageFailed: As `idle`.
        """
        self._commits.close()
        self._refuse_if_unusable()
        if not self._tail.flags & CLOSE and self._has_room_to_close:
            self._write(b"", 0, CLOSE)
        self.abandon()

    def abandon(self) -> None:
        """Gives up the files as they are, without writing.  Never raises."""
        with contextlib.suppress(Exception):
            self._commits.close()
        self._condition.unusable = self._condition.unusable or f"{self.path} is closed"
        for file in (self._file, self._next.file):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        with contextlib.suppress(OSError):
            self._hold.release()

    def _write(self, payload: bytes, count: int, flags: int) -> None:
        self._write_durable(*self._stage(payload, count, flags))

    def _stage(self, payload: bytes, count: int, flags: int) -> tuple[bytes, int]:
        """Gives the next frame its place; returns it and its offset."""
        # Until it is confirmed nothing else may be written: also an interrupt between the
        # write and its confirmation must not let a later call write behind the frame.
        self._is_staged = True
        return self._tail.frame(payload, count, flags)

    def _write_durable(self, frame: bytes, offset: int) -> None:
        try:
            self._file.pwrite_durable(frame, offset)
        except OSError as error:
            self._fail(f"writing {len(frame)} bytes at offset {offset}", error)
        self._confirm()

    # -- room ------------------------------------------------------------------------------

    @property
    def _has_room_to_close(self) -> bool:
        """False only behind a file that was cut right after a frame by someone else."""
        return self._size - self._tail.offset >= EMPTY_FRAME_BYTES

    def reserve(self, size: int) -> int:
        """Makes sure that frames of `size` bytes fit into zero-filled, synced space.

        Returns:
            How many fit by now; 0 where the disk is full.  Nothing was changed then, and what
            was reserved before is still there.

        Raises:
            StorageFailed: Something else failed; every further call raises.
        """
        # A new segment can be begun only when the last frame is in the old one.
        while size > self.room and self._done is not None:
            self.wait()
        if size <= self.room and self._condition.unusable is None:
            return self.room
        self._refuse_if_unusable()
        if (self._may_seal(size) and self._seal()) or self._extend(size):
            return self.room
        return 0

    def adopt(self, path: str) -> bool:
        """See `port.Segments`."""
        self._condition.refuse()
        return self._next.adopt(path)

    def seal(self) -> bool:
        """See `port.Segments`; there must be a next segment, and events in the active one."""
        self._refuse_if_unusable()
        return self._may_seal(0) and self._seal()

    def _may_seal(self, size: int) -> bool:
        """True where the next segment would hold `size` bytes of frames.

        A segment without events is never sealed: its successor would begin with the same
        seq, and segments are named by it.
        """
        if not self._tail.has_events:
            return False
        if not self._tail.flags & CLOSE and not self._has_room_to_close:
            return False
        return self._next.holds(size)

    def _seal(self) -> bool:
        """Goes on in the next segment, as `sealing` tells; False where the disk is full."""
        self.check()
        if not self._tail.flags & CLOSE:
            self._write(b"", 0, CLOSE)
        header = self._tail.next_header()
        self._condition.unusable = _INTERRUPTED
        file = self._next.succeed(self._tail.header.first_seq, header)
        if file is not None:
            try:
                self._file.close()
                self._size = min(file.size(), self._disk.file_bytes_max())
            except OSError as error:
                self._fail("reading the size", error)
            self._file, self._place = file, None
            self._tail.enter(header)
        # Without it the old segment is whole and goes on; a CLOSE may stand anywhere.
        self._condition.unusable = None
        return file is not None

    def _extend(self, size: int) -> bool:
        """Appends zero bytes to the active file, synced; False where the disk is full."""
        wanted = self._tail.offset + EMPTY_FRAME_BYTES + size
        after = max(wanted, self._size + self._extend_bytes)
        if not extend(self._file, self._size, after, self._fail):
            return False
        self._size = after
        return True

    # -- failure ---------------------------------------------------------------------------

    def _refuse_if_unusable(self) -> None:
        self._condition.refuse()
        if self._is_staged:
            raise StorageFailed(_INTERRUPTED)

    def _lose(self) -> NoReturn:
        """The log is not what its name stands for: keeps what it holds, and raises."""
        why = trouble(self._disk, self._layout, self._file, self._size)
        tail = self._tail
        kept = rescue(self._disk, self._layout, self._file, tail.offset, tail.next_seq)
        self._condition.lose(told_of_loss(self.path, why, kept))

    def _fail(self, doing: str, error: OSError) -> NoReturn:
        self._condition.fail(doing, self.path, error)
