"""The locks of a data directory, and what they are worth while files come and go."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from beaver.errors import Corruption, LogLost, StoreUnavailable
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import Hold, acquire, try_acquire, try_lock
from beaver.journal.wal.log import Wal
from beaver.store.recovery import open_store
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver_chaos.sim.disk import SimDisk, SimLock
from tests.worlds.journal import append, enqueued

DATA = Layout("data")


def opened(disk: SimDisk) -> Wal:
    wal = open_store(disk, "data", clock=SystemClock(), create=True).journal
    append(wal, enqueued("a"))
    return wal


def test_a_lock_is_taken_on_the_file_of_that_name() -> None:
    """Somebody removes the file between its opening and its locking, and another one is made."""
    disk = SimDisk("data")
    times: list[str] = []
    real_lock = disk.lock

    def racing(path: str) -> SimLock | None:
        lock = real_lock(path)
        if not times:
            times.append(path)
            disk.unlink(path)
        return lock

    disk.lock = racing  # type: ignore[method-assign]
    hold = try_acquire(disk, "data")
    assert isinstance(hold, Hold)
    assert hold.identity() == disk.identity(DATA.lock)
    assert try_acquire(disk, "data") is None


def test_whoever_holds_the_log_keeps_others_out_without_its_lock_file() -> None:
    disk = SimDisk("data")
    wal = opened(disk)
    disk.unlink(DATA.lock)
    assert try_acquire(disk, "data") is None
    wal.check()
    assert disk.exists(DATA.lock), "it is made again"
    assert disk.lock(DATA.lock) is None, "and is held"
    wal.check()
    assert try_acquire(disk, "data") is None
    wal.close()
    assert try_acquire(disk, "data") is not None


def test_a_lock_file_that_somebody_else_waits_with_is_taken_over_later() -> None:
    disk = SimDisk("data")
    hold = try_acquire(disk, "data")
    assert hold is not None
    disk.unlink(DATA.lock)
    other = disk.lock(DATA.lock)
    assert other is not None
    assert not hold.renew()
    other.release()
    assert hold.renew()


def test_opening_a_log_that_is_held_is_refused_and_changes_nothing() -> None:
    disk = SimDisk("data")
    opened(disk)
    before = disk.contents(DATA.log)
    with pytest.raises(StoreUnavailable, match="is held by process"):
        open_store(disk, "data", clock=SystemClock(), create=False)
    assert disk.contents(DATA.log) == before


def test_a_start_that_refuses_gives_the_store_up() -> None:
    """Whoever has put the log in order starts again in the same process: a test, a producer."""
    disk = SimDisk("data")
    opened(disk).close()
    disk.flip(DATA.log, 64 + 40, 0)
    for _ in range(2):
        with pytest.raises(Corruption):
            open_store(disk, "data", clock=SystemClock(), create=False)
    disk.flip(DATA.log, 64 + 40, 0)
    open_store(disk, "data", clock=SystemClock(), create=False).journal.close()
    assert try_acquire(disk, "data") is not None


def test_the_next_segment_is_locked_before_it_becomes_the_log() -> None:
    disk = SimDisk("data")
    wal = opened(disk)
    disk.put(DATA.next, bytes(8192))
    wal.adopt(DATA.next)
    assert wal.seal()
    assert try_acquire(disk, "data") is None
    append(wal, enqueued("b"))


def test_a_log_is_looked_at_before_it_is_sealed() -> None:
    """Else a stranger's file would go into the archive."""
    disk = SimDisk("data")
    wal = opened(disk)
    disk.put(DATA.next, bytes(8192))
    wal.adopt(DATA.next)
    disk.rename(DATA.log, "data/away")
    disk.put(DATA.log, b"a stranger's")
    with pytest.raises(LogLost, match="another file stands in its place"):
        wal.seal()
    assert disk.listdir("data/archive") == []
    assert "data/wal.log.rescued" not in " ".join(disk.listdir("data")), "it has a name"


def test_a_lock_file_that_holds_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    """A link to a file of ours must not have it emptied."""
    (tmp_path / "precious").write_text("x" * 100)
    (tmp_path / "LOCK").hardlink_to(tmp_path / "precious")
    with pytest.raises(StoreUnavailable, match="it is no lock file"):
        acquire(partial(try_lock, SystemDisk(), str(tmp_path)), str(tmp_path))
    assert (tmp_path / "precious").read_text() == "x" * 100
