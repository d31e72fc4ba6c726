"""What the helper does with a store's files, in-process: snapshots, pruning, preparing."""

from __future__ import annotations

import contextlib
import errno
import random
from pathlib import Path

import pytest

from beaver.errors import Corruption, DiskFull, HelperFailed
from beaver.helper.work import (
    prepare_segment,
    project,
    prune_archive,
    snapshot_and_prune,
    take_snapshot,
)
from beaver.history.database import LogIndex
from beaver.journal.wal.following import Cursor, Follower
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import LogScan, read_commits, segments
from beaver.snapshot.files import inspect_snapshot, load_snapshot, write_snapshot
from beaver.snapshot.lines import SnapshotDamaged
from beaver.system.disk import SystemDisk
from beaver_chaos.sim.disk import Fault, SimDisk, Stopped
from beaver_model import fingerprint, freeze, replay
from tests.worlds.model import job
from tests.worlds.runtime import ManualClock
from tests.worlds.stores import STORE, LoggedWorld, events_of, flip

ALL_TIME_MS = 1 << 60
ALL_BYTES = 1 << 60


@pytest.fixture
def world(tmp_path: Path) -> LoggedWorld:
    return LoggedWorld(tmp_path / "data")


def snap(world: LoggedWorld) -> None:
    """Takes a snapshot of everything and checks it against the live state."""
    taken = take_snapshot(world.disk, world.layout, world.state.last_seq, ManualClock())
    assert taken.last_seq == world.state.last_seq
    assert taken.fingerprint == fingerprint(world.state)
    assert taken.ledger == world.state.ledger


# -- snapshots --------------------------------------------------------------------------------


def test_a_snapshot_made_from_the_log_is_the_live_state(world: LoggedWorld) -> None:
    world.run("a")
    world.seal()
    world.enqueue(job("b"), job("c"))
    world.dispatch("b")
    snap(world)
    loaded = load_snapshot(world.disk, world.layout.snapshot, check_fingerprint=True)
    assert freeze(loaded.state) == freeze(world.state)
    assert loaded.store == STORE


def test_a_snapshot_builds_on_the_one_before(world: LoggedWorld) -> None:
    world.run("a")
    world.seal()
    snap(world)
    snap_seq = world.state.last_seq
    # Without the archive only the snapshot can tell what came before.
    world.disk.unlink(segments(world.disk, world.layout)[0].path)
    world.run("b")
    world.fail_and_wait("c")
    snap(world)
    assert inspect_snapshot(world.disk, world.layout.snapshot_old).last_seq == snap_seq


def test_a_snapshot_holds_the_state_at_the_seq_asked_for(world: LoggedWorld) -> None:
    world.run("a")
    then, seq = freeze(world.state), world.state.last_seq
    world.run("b")
    take_snapshot(world.disk, world.layout, seq, ManualClock())
    assert freeze(load_snapshot(world.disk, world.layout.snapshot).state) == then


def test_nothing_is_written_where_nothing_is_new(world: LoggedWorld) -> None:
    world.run("a")
    snap(world)
    before = Path(world.layout.snapshot).stat()
    snap(world)
    assert Path(world.layout.snapshot).stat().st_ino == before.st_ino
    assert not world.disk.exists(world.layout.snapshot_old)


def test_a_damaged_snapshot_is_replaced_from_the_older_one(world: LoggedWorld) -> None:
    world.run("a")
    snap(world)
    older_seq = world.state.last_seq
    world.run("b")
    snap(world)
    flip(world.layout.snapshot, 100)
    world.run("c")
    snap(world)
    assert inspect_snapshot(world.disk, world.layout.snapshot_old).last_seq == older_seq


def test_a_log_that_ends_early_gives_no_snapshot(world: LoggedWorld) -> None:
    world.run("a")
    with pytest.raises(HelperFailed, match="ends with seq 3, not 99"):
        take_snapshot(world.disk, world.layout, 99, ManualClock())
    assert not world.disk.exists(world.layout.snapshot)


def test_a_corrupt_log_gives_no_snapshot(world: LoggedWorld) -> None:
    world.run("a")
    world.run("b")
    flip(world.layout.log, 64 + 40)
    with pytest.raises(Corruption):
        take_snapshot(world.disk, world.layout, world.state.last_seq, ManualClock())
    assert not world.disk.exists(world.layout.snapshot)


