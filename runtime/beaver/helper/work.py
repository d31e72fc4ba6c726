"""The helper's work as plain functions: tests and the simulator call them in-process.

What lives here: preparing a segment, taking a snapshot, pruning the archive, indexing the
log as the history.  What may not: processes and sockets, which stand in `main` and `process`.

Why a snapshot never endangers anything:

1. It is made from an older snapshot and the log alone, up to a seq that is durable.
2. The state that it is made of is compared with what the server saw of its live state.
3. It is read back and compared, whole, with the state that it was made of; then it gets its
   name, and the one before stays as the older one.
4. Nothing is deleted before that, and nothing is where a comparison fails.
5. A sealed segment is deleted only if the *older* kept snapshot holds all of it, the history
   has projected all of it, and it is outside the retention.  So with the newest snapshot
   damaged, the older one and the archive still give the whole state.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import PurePath
from typing import Final

from beaver.errors import NO_ROOM, DiskFull, HelperFailed, LiveStateDiffers
from beaver.history.block_reader import BlockReader
from beaver.history.database import LogIndex
from beaver.history.rows import HistoryUnusable
from beaver.journal.wal.following import Follower
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import SegmentInfo, decode_frame, frames, segments
from beaver.ports import Clock, Disk
from beaver.replay.replaying import bring_up
from beaver.snapshot.files import (
    LoadedSnapshot,
    inspect_snapshot,
    load_snapshot,
    name_snapshot,
    write_unnamed,
)
from beaver.snapshot.lines import SnapshotDamaged
from beaver.structs.messages import SnapshotWritten
from beaver_model import State
from beaver_model.contents import Glance, difference_at_a_glance

log = logging.getLogger("beaver")

_SLICE_BYTES: Final = 1 << 20
_SYNC_BYTES: Final = 8 << 20
"""Zero bytes between two syncs: what waits behind them is a commit of the server."""
_ZEROS: Final = bytes(_SLICE_BYTES)


# -- segments -------------------------------------------------------------------------------


def prepare_segment(disk: Disk, path: str, size: int) -> None:
    """Makes a file of `size` zero bytes, or nothing at all.

    It is written under a temporary name and gets its own once it is synced, so a file at
    `path` is always whole.

    Raises:
        DiskFull: It does not fit; what was written is removed again.
    """
    temporary = path + ".tmp"
    with _disk_full(f"no room for a log segment of {size} bytes at {path}"):
        if disk.exists(temporary):
            disk.unlink(temporary)
        file = disk.open(temporary, write=True, create=True)
        try:
            try:
                for offset in range(0, size, _SLICE_BYTES):
                    file.pwrite(_ZEROS[: size - offset], offset)
                    if (offset + _SLICE_BYTES) % _SYNC_BYTES == 0:
                        file.sync()
                file.sync()
            finally:
                file.close()
        except BaseException:
            with contextlib.suppress(OSError):
                disk.unlink(temporary)
            raise
        disk.rename(temporary, path)
        disk.sync_dir(str(PurePath(path).parent))


@contextlib.contextmanager
def _disk_full(what: str) -> Iterator[None]:
    """Turns the system's word for a full disk into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(f"{what}: {error.strerror}") from error
        raise


# -- snapshots ------------------------------------------------------------------------------


