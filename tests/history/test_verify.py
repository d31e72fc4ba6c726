"""`verify`: snapshot, archive and log are compared with each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaver.errors import StoreUnavailable
from beaver.replay.replaying import check
from beaver.replay.verifying import verify
from beaver.snapshot.files import write_snapshot
from beaver.system.disk import SystemDisk
from beaver_model import fingerprint
from tests.history.long_store import listing, long_store, prune
from tests.worlds.stores import STORE, LoggedWorld, flip


def test_verify_compares_every_way_to_the_end(world: LoggedWorld) -> None:
    long_store(world)
    before = listing(world.path)
    report = verify(SystemDisk(), world.path)
    assert report.ok
    assert report.error is None
    now = fingerprint(world.state)
    assert [(base.base, base.seq, base.fingerprint) for base in report.bases] == [
        ("start", 0, now),
        ("older snapshot", 7, now),
        ("snapshot", 10, now),
    ]
    assert [(s.name, s.ok, s.last_seq) for s in report.snapshots] == [
        ("older snapshot", True, 7),
        ("snapshot", True, 10),
    ]
    assert listing(world.path) == before
    prune(world)
    report = verify(SystemDisk(), world.path)
    assert report.ok
    assert [base.base for base in report.bases] == ["older snapshot", "snapshot"]


def test_verify_names_a_damaged_snapshot(world: LoggedWorld) -> None:
    long_store(world)
    flip(world.layout.snapshot_old, 100)
    report = verify(SystemDisk(), world.path)
    assert not report.ok
    assert report.log.ok
    assert report.error is not None
    assert report.error.file == world.layout.snapshot_old


def test_verify_finds_an_intact_snapshot_of_another_state(world: LoggedWorld) -> None:
    """Intact by itself, and not what the log gives: only the comparison can tell."""
    world.run("a")
    other = LoggedWorld(Path(world.path).parent / "other")
    other.run("b")
    write_snapshot(world.disk, world.layout, other.state, STORE)
    report = verify(SystemDisk(), world.path)
    assert not report.ok
    assert [snapshot.ok for snapshot in report.snapshots] == [True]
    start = report.bases[0]
    assert (start.base, start.ok) == ("start", False)
    assert "at seq 3 the log gives the fingerprint" in start.reason


def test_verify_names_a_snapshot_of_another_store(world: LoggedWorld) -> None:
    world.run("a")
    write_snapshot(world.disk, world.layout, world.state, b"x" * 16)
    report = verify(SystemDisk(), world.path)
    assert not report.ok
    assert report.error is not None
    assert "another store" in report.error.reason


def test_verify_names_corruption_of_the_log(world: LoggedWorld) -> None:
    long_store(world)
    flip(world.layout.archived(11), 64 + 40)
    report = verify(SystemDisk(), world.path)
    assert not report.ok
    assert report.error is not None
    assert (report.error.file, report.error.seq) == (world.layout.archived(11), 11)


def test_verify_refuses_a_log_without_its_beginning_and_a_snapshot(world: LoggedWorld) -> None:
    """A copy that lacks archive and snapshots is no store, however whole its log may be."""
    long_store(world)
    prune(world)
    assert verify(SystemDisk(), world.path).ok, "the snapshots stand for what was pruned"
    for path in (world.layout.snapshot, world.layout.snapshot_old):
        world.disk.unlink(path)
    assert check(SystemDisk(), world.path).ok, "the chain of what is left is whole"
    report = verify(SystemDisk(), world.path)
    assert not report.ok
    assert report.error is not None
    assert report.error.file == world.layout.snapshot
    assert "no snapshot reaches the log, which begins with seq" in report.error.reason


def test_verify_takes_directories_only(world: LoggedWorld) -> None:
    world.run("a")
    with pytest.raises(StoreUnavailable, match="is a file"):
        verify(SystemDisk(), world.layout.log)
