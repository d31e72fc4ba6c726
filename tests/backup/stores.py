"""A store with all kinds of files, for the tests of copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaver.backup.restoring import Restored, restore_file
from beaver.backup.writing import back_up
from beaver.helper.work import take_snapshot
from beaver.replay.replaying import check
from beaver.store.log_source import Until
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from tests.worlds.model import job
from tests.worlds.stores import LoggedWorld

DISK, CLOCK = SystemDisk(), SystemClock()
HOUR_MS = 3_600_000


def quiet(done: int, of: int) -> None:
    """Shows nothing."""


def make_store(path: Path, segments: int = 4, store: bytes = b"store-of-a-test!") -> LoggedWorld:
    """Sealed segments an hour apart, two snapshots, and jobs in every state."""
    world = LoggedWorld(path, store=store, segment_bytes=1 << 14)
    for number in range(segments):
        world.run(f"done-{number}", b'"%d"' % number)
        world.fail_and_wait(f"failed-{number}")
        world.enqueue(job(f"waits-{number}"))
        world.dispatch(f"waits-{number}")
        if number < segments - 1:
            world.seal()
            if number in (1, 2):
                take_snapshot(DISK, world.layout, world.state.last_seq, CLOCK)
        world.now_ms += HOUR_MS
    return world


def fingerprint(path: Path | str, until: Until | None = None) -> str:
    """The state that the files of a store give."""
    report = check(DISK, str(path), until)
    assert report.ok, report
    assert report.fingerprint
    return report.fingerprint


def backed_up(world: LoggedWorld, file: Path) -> Path:
    back_up(DISK, world.path, str(file), CLOCK)
    return file


def restored(file: Path, data: Path, until: Until | None = None) -> Restored:
    return restore_file(str(file), str(data), until or Until(), quiet)


@pytest.fixture
def world(tmp_path: Path) -> LoggedWorld:
    return make_store(tmp_path / "data")