def take_snapshot(
    disk: Disk, layout: Layout, last_seq: int, clock: Clock, live: Glance | None = None
) -> SnapshotWritten:
    """Writes a snapshot of the state at `last_seq`, a seq that is durable.

    Where the newest one already holds that state, nothing is written.

    Args:
        disk: Where the store lies.
        layout: Its files.
        last_seq: Up to where.
        clock: For the time that it takes.
        live: The server's glance at its live state at that seq.

    Raises:
        LiveStateDiffers: The replayed state is another one; nothing was changed.
        SnapshotDiffers: The snapshot reads back as another state; nothing was changed.
        Corruption: Snapshots or log are damaged; nothing was changed.
        DiskFull: There is no room for it; nothing was changed.
        HelperFailed: The log ends before `last_seq`.
    """
    started_ns = clock.monotonic_ns()
    base, newest_is_good = _base(disk, layout, last_seq)
    state = State() if base is None else base.state
    bring_up(disk, layout, state, last_seq)
    if state.last_seq != last_seq:
        raise HelperFailed(
            f"the log of {layout.path} ends with seq {state.last_seq}, not {last_seq}"
        )
    if live is not None:
        _compare_live(state, live)
    if base is not None and newest_is_good and base.last_seq == last_seq:
        taken = SnapshotWritten(last_seq, base.fingerprint, state.ledger, base.bytes)
    else:
        store = segments(disk, layout)[-1].header.store
        with _disk_full(f"no room for a snapshot at {layout.snapshot}"):
            unnamed = write_unnamed(disk, layout, state, store)
            # The state is freed before the snapshot is read back.
            del state, base
            taken = name_snapshot(disk, layout, unnamed, keep_previous=newest_is_good)
    taken.seconds = (clock.monotonic_ns() - started_ns) / 1e9
    return taken


def _compare_live(state: State, live: Glance) -> None:
    assert state.last_seq == live.last_seq, "it is a glance at the state that is asked for"
    wrong = difference_at_a_glance(state, live)
    if wrong:
        raise LiveStateDiffers(
            f"replaying the log up to seq {state.last_seq} gives another state than the live one: "
            f"{wrong}. No snapshot is taken and no segment of the log is deleted; the log is "
            "right, and a restart recovers from it"
        )


def _base(disk: Disk, layout: Layout, last_seq: int) -> tuple[LoadedSnapshot | None, bool]:
    """Returns the newest usable snapshot, and whether the file of the newest may be kept.

    The fingerprint is taken anew and compared with the writer's, which may have been another
    release: this one must read it as the same state.
    """
    newest_is_good = True
    for path in (layout.snapshot, layout.snapshot_old):
        try:
            loaded = load_snapshot(disk, path, check_fingerprint=True)
        except FileNotFoundError:
            continue
        except SnapshotDamaged:
            newest_is_good = newest_is_good and path != layout.snapshot
            continue
        if loaded.last_seq <= last_seq:
            return loaded, newest_is_good
    return None, newest_is_good


# -- the archive ------------------------------------------------------------------------------


def prune_archive(
    disk: Disk,
    layout: Layout,
    *,
    keep_bytes: int,
    keep_ms: int,
    now_ms: int,
    applied_seq: int,
    before: Callable[[int], None] = lambda _: None,
) -> int:
    """Deletes sealed segments that nothing needs any more, oldest first.

    Args:
        disk: Where the store lies.
        layout: Its files.
        keep_bytes: Archive that is kept in any case below this size.
        keep_ms: Segments younger than this are kept, unless the archive is larger.
        now_ms: The time.
        applied_seq: How far the history has indexed.
        before: Told, before a segment is deleted, with which seq the log will begin.

    Returns:
        The first seq that is still in the log.
    """
    infos = segments(disk, layout)
    if not infos:
        return 1
    floor = min(applied_seq, _older_snapshot_seq(disk, layout))
    total = sum(info.bytes for info in infos[:-1])
    kept = 0
    for info, following in pairwise(infos):
        if following.first_seq - 1 > floor:
            break
        if total <= keep_bytes and not _is_older(disk, following, now_ms - keep_ms):
            break
        before(following.first_seq)
        disk.unlink(info.path)
        # One by one, so that a crash leaves no hole in the archive.
        disk.sync_dir(layout.archive)
        total -= info.bytes
        kept += 1
    return infos[kept].first_seq


