"""The end of a segment: where the next frame goes, and which chain it continues.

What lives here: numbers.  What may not: files (`log`).
"""

from __future__ import annotations

from beaver.journal.wal.following import Cursor
from beaver.journal.wal.format import FILE_HEADER_BYTES, FileHeader, encode_frame, header_seed


class Tail:
    """Where the active segment goes on; `frame` moves it."""

    def __init__(
        self, header: FileHeader, offset: int, next_seq: int, crc: int, flags: int
    ) -> None:
        """Begins where a scan of the segment ended.

        Args:
            header: The segment's header.
            offset: Offset of the next frame.
            next_seq: Seq of the next event.
            crc: CRC of the last frame.
            flags: Flags of the last frame; `CLOSE` where nothing waits to be closed.
        """
        self.header, self.offset, self.next_seq = header, offset, next_seq
        self.crc, self.flags = crc, flags
        self._seed = header_seed(header.store)

    @property
    def has_events(self) -> bool:
        """True where an event stands in the segment."""
        return self.next_seq > self.header.first_seq

    def place(self) -> Cursor:
        """Returns the place behind the last frame."""
        return Cursor(self.header.first_seq, self.offset, self.next_seq, self.crc, self.flags)

    def frame(self, payload: bytes, count: int, flags: int) -> tuple[bytes, int]:
        """Encodes the next frame and moves behind it; returns it and its offset."""
        frame, self.crc = encode_frame(
            payload, count, self.next_seq, flags, previous_crc=self.crc, seed=self._seed
        )
        offset = self.offset
        self.offset += len(frame)
        self.next_seq += count
        self.flags = flags
        return frame, offset

    def next_header(self) -> FileHeader:
        """Returns the header of the segment that continues this one."""
        return self.header._replace(first_seq=self.next_seq, previous_crc=self.crc)

    def enter(self, header: FileHeader) -> None:
        """Goes on in a new segment."""
        self.header, self.offset = header, FILE_HEADER_BYTES
