"""What the files of a store hold and take: for `status`, `doctor` and metrics.

Only names, sizes and first stamps are read.  A sealed segment never changes, so it is looked at
once; a caller that asks each second costs a listing.
"""

from __future__ import annotations

from collections.abc import Callable

from beaver.errors import BeaverError
from beaver.journal.wal.layout import Layout, archived_first_seq
from beaver.journal.wal.reader import decode_frame, frames
from beaver.ports import Disk, File
from beaver.structs.views import StorageView

__all__ = ["Holding", "StorageView"]


class Holding:
    """Looks at the files of one store."""

    def __init__(self, disk: Disk, layout: Layout) -> None:
        self._disk, self._layout = disk, layout
        self._sizes: dict[str, int] = {}
        """Of sealed segments, by name."""
        self._since: tuple[str, int] = "", 0
        """The oldest segment, and the stamp of its first event."""
        self._last: StorageView | None = None

    def look(self, retention_bytes: int = 0, retention_ms: int = 0) -> StorageView:
        """Returns what there is now; files that go meanwhile count as nothing."""
        disk, layout = self._disk, self._layout
        try:
            there = disk.listdir(layout.archive)
        except FileNotFoundError:
            there = []
        except OSError:  # No descriptor is free: what was there last is near enough.
            if self._last is not None:
                return self._last
            there = []
        names = [name for name in there if archived_first_seq(name) is not None]
        self._sizes = {name: self._sizes.get(name) or self._size_of(name) for name in names}
        oldest = layout.archived(archived_first_seq(names[0]) or 1) if names else layout.log
        if self._since[0] != oldest or not self._since[1]:
            self._since = oldest, self._stamp_of(oldest)
        newest = f"{layout.archive}/{names[-1]}" if names else layout.log
        self._last = StorageView(
            archive_bytes=sum(self._sizes.values()),
            archive_segments=len(names),
            first_seq=archived_first_seq(names[0]) or 1 if names else self._first_seq(),
            since_ms=self._since[1],
            last_known_ms=max(self._since[1], self._stamp_of(newest)),
            log_bytes=self._bytes(layout.log),
            snapshot_bytes=self._bytes(layout.snapshot) + self._bytes(layout.snapshot_old),
            history_bytes=self._bytes(layout.history),
            retention_bytes=retention_bytes,
            retention_ms=retention_ms,
            free_bytes=self._free(),
        )
        return self._last

    def _size_of(self, name: str) -> int:
        return self._bytes(f"{self._layout.archive}/{name}")

    def _bytes(self, path: str) -> int:
        return self._peek(path, lambda file: file.size())

    def _free(self) -> int:
        try:
            return self._disk.free_bytes(self._layout.path)
        except OSError:
            return 0

    def _first_seq(self) -> int:
        log = self._layout.log
        return self._peek(log, lambda file: frames(file, log).header.first_seq) or 1

    def _stamp_of(self, path: str) -> int:
        """Returns the stamp of the first event in a segment; 0 where none can be read."""

        def stamp(file: File) -> int:
            first = next((frame for frame in frames(file, path) if frame.count), None)
            return decode_frame(path, first)[0] if first else 0

        return self._peek(path, stamp)

    def _peek(self, path: str, read: Callable[[File], int]) -> int:
        """Returns what is read of a file; 0 where it is gone, or the disk fails to read it.

        Whoever needs what the file holds reads all of it, and says what is wrong.
        """
        try:
            file = self._disk.open(path)
        except OSError:
            return 0
        try:
            return read(file)
        except (BeaverError, OSError):
            return 0
        finally:
            file.close()
