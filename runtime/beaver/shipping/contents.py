"""What a target holds, by the names of its objects.

```
beaver-ship.json                      whose it is (`ownership`)
log/SEGMENT/START-END                 bytes START to END of a segment, whole frames
log/SEGMENT/START-END.sealed-NEXT     the same, and the segment ends there
snapshots/SEQ-TIME.json               a snapshot, and its stamp
```

SEGMENT is the first seq of a segment, NEXT that of the one behind it.  Pieces may overlap, where
small ones were merged and the merging was cut short: they hold the same bytes.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final, NamedTuple

from beaver.errors import BackupDamaged

PIECE_BYTES: Final = 8 << 20
"""A piece is not merged beyond this size."""
_PIECE: Final = re.compile(r"log/([0-9]{20})/([0-9]{12})-([0-9]{12})(?:\.sealed-([0-9]{20}))?")
_SNAPSHOT: Final = re.compile(r"snapshots/([0-9]{20})-([0-9]{15})\.json")


class Piece(NamedTuple):
    """Bytes of a segment."""

    segment: int
    start: int
    end: int
    next_seq: int = 0
    """Of the segment behind it, where this one ends here; else 0."""

    @property
    def key(self) -> str:
        sealed = f".sealed-{self.next_seq:020d}" if self.next_seq else ""
        return f"log/{self.segment:020d}/{self.start:012d}-{self.end:012d}{sealed}"

    @property
    def size(self) -> int:
        return self.end - self.start


class ShippedSnapshot(NamedTuple):
    """A snapshot."""

    seq: int
    time_ms: int

    @property
    def key(self) -> str:
        return f"snapshots/{self.seq:020d}-{self.time_ms:015d}.json"


class Segment:
    """The pieces of one segment."""

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.pieces: list[Piece] = []
        """By where they begin, the longest first."""

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.pieces.sort(key=lambda one: (one.start, -one.end))

    def cover(self) -> list[Piece]:
        """Returns pieces that follow each other from the beginning, as far as there are some."""
        found: list[Piece] = []
        at = 0
        for piece in self.pieces:
            if piece.start == at and piece.end > at:
                found.append(piece)
                at = piece.end
        return found

    @property
    def end(self) -> int:
        """The offset that the pieces reach without a hole."""
        cover = self.cover()
        return cover[-1].end if cover else 0

    @property
    def is_sealed(self) -> bool:
        """It is complete."""
        cover = self.cover()
        return bool(cover) and cover[-1].next_seq > 0

    def needless(self) -> list[Piece]:
        """Returns pieces whose bytes another one holds."""
        cover = self.cover()
        return [piece for piece in self.pieces if piece not in cover]


class Contents:
    """What a listing shows."""

    def __init__(self, name: str, listing: dict[str, int]) -> None:
        """Reads the names.

        Args:
            name: The target's, for errors.
            listing: Sizes by key; names of others are passed over.

        Raises:
            BackupDamaged: A piece has not the size that its name says, or one is missing.
        """
        self.name = name
        self.segments: dict[int, Segment] = {}
        self.snapshots: list[ShippedSnapshot] = []
        self.bytes = 0
        for key, size in sorted(listing.items()):
            if found := _PIECE.fullmatch(key):
                piece = Piece(*(int(number or 0) for number in found.groups()))
                if piece.size != size or size <= 0:
                    raise BackupDamaged(
                        f"{name}/{key} has {size} bytes, and its name says {piece.size}: the "
                        "target is damaged"
                    )
                self.add(piece)
                self.bytes += size
            elif found := _SNAPSHOT.fullmatch(key):
                self.snapshots.append(ShippedSnapshot(*map(int, found.groups())))
                self.bytes += size

    def add(self, piece: Piece) -> None:
        """Adds a piece."""
        self.segments.setdefault(piece.segment, Segment(piece.segment)).add(piece)

    def check(self, begins: int) -> None:
        """Sees that no piece is missing.

        Args:
            begins: First seq of the oldest segment that has to be there; 0 for none.

        Raises:
            BackupDamaged: One is.
        """
        if begins and begins not in self.segments:
            raise BackupDamaged(
                f"{self.name} misses the segment that begins with seq {begins}: the target is "
                "damaged"
            )
        kept = [seq for seq in sorted(self.segments) if seq >= begins]
        for first_seq, following in pairwise([*kept, 0]):
            segment = self.segments[first_seq]
            reach = max(piece.end for piece in segment.pieces)
            next_seq = segment.cover()[-1].next_seq if segment.cover() else 0
            if segment.end < reach or (following and next_seq != following):
                raise BackupDamaged(
                    f"{self.name} misses bytes of the segment that begins with seq {first_seq}, "
                    f"from offset {segment.end} on: the target is damaged"
                )

    @property
    def last(self) -> Segment | None:
        """The newest segment."""
        return self.segments[max(self.segments)] if self.segments else None