def test_a_crash_at_any_moment_leaves_a_snapshot_that_is_good_enough() -> None:
    """Whatever the crash keeps, the newest intact snapshot is not older than the last durable."""
    for seed in range(60):
        choose = random.Random(seed).randrange
        for stop_at in range(1, 30):
            disk = SimDisk("/", "/data")
            world = LoggedWorld("/data", disk=disk)
            seqs = []
            for name in ("a", "b"):
                world.run(name)
                write_snapshot(disk, world.layout, world.state, STORE)
                seqs.append(world.state.last_seq)
            world.run("c")
            disk.plan(disk.operations + stop_at, Fault(done=bool(seed % 2)))
            finished = False
            try:
                write_snapshot(disk, world.layout, world.state, STORE)
                finished = True
            except Stopped:
                pass
            disk.crash(choose)
            found = []
            for path in (world.layout.snapshot, world.layout.snapshot_old):
                try:
                    loaded = load_snapshot(disk, path, check_fingerprint=True)
                except (SnapshotDamaged, FileNotFoundError):
                    continue
                found.append(loaded.last_seq)
            assert found, f"seed {seed}, stopped at {stop_at}: no snapshot is left"
            newest = world.state.last_seq if finished else seqs[-1]
            assert max(found) >= newest, f"seed {seed}, stopped at {stop_at}: {found}"
            if finished:
                break


# -- the archive ------------------------------------------------------------------------------


def archive_of(world: LoggedWorld) -> list[int]:
    return [info.first_seq for info in segments(world.disk, world.layout) if info.archived]


def fill(world: LoggedWorld) -> list[int]:
    """Five sealed segments of three events, an hour apart; snapshots at seqs 6 and 12."""
    for number in range(5):
        world.run(f"job-{number}")
        if number in (1, 3):
            snap(world)
        world.seal()
        world.now_ms += 3_600_000
    world.run("last")
    return archive_of(world)


def prune(
    world: LoggedWorld, *, keep_bytes: int = 0, keep_ms: int = 0, applied_seq: int = 99
) -> int:
    return prune_archive(
        world.disk,
        world.layout,
        keep_bytes=keep_bytes,
        keep_ms=keep_ms,
        now_ms=world.now_ms,
        applied_seq=applied_seq,
    )


def test_only_what_the_older_snapshot_holds_is_deleted(world: LoggedWorld) -> None:
    assert fill(world) == [1, 4, 7, 10, 13]
    assert prune(world) == 7
    assert archive_of(world) == [7, 10, 13]


def test_without_an_older_snapshot_nothing_is_deleted(world: LoggedWorld) -> None:
    fill(world)
    world.disk.unlink(world.layout.snapshot_old)
    assert prune(world) == 1
    assert archive_of(world) == [1, 4, 7, 10, 13]


@pytest.mark.parametrize("which", ["snapshot", "snapshot_old"])
def test_with_a_damaged_snapshot_nothing_is_deleted(world: LoggedWorld, which: str) -> None:
    fill(world)
    flip(getattr(world.layout, which), 100)
    assert prune(world) == 1


def test_what_the_history_has_not_projected_is_kept(world: LoggedWorld) -> None:
    fill(world)
    assert prune(world, applied_seq=5) == 4


def test_young_segments_are_kept(world: LoggedWorld) -> None:
    fill(world)
    # What follows the first segment was written four hours ago.
    hours_ms = 4 * 3_600_000
    assert prune(world, keep_bytes=ALL_BYTES, keep_ms=hours_ms) == 1
    assert prune(world, keep_bytes=ALL_BYTES, keep_ms=hours_ms - 1) == 4


def test_an_archive_below_its_bound_keeps_what_is_young_only(world: LoggedWorld) -> None:
    """Age and size are both bounds: a segment goes where either is passed."""
    fill(world)
    segment = world.wal.segment_bytes
    assert prune(world, keep_ms=ALL_TIME_MS, keep_bytes=100 * segment) == 1
    assert prune(world, keep_ms=ALL_TIME_MS, keep_bytes=4 * segment) == 4


def test_after_pruning_the_state_still_comes_from_either_snapshot(world: LoggedWorld) -> None:
    fill(world)
    prune(world)
    for path in (world.layout.snapshot, world.layout.snapshot_old):
        state = load_snapshot(world.disk, path).state
        for first_seq, time_ms, events in read_commits(world.disk, world.layout, state.last_seq):
            replay(state, first_seq, time_ms, events)
        assert fingerprint(state) == fingerprint(world.state)


def test_a_crash_while_pruning_leaves_no_hole_in_the_archive() -> None:
    for seed in range(40):
        choose = random.Random(seed).randrange
        for stop_at in range(1, 8):
            disk = SimDisk("/", "/data")
            world = LoggedWorld("/data", disk=disk, segment_bytes=4096)
            fill(world)
            disk.plan(disk.operations + stop_at, Fault(done=bool(seed % 2)))
            with contextlib.suppress(Stopped):
                prune(world)
            disk.crash(choose)
            infos = segments(disk, world.layout)
            for _ in LogScan(disk, world.layout, infos, infos[0].first_seq - 1):
                pass


