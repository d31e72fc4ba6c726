"""Reading one segment: its header, its frames in order, and how it ends.

What lives here: pure reading, used alike by recovery, the helper, `replay` and `verify`.
What may not: decisions.  A scan says *clean*, *torn* or *corrupt*; `forensics` and `repair` decide
what follows.

How an end is told.  Frames are read as long as each follows from the one before.  At the
first place where none does, the rest of the file decides:

1. The bytes there are a frame of this store by themselves, only not the one that follows:
   *corrupt*.  No crash writes such a thing.
2. A frame of this store stands somewhere behind: *corrupt*.  At most one frame is ever
   unsynced, so a valid later frame proves that the bad one had been synced whole.
3. Only zero bytes follow, or nothing: *clean*.
4. Otherwise *torn*: the remains of the one frame whose write a crash cut short.  Blocks
   of it may have reached the disk in any order, so it may begin with zero bytes.

A reader beside a living writer can see a frame half-written:

1. The reader finds frame N bad, since the writer is in the middle of it.
2. The writer finishes N, syncs it and writes N+1.
3. The reader scans on, finds N+1 valid, and would call N corrupt.

So before it says *corrupt*, a scan reads the bad frame once more.  N was complete before
N+1 was begun, and N+1 has been seen: if N is still bad now, it is bad for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from beaver.errors import Corruption, NewerFormat
from beaver.journal.wal.format import (
    ALIGNMENT,
    CLOSE,
    FILE_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    KNOWN_FLAGS,
    PAYLOAD_BYTES_MAX,
    VERSION,
    BadHeader,
    FileHeader,
    decode_file_header,
    encode_file_header,
    encode_frame,
    frame_bytes,
    frame_crc_of,
    header_crc_of,
    header_seed,
    unpack_frame_header,
)
from beaver.ports import File
from beaver.text.foreign import counted

READ_BYTES: Final = 4 << 20
_ZEROS: Final = bytes(READ_BYTES + FRAME_HEADER_BYTES)


class Damage(StrEnum):
    """The kinds of damage that a reader can find."""

    HEADER = "header"
    """A segment's file header is damaged."""
    FRAME = "frame"
    """A frame is damaged, and later data shows that it was whole."""
    CHAIN = "chain"
    """A segment does not go on where the one before ends."""
    GAP = "gap"
    """Seqs are missing between two segments, or before the first that is needed."""
    FOREIGN = "foreign"
    """A file belongs to another store, or under another name."""
    CUT = "cut"
    """A sealed segment ends before its last frame."""
    MISSING = "missing"
    """There is no active segment, and something shows that there was one."""
    PAYLOAD = "payload"
    """A frame with a good CRC holds no commit."""
    ILLEGAL = "illegal"
    """An event cannot follow from the state before it."""
    NO_BASE = "no_base"
    """No snapshot is good, and the log does not reach back to the first seq."""
    TOO_SHORT = "too_short"
    """The log ends before something that had been synced."""


class Damaged(Corruption):
    """Corruption in the log; `damage` names its kind."""

    def __init__(self, damage: Damage, file: str, offset: int, seq: int, reason: str) -> None:
        super().__init__(file, offset, seq, reason)
        self.damage = damage


