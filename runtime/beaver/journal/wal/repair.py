"""Repair: a log that was read is made good, durably, before anything is appended to it.

What lives here: the repairs, and the order in which they are made.  `forensics` reads and
judges; `recovery_table` says what each find means.

Reading comes first, and every refusal with it: a start that refuses has changed nothing.
Then the repairs, in an order in which a crash behind any of them leaves a store that the
next recovery brings to the same state:

1. Leftovers of sealing are dropped: the second name of `wal.log` in the archive, and
   prepared segments.  None holds an event that `wal.log` does not.  A crash: the same row
   again, or its name is gone.
2. A torn tail is copied to a `.broken` file, for people.  A crash: torn still; the next
   recovery makes another copy.
3. The tail is zeroed to the end of the file, to be synced before anything is accepted.
   Otherwise a later crash could mix blocks of the old tail with those of a new frame.  A
   crash in the middle leaves some of the old blocks: torn still, or clean.  They never
   become a frame, since the one frame they are of has lost a part.
4. The last valid frame is rewritten with the same bytes, and both are synced.  After a failed sync,
   or a kill in the middle of one, it may live in the page cache alone, in pages that the
   kernel calls clean: a sync of the file would say "done" and write nothing.  Rewriting
   makes the pages dirty again.  A crash in the middle changes nothing where the frame was
   on disk, and tears it where it was not; then nobody was told of it, and it is cut.
   Frames before it need no such care: each was synced, by append or by this very step,
   before the next one was written.
5. The names in both directories are synced.

Only then is the log handed over.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from beaver.errors import NO_ROOM
from beaver.journal.wal.forensics import Forensics
from beaver.journal.wal.format import CLOSE, FILE_HEADER_BYTES
from beaver.journal.wal.recovery_table import RecoveryRow
from beaver.journal.wal.scan import End, EndKind
from beaver.journal.wal.tail import Tail
from beaver.journal.wal.zeros import EXTEND_BYTES, write_zeros
from beaver.ports import File


def repair(reading: Forensics, file: File) -> Tail:
    """Makes the files of a log good that was read to its end; the docstring tells the steps.

    Returns:
        Where the log, which `file` is, goes on.
    """
    disk, layout, scan = reading.disk, reading.layout, reading.scan
    assert scan is not None, "read before it is repaired"
    assert scan.end is not None, "the scan was exhausted"
    with reading.report.phase("open", reading.clock.monotonic_ns):
        _drop_leftovers(reading)
        if scan.end.kind == EndKind.TORN:
            _keep_tail(reading, file, scan.end)
            write_zeros(file, scan.end.offset, file.size())
        start, last = scan.last_bytes()
        file.pwrite(last, start)
        file.sync()
        disk.mkdir(layout.archive)
        disk.sync_dir(layout.archive)
        disk.sync_dir(layout.path)
    flags = scan.flags if scan.frames else CLOSE
    return Tail(scan.header, scan.offset, scan.next_seq, scan.crc, flags)


def _drop_leftovers(reading: Forensics) -> None:
    """Drops what sealing, cut short, has left; step 1."""
    disk, layout = reading.disk, reading.layout
    if reading.twin:
        disk.unlink(reading.twin)
        disk.sync_dir(layout.archive)
    for path in (layout.next, layout.adopted):
        if not disk.exists(path):
            continue
        file = disk.open(path)
        try:
            has_header = bool(file.pread(FILE_HEADER_BYTES, 0).strip(b"\0"))
        finally:
            file.close()
        if not reading.twin:
            reading.note(
                RecoveryRow.SEALING_NOT_LINKED if has_header else RecoveryRow.PREPARED_UNUSED
            )
        disk.unlink(path)


def _keep_tail(reading: Forensics, file: File, end: End) -> None:
    """Copies a torn tail beside the log, for people; a full disk does not stop a start."""
    disk = reading.disk
    now = datetime.fromtimestamp(reading.clock.wall_ms() / 1000, UTC)
    stem = now.strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
    path, number = reading.layout.broken(stem), 1
    while disk.exists(path):
        number += 1
        path = reading.layout.broken(f"{stem}-{number}")
    try:
        kept = disk.open(path, create=True)
        try:
            for done in range(0, end.torn_bytes, EXTEND_BYTES):
                size = min(EXTEND_BYTES, end.torn_bytes - done)
                kept.pwrite(file.pread(size, end.offset + done), done)
            kept.sync()
        finally:
            kept.close()
        disk.sync_dir(reading.layout.path)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        with contextlib.suppress(OSError):
            disk.unlink(path)
        return
    reading.report.broken = path
