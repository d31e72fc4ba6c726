"""What a command without a server does for the next one: it keeps recovery short.

Such a command recovers the whole store, appends one commit and leaves.  Where nobody ever
runs a server, the log would only grow, and every command would read all of it.  So the one
that found a long log seals it and leaves a snapshot, in the very ways in which a server and
its helper do; the archive and the history are for the next server to look after.
"""

from __future__ import annotations

from typing import Final

from beaver.errors import DiskFull
from beaver.helper.work import prepare_segment, save_snapshot
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.log import EXTEND_BYTES
from beaver.journal.wal.recovery_table import Row
from beaver.ports import Disk
from beaver.store.recovery import Opened

_DAMAGED: Final = frozenset({Row.SNAPSHOT_DAMAGED.label, Row.SNAPSHOTS_USELESS.label})


def shorten_log(disk: Disk, layout: Layout, opened: Opened) -> bool:
    """Seals the log and takes a snapshot; the caller holds the lock, and all is durable.

    Returns:
        False where the disk had no room or failed at it: nothing is lost by that, and the
        next command tries again.

    Raises:
        StorageFailed: Sealing failed; the log must not be used any more.
    """
    wal = opened.wal
    try:
        if not wal.has_next:
            prepare_segment(disk, layout.next, EXTEND_BYTES)
            wal.adopt(layout.next)
        wal.seal()
        newest_is_good = _DAMAGED.isdisjoint(opened.report.rows)
        save_snapshot(disk, layout, opened.state, wal.store, keep_previous=newest_is_good)
    except (DiskFull, OSError):
        return False
    return True
