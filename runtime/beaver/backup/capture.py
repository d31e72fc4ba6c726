"""What of a store belongs to a copy, held at one seq while the store is used on.

Snapshots, sealed segments, and the active segment up to its last whole frame.  All of them are
opened first and read then: whatever is pruned or replaced meanwhile stays readable.  Nothing is
locked, so the writer of the store never waits.

What does not belong to a copy is what says who a store is and what runs on it: locks, slots,
`server.json`, tokens.  The index of the log is made anew.
"""

from __future__ import annotations

import contextlib
import errno
from typing import Final, NamedTuple

from beaver.backup.pieces import Piece, Pieces
from beaver.errors import NotFound, StoreUnavailable
from beaver.journal.wal.following import open_segment
from beaver.journal.wal.format import FileHeader
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import segments
from beaver.journal.wal.scan import Damage, Damaged, SegmentScan
from beaver.ports import Disk
from beaver.store.weighing import used_bytes

_ATTEMPTS: Final = 5


class Captured(NamedTuple):
    """A store as it was at one seq."""

    disk: Pieces
    """Its files, under their own paths."""
    layout: Layout
    header: FileHeader
    """Of its oldest segment."""
    last_seq: int

    def members(self) -> list[tuple[str, int]]:
        """Returns name and size of each file, those first that a reader needs first."""
        root = f"{self.layout.path}/"
        return [
            (path.removeprefix(root), sum(piece.size for piece in pieces))
            for path, pieces in self.disk.files.items()
        ]


def capture(disk: Disk, path: str) -> Captured:
    """Opens everything of the store at `path` that belongs to a copy.

    It holds all that was acknowledged before the call.

    Raises:
        NotFound: There is no store.
        Corruption, NewerFormat: The log cannot be copied.
        StoreUnavailable: Its files may not be read, or too many are needed at once.
    """
    for _ in range(_ATTEMPTS):
        pieces = Pieces(path)
        try:
            return _capture(disk, Layout(path), pieces)
        except (FileNotFoundError, Damaged) as error:
            pieces.close()
            # A segment was sealed or pruned, and a snapshot replaced, since they were listed.
            moved = isinstance(error, FileNotFoundError) or error.damage is Damage.GAP
            if not moved:
                raise
            last = error
        except OSError as error:
            pieces.close()
            what = error.strerror
            if error.errno in (errno.EMFILE, errno.ENFILE):
                what = "too many segments for the limit of open files; raise it (ulimit -n)"
            raise StoreUnavailable(f"cannot read {error.filename or path}: {what}") from error
        except BaseException:
            pieces.close()
            raise
    if isinstance(last, Damaged):
        raise last
    raise StoreUnavailable(f"the files of {path} changed each time they were read; try again")


def _capture(disk: Disk, layout: Layout, pieces: Pieces) -> Captured:
    # Snapshots first: one that is taken later may be ahead of the log that is copied.
    for path in (layout.snapshot_old, layout.snapshot):
        with contextlib.suppress(FileNotFoundError):
            snapshot = pieces.keep(disk.open(path))
            pieces.files[path] = (Piece(snapshot, 0, snapshot.size()),)
    infos = segments(disk, layout)
    if not infos:
        raise NotFound(f"{layout.path} holds no queue")
    next_seq = infos[0].first_seq
    for info in infos:
        file = open_segment(disk, layout, info.first_seq)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "it was pruned", info.path)
        pieces.keep(file)
        if info is not infos[-1]:
            size = min(used_bytes(file), file.size())
            pieces.files[info.path] = (Piece(file, 0, size),)
            continue
        scan = SegmentScan(file, info.path, info.header)
        scan.read()
        scan.refuse_corrupt()
        next_seq = scan.next_seq
        # Also where it has been sealed since, or is archived and active at once.
        pieces.files[layout.log] = (Piece(file, 0, scan.offset),)
    return Captured(pieces, layout, infos[0].header, next_seq - 1)
