"""Reading a target: the store that it holds, as a disk that can be restored and verified."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from beaver.backup import pieces
from beaver.backup.pieces import Pieces
from beaver.errors import BackupDamaged, NotFound
from beaver.journal.wal.layout import Layout
from beaver.shipping.contents import Contents
from beaver.shipping.ownership import read_owner
from beaver.shipping.targets import Target
from beaver.store.log_source import Until


class Fetched(NamedTuple):
    """The store in a target."""

    disk: Pieces
    """Its files, under the name of the target."""
    store: str
    bytes: int
    """What was read for it."""


@contextlib.contextmanager
def fetched(
    target: Target, until: Until, scratch: str, on_progress: Callable[[int, int], None]
) -> Iterator[Fetched]:
    """Fetches what is needed to restore up to a point, and yields it.

    Args:
        target: Where it is.
        until: Up to where.
        scratch: A directory with room, for what cannot be read in place.
        on_progress: Told how many bytes of how many are there.

    Raises:
        NotFound: There is no target of `beaver ship`.
        BackupDamaged: It is damaged.
        TargetFailed: It cannot be reached.
    """
    found = read_owner(target)
    if found is None:
        raise NotFound(f"{target.name} is no target of `beaver ship`")
    contents = Contents(target.name, target.list())
    owner = found[0]
    contents.check(owner.begins)
    if not contents.segments:
        raise NotFound(f"{target.name} holds no log yet")
    disk = Pieces(target.name)
    layout = Layout(target.name)
    kept = [seq for seq in sorted(contents.segments) if seq >= owner.begins]
    order = [seq for seq in kept if until.seq is None or seq <= until.seq] or kept[:1]
    covers = {seq: contents.segments[seq].cover() for seq in order}
    total, done = sum(piece.size for cover in covers.values() for piece in cover), 0
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".fetched-") as place:
        try:
            snapshots = [
                one for one in sorted(contents.snapshots) if until.holds(one.seq, one.time_ms)
            ]
            for snapshot, path in zip(
                reversed(snapshots), (layout.snapshot, layout.snapshot_old), strict=False
            ):
                file = disk.keep(target.open(snapshot.key, Path(place)))
                disk.files[path] = (pieces.Piece(file, 0, file.size()),)
            for seq in order:
                parts = []
                for piece in covers[seq]:
                    file = disk.keep(target.open(piece.key, Path(place)))
                    if file.size() != piece.size:
                        raise BackupDamaged(
                            f"{target.name}/{piece.key} has {file.size()} bytes, and its name says "
                            f"{piece.size}: the target is damaged"
                        )
                    parts.append(pieces.Piece(file, 0, piece.size))
                    done += piece.size
                    on_progress(done, total)
                disk.files[layout.archived(seq) if seq != order[-1] else layout.log] = tuple(parts)
            yield Fetched(disk, owner.store, done)
        finally:
            disk.close()