def read_header(file: File, path: str, seq: int = 0) -> FileHeader:
    """Returns the file header of a segment.  `seq` is what it should hold, for the message.

    Raises:
        Damaged: It is damaged.
        NewerFormat: It is intact and of a newer version.
    """
    try:
        header = decode_file_header(file.pread(FILE_HEADER_BYTES, 0))
    except BadHeader as error:
        raise Damaged(Damage.HEADER, path, 0, seq, str(error)) from error
    if header.version > VERSION:
        raise NewerFormat(
            f"{path} has the log format {header.version}; this release reads up to {VERSION}. "
            "It was written by a newer version of Beaver: use that version."
        )
    return header


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One valid frame."""

    offset: int
    first_seq: int
    count: int
    flags: int
    payload: bytes
    crc: int
    """Its frame CRC, with which the next one is seeded."""


class EndKind(StrEnum):
    CLEAN = "clean"
    TORN = "torn"
    CORRUPT = "corrupt"


class End(NamedTuple):
    """How a segment ends."""

    kind: EndKind
    offset: int
    """Where the next frame would begin."""
    torn_bytes: int = 0
    """From there to the last byte that is not zero."""
    reason: str = ""
    """What is wrong with the bytes there."""


class SegmentScan:
    """The frames of one segment, in order.  Iterate it, then read `end`.

    While it is iterated and after, `offset`, `next_seq`, `crc`, `frames` and `flags` tell
    where it stands: behind the last frame that it has yielded.
    """

    def __init__(self, file: File, path: str, header: FileHeader) -> None:
        self._file = file
        self._seed = header_seed(header.store)
        self.path = path
        self.header = header
        self.offset = FILE_HEADER_BYTES
        self.last: Frame | None = None
        """The last valid frame, which recovery writes once more."""
        self.next_seq = header.first_seq
        self.crc = header.previous_crc
        self._crc_before_last = header.previous_crc
        self.frames = 0
        self.flags = 0
        """Flags of the last frame."""
        self.end: End | None = None

    @property
    def last_seq(self) -> int:
        return self.next_seq - 1

    @property
    def crc_before_last(self) -> int:
        """CRC of the frame before the last one, or what the segment begins with."""
        return self._crc_before_last

    def __iter__(self) -> Iterator[Frame]:
        while self.end is None:
            yield from self._run()
            self.end = self._judge()

    def again(self, file: File) -> SegmentScan:
        """Returns a scan of the same segment that goes on where this one stands."""
        scan = SegmentScan(file, self.path, self.header)
        scan.offset, scan.last, scan.next_seq = self.offset, self.last, self.next_seq
        scan.crc, scan._crc_before_last = self.crc, self._crc_before_last
        scan.frames, scan.flags = self.frames, self.flags
        return scan

    def last_bytes(self) -> tuple[int, bytes]:
        """Returns the last valid frame, or the header where there is none, and its offset.

        Made of what was read and checked, not read again: after a failed sync the kernel
        may drop the page in between, and another reading would give what the disk has.
        """
        last = self.last
        if last is None:
            return 0, encode_file_header(self.header)
        frame, crc = encode_frame(
            last.payload,
            last.count,
            last.first_seq,
            last.flags,
            previous_crc=self._crc_before_last,
            seed=self._seed,
        )
        assert crc == last.crc, "the same frame again"
        return last.offset, frame

    def read(self) -> End:
        """Reads on to the end without keeping the frames."""
        for _ in self:
            pass
        assert self.end is not None, "an exhausted scan has an end"
        return self.end

    def refuse_corrupt(self) -> End:
        """Returns the end of an exhausted scan.

        Raises:
            Damaged: It is corrupt.
        """
        assert self.end is not None, "asked once the scan is exhausted"
        if self.end.kind == EndKind.CORRUPT:
            raise Damaged(Damage.FRAME, self.path, self.end.offset, self.next_seq, self.end.reason)
        return self.end

    # -- frames that follow ------------------------------------------------------------------

    def _run(self) -> Iterator[Frame]:
        """Yields frames while each follows from the one before."""
        seed, pread = self._seed, self._file.pread
        base, position = self.offset, 0
        buffer = pread(READ_BYTES, base)
        next_seq, crc = self.next_seq, self.crc
        while True:
            if len(buffer) - position < FRAME_HEADER_BYTES:
                base, position = base + position, 0
                buffer = pread(READ_BYTES, base)
                if len(buffer) < FRAME_HEADER_BYTES:
                    return
            magic, frame_crc, header_crc, previous_crc, length, count, first_seq, flags = (
                unpack_frame_header(buffer, position)
            )
            if (
                magic != FRAME_MAGIC
                or previous_crc != crc
                or first_seq != next_seq
                or length > PAYLOAD_BYTES_MAX
                or header_crc_of(buffer, position, seed) != header_crc
            ):
                return
            size = frame_bytes(length)
            if len(buffer) - position < size:
                base, position = base + position, 0
                buffer = pread(max(READ_BYTES, size), base)
                if len(buffer) < size:
                    return
            if frame_crc_of(buffer, position, size, crc) != frame_crc:
                return
            if flags & ~KNOWN_FLAGS:
                raise NewerFormat(
                    f"{self.path} holds a frame with unknown flags {flags:#x} at offset "
                    f"{base + position}; it was written by a newer version of Beaver: use that one."
                )
            payload_at = position + FRAME_HEADER_BYTES
            padding = buffer[payload_at + length : position + size]
            if why_malformed(length, count, flags, padding) is not None:
                return
            frame = Frame(
                base + position,
                first_seq,
                count,
                flags,
                buffer[payload_at : payload_at + length],
                frame_crc,
            )
            position += size
            self.last = frame
            self._crc_before_last = crc
            self.offset = base + position
            self.next_seq = next_seq = next_seq + count
            self.crc = crc = frame_crc
            self.flags = flags
            self.frames += 1
            yield frame

    # -- the end -----------------------------------------------------------------------------

    def _judge(self) -> End | None:
        """Says how the segment ends at `offset`; `None` where a frame follows after all."""
        reason = self._why_bad()
        if reason is None:
            return None
        later, last_byte = self._look_behind()
        if later is not None:
            if self._why_bad() is None:
                return None
            if later > self.offset:
                reason = f"{reason}, and a valid frame follows at offset {later}"
            return End(EndKind.CORRUPT, self.offset, reason=reason)
        if last_byte < self.offset:
            return End(EndKind.CLEAN, self.offset)
        return End(EndKind.TORN, self.offset, last_byte + 1 - self.offset, reason)

    def _why_bad(self) -> str | None:
        """Reads the frame at `offset` afresh; returns what is wrong with it, or `None`."""
        raw = self._file.pread(FRAME_HEADER_BYTES, self.offset)
        if len(raw) < FRAME_HEADER_BYTES:
            return f"the file ends {counted(len(raw), 'byte')} into a frame header"
        magic, frame_crc, header_crc, previous_crc, length, count, first_seq, flags = (
            unpack_frame_header(raw, 0)
        )
        if magic != FRAME_MAGIC:
            return "there is no frame header"
        if header_crc_of(raw, 0, self._seed) != header_crc:
            return "the frame header has a wrong CRC"
        if length > PAYLOAD_BYTES_MAX:
            return f"the frame header says {length} bytes; no frame is longer than 256 MiB"
        if first_seq != self.next_seq:
            return f"the frame begins with seq {first_seq}, expected {self.next_seq}"
        if previous_crc != self.crc:
            return f"the frame follows one with the CRC {previous_crc:08x}, not {self.crc:08x}"
        size = frame_bytes(length)
        raw = self._file.pread(size, self.offset)
        if len(raw) < size:
            return f"the file ends {counted(len(raw), 'byte')} into a frame of {size}"
        computed = frame_crc_of(raw, 0, size, self.crc)
        if computed != frame_crc:
            return f"the frame has the CRC {frame_crc:08x}, its bytes give {computed:08x}"
        return why_malformed(length, count, flags, raw[FRAME_HEADER_BYTES + length :])

    def _look_behind(self) -> tuple[int | None, int]:
        """Looks for a frame of this store from `offset` on.

        Returns:
            Its offset or `None`, and the offset of the last byte seen that is not zero.
        """
        last_byte = -1
        at = self.offset
        while True:
            # Chunks overlap by a header, so that none is missed where two meet.
            chunk = self._file.pread(READ_BYTES + FRAME_HEADER_BYTES, at)
            if not chunk:
                return None, last_byte
            if chunk != _ZEROS[: len(chunk)]:
                last_byte = at + len(chunk.rstrip(b"\0")) - 1
                found = self._find_frame(chunk, at)
                if found is not None:
                    return found, last_byte
            at += READ_BYTES

    def _find_frame(self, chunk: bytes, base: int) -> int | None:
        position = chunk.find(FRAME_MAGIC)
        while 0 <= position <= len(chunk) - FRAME_HEADER_BYTES:
            if (base + position) % ALIGNMENT == 0 and self._is_frame(chunk, position, base):
                return base + position
            position = chunk.find(FRAME_MAGIC, position + 1)
        return None

    def _is_frame(self, chunk: bytes, position: int, base: int) -> bool:
        """True where a frame of this store stands here that is valid by itself."""
        _, frame_crc, header_crc, previous_crc, length, _, _, _ = unpack_frame_header(
            chunk, position
        )
        if header_crc_of(chunk, position, self._seed) != header_crc or length > PAYLOAD_BYTES_MAX:
            return False
        size = frame_bytes(length)
        raw = chunk[position : position + size]
        if len(raw) < size:
            raw = self._file.pread(size, base + position)
        return len(raw) == size and frame_crc_of(raw, 0, size, previous_crc) == frame_crc


def why_malformed(length: int, count: int, flags: int, padding: bytes) -> str | None:
    """Says what no writer does in a frame whose CRCs are right, or `None`."""
    if flags:
        if length or count:
            return f"a MARK or CLOSE holds {counted(count, 'event')} in {counted(length, 'byte')}"
    elif not (length and count):
        return f"the frame holds {counted(count, 'event')} in {counted(length, 'byte')}"
    return "the padding of the frame is not zero" if padding.strip(b"\0") else None


def is_sealed_end(scan: SegmentScan) -> bool:
    """True where an exhausted scan ends as a sealed segment must: closed, then zero bytes."""
    end = scan.end
    return end is not None and end.kind == EndKind.CLEAN and bool(scan.flags & CLOSE)