def test_a_snapshot_run_prunes_archive_and_history_alike(world: LoggedWorld) -> None:
    fill(world)
    project(world.disk, world.layout, world.state.last_seq)
    seq = world.state.last_seq
    snapshot_and_prune(world.disk, world.layout, seq, 0, 0, ManualClock(world.now_ms))
    # The snapshot at 12 is the older one now.
    assert archive_of(world) == [13]
    with LogIndex(world.layout.history, STORE) as history:
        assert history.first_seq == 13
    assert events_of(world.disk, world.layout, "job-3") == []
    assert len(events_of(world.disk, world.layout, "job-4")) == 3


# -- segments ---------------------------------------------------------------------------------


def test_a_prepared_segment_is_zero_bytes_of_the_size_asked_for(tmp_path: Path) -> None:
    path = str(tmp_path / "wal.next")
    for size in (1, 4096, (1 << 20) + 17, 9 << 20):
        prepare_segment(SystemDisk(), path, size)
        assert Path(path).read_bytes() == bytes(size)
    assert [p.name for p in tmp_path.iterdir()] == ["wal.next"]


def test_a_prepared_segment_is_durable_before_it_has_its_name() -> None:
    size = 3 << 20
    for seed in range(200):
        disk = SimDisk("/", "/data")
        disk.plan(disk.operations + 1 + seed % 10, Fault(done=bool(seed % 3)))
        with contextlib.suppress(Stopped):
            prepare_segment(disk, "/data/wal.next", size)
        disk.crash(random.Random(seed).randrange)
        if disk.exists("/data/wal.next"):
            assert len(disk.contents("/data/wal.next")) == size, f"seed {seed}"


def test_a_full_disk_leaves_no_half_segment() -> None:
    disk = SimDisk("/", "/data", capacity=5 << 20)
    with pytest.raises(DiskFull, match=r"/data/wal\.next"):
        prepare_segment(disk, "/data/wal.next", 8 << 20)
    assert disk.listdir("/data") == []
    disk.sync_dir("/data")
    prepare_segment(disk, "/data/wal.next", 4 << 20)


def test_another_error_is_not_called_a_full_disk() -> None:
    disk = SimDisk("/", "/data")
    disk.plan(disk.operations + 2, Fault(error=errno.EIO))
    with pytest.raises(OSError, match=r"Input/output"):
        prepare_segment(disk, "/data/wal.next", 4096)


# -- following the log --------------------------------------------------------------------------


def test_a_follower_goes_on_where_it_stopped_also_over_a_seal(world: LoggedWorld) -> None:
    cursor: Cursor | None = None
    seen: list[int] = []
    after_seq = 0
    for number in range(6):
        world.run(f"job-{number}")
        if number % 2:
            world.seal()
        follower = Follower(world.disk, world.layout, cursor)
        for first_seq, _, events, *_ in follower.commits(after_seq, world.state.last_seq):
            seen += range(first_seq, first_seq + len(events))
            after_seq = seen[-1]
        cursor = follower.cursor
    assert seen == list(range(1, world.state.last_seq + 1))


def test_a_place_behind_another_seq_than_is_asked_for_is_ignored(world: LoggedWorld) -> None:
    """Whoever stores a place need not understand it: of no use, it costs a reading."""
    world.run("a")
    at_the_end = Follower(world.disk, world.layout)
    whole = list(at_the_end.commits(0, world.state.last_seq))
    again = Follower(world.disk, world.layout, at_the_end.cursor)
    assert list(again.commits(0, world.state.last_seq)) == whole


def test_a_follower_reads_only_what_is_new(world: LoggedWorld) -> None:
    world.run("a")
    follower = Follower(world.disk, world.layout)
    assert len(list(follower.commits(0, world.state.last_seq))) == 3
    # Damage behind the cursor is not seen again: it was read and checked before.
    flip(world.layout.log, 64 + 40)
    world.run("b")
    assert len(list(follower.commits(3, world.state.last_seq))) == 3


def test_a_follower_stops_at_the_seq_that_is_durable(world: LoggedWorld) -> None:
    world.run("a")
    follower = Follower(world.disk, world.layout)
    assert [first for first, *_ in follower.commits(0, 2)] == [1, 2]
    assert [first for first, *_ in follower.commits(2, 3)] == [3]


def test_a_layout_without_a_log_projects_nothing(tmp_path: Path) -> None:
    assert project(SystemDisk(), Layout(str(tmp_path)), 0) == 0
