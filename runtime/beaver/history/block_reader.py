"""Reading the events of blocks where they stand in the log; see `database`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from beaver.history.blocks import Block
from beaver.history.database import Entry
from beaver.history.rows import HistoryDamaged
from beaver.journal.wal.following import open_segment
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import decode_frame
from beaver.journal.wal.scan import SegmentScan, read_header
from beaver.ports import Disk, File
from beaver_model.events import JobEvent

_DECODED_MAX: Final = 64
"""Blocks that a reading keeps decoded."""
_FILES_MAX: Final = 8


class _Window:
    """A segment up to the end of a block: nothing behind it is read."""

    def __init__(self, file: File, end: int) -> None:
        self._file, self._end = file, end

    def pread(self, size: int, offset: int) -> bytes:
        return self._file.pread(max(0, min(size, self._end - offset)), offset)

    def size(self) -> int:
        return self._end


class BlockReader:
    """Reads the events of blocks, and keeps some of them."""

    def __init__(self, disk: Disk, layout: Layout) -> None:
        self._disk, self._layout = disk, layout
        self._files: OrderedDict[int, File] = OrderedDict()
        self._decoded: OrderedDict[int, dict[str, list[Entry]]] = OrderedDict()

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()

    def read(self, block: Block) -> Iterator[Entry]:
        """Yields the events of a block.

        Raises:
            HistoryDamaged: They do not stand there.
            FileNotFoundError: Its segment was pruned meanwhile.
        """
        file = self._file(block.segment_seq)
        path = self._layout.archived(block.segment_seq)
        scan = SegmentScan(_Window(file, block.end), path, read_header(file, path))  # type: ignore[arg-type]
        scan.offset, scan.next_seq, scan.crc = block.begin, block.first_seq, block.crc_before
        for frame in scan:
            if frame.count:
                time_ms, events = decode_frame(path, frame)
                for seq, event in enumerate(events, frame.first_seq):
                    yield seq, time_ms, event
            if scan.last_seq >= block.last_seq:
                return
        # The index is wrong about it, or the log is damaged, which those find who read that.
        raise HistoryDamaged(f"{path} has no intact frame at offset {scan.offset}")

    def by_job(self, block: Block) -> dict[str, list[Entry]]:
        """Returns the events of a block by job."""
        decoded = self._decoded.get(block.first_seq)
        if decoded is None:
            decoded = {}
            for entry in self.read(block):
                event = entry[2]
                if isinstance(event, JobEvent):
                    decoded.setdefault(event.job, []).append(entry)
            self._decoded[block.first_seq] = decoded
            if len(self._decoded) > _DECODED_MAX:
                self._decoded.popitem(last=False)
        else:
            self._decoded.move_to_end(block.first_seq)
        return decoded

    def _file(self, segment_seq: int) -> File:
        file = self._files.get(segment_seq)
        if file is None:
            file = open_segment(self._disk, self._layout, segment_seq)
            if file is None:
                raise FileNotFoundError(self._layout.archived(segment_seq))
            self._files[segment_seq] = file
            if len(self._files) > _FILES_MAX:
                self._files.popitem(last=False)[1].close()
        return file
