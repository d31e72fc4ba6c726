"""Compaction: a command without a server keeps recovery short for the next one.

Such a command recovers the whole store, appends one commit and leaves.  Where nobody ever
runs a server, the log would only grow, and every command would read all of it.  So the one
that found a long log seals it and leaves a snapshot, in the very ways in which a server and
its helper do; the archive and the history are for the next server to look after.
"""

from __future__ import annotations

from typing import Final

from beaver.errors import DiskFull
from beaver.helper.work import prepare_segment
from beaver.journal.port import Journal
from beaver.ports import Disk
from beaver.snapshot.port import Snapshot, Snapshots
from beaver_model import State

_SEGMENT_BYTES: Final = 1 << 20
"""Size of the next segment: it holds few jobs, and is extended where there are more."""


def shorten_log(disk: Disk, journal: Journal, snapshots: Snapshots, state: State) -> bool:
    """Seals the log and takes a snapshot of its state; all of it is durable.

    Returns:
        False where the disk had no room or failed at it, or the journal has no segments:
        nothing is lost by that, and the next command tries again.

    Raises:
        StorageFailed: Sealing failed; the log must not be used any more.
    """
    segments = journal.segments
    if segments is None:
        return False
    try:
        if not segments.has_next:
            prepare_segment(disk, segments.next_path, _SEGMENT_BYTES)
            segments.adopt(segments.next_path)
        segments.seal()
        snapshots.save(journal.store, Snapshot(state, journal.position))
    except (DiskFull, OSError):
        return False
    return True