def _older_snapshot_seq(disk: Disk, layout: Layout) -> int:
    """Returns the seq up to which the older kept snapshot makes the log dispensable."""
    try:
        newest = inspect_snapshot(disk, layout.snapshot).last_seq
        older = inspect_snapshot(disk, layout.snapshot_old).last_seq
    except (FileNotFoundError, SnapshotDamaged):
        return 0
    return min(newest, older)


def _is_older(disk: Disk, following: SegmentInfo, time_ms: int) -> bool:
    """True where everything before a segment was stamped before `time_ms`."""
    try:
        file = disk.open(following.path)
    except FileNotFoundError:
        return False
    try:
        for frame in frames(file, following.path):
            if frame.count:
                return decode_frame(following.path, frame)[0] < time_ms
    finally:
        file.close()
    return False


# -- the history ------------------------------------------------------------------------------


def project(disk: Disk, layout: Layout, last_seq: int) -> int:
    """Indexes the log up to `last_seq`, a durable seq, in `history.db`.

    An index that is missing, damaged, of another store or ahead of the log is made anew from
    the oldest kept segment.

    Returns:
        Its `applied_seq`.
    """
    infos = segments(disk, layout)
    if not infos:
        return 0
    store, oldest_seq = infos[0].header.store, infos[0].first_seq
    with _disk_full(f"no room for {layout.history}"):
        try:
            return _project(disk, layout, store, oldest_seq, last_seq)
        except HistoryUnusable:
            LogIndex.create(layout.history, store).close()
            return _project(disk, layout, store, oldest_seq, last_seq)


def _project(disk: Disk, layout: Layout, store: bytes, oldest_seq: int, last_seq: int) -> int:
    path = layout.history
    with LogIndex.open_or_create(path, store) as history:
        applied_seq = history.applied_seq
        if applied_seq > last_seq:
            log.warning(
                "%s holds events up to seq %d, and the log ends with seq %d: the log has lost "
                "events that were acknowledged.  The history is made anew from what is left",
                path,
                applied_seq,
                last_seq,
            )
            raise HistoryUnusable(f"{path} holds seq {applied_seq}; the log ends with {last_seq}")
        after_seq = max(applied_seq, oldest_seq - 1)
        follower = Follower(disk, layout, history.position)
        return history.apply(follower.commits(after_seq, last_seq), lambda: follower.cursor)


def snapshot_and_prune(
    disk: Disk,
    layout: Layout,
    last_seq: int,
    keep_bytes: int,
    keep_ms: int,
    clock: Clock,
    live: Glance | None = None,
) -> SnapshotWritten:
    """Takes a snapshot, and deletes what is dispensable only once every comparison holds.

    Where there is no room for it, what the comparisons of the snapshots before allow is deleted
    first, and it is tried again.

    Raises:
        BeaverError: As `take_snapshot`; nothing was deleted, unless there was no room.
    """
    try:
        taken = take_snapshot(disk, layout, last_seq, clock, live)
    except DiskFull:
        _prune(disk, layout, keep_bytes, keep_ms, clock)
        taken = take_snapshot(disk, layout, last_seq, clock, live)
    _prune(disk, layout, keep_bytes, keep_ms, clock)
    return taken


def _prune(disk: Disk, layout: Layout, keep_bytes: int, keep_ms: int, clock: Clock) -> None:
    """Prunes the archive, once the history has taken over what is still to be told."""
    store = segments(disk, layout)[-1].header.store
    try:
        history = LogIndex(layout.history, store, write=True)
    except (FileNotFoundError, HistoryUnusable):
        return  # Segments that it has not indexed are kept.
    with (
        contextlib.closing(history),
        contextlib.closing(BlockReader(disk, layout)) as reader,
        contextlib.suppress(HistoryUnusable),
    ):
        prune_archive(
            disk,
            layout,
            keep_bytes=keep_bytes,
            keep_ms=keep_ms,
            now_ms=clock.wall_ms(),
            applied_seq=history.applied_seq,
            before=lambda first_seq: history.keep(first_seq, reader.read),
        )
