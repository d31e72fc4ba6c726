"""What the files of a store hold and take, as `status` tells it."""

from __future__ import annotations

import json
from pathlib import Path

from beaver.store.holding import Holding
from beaver.store.shipped import Shipping, ships
from beaver.system.disk import SystemDisk
from beaver_chaos.sim.disk import SimDisk
from tests.backup.stores import HOUR_MS, make_store
from tests.support.program import beaver, serving
from tests.worlds.stores import LoggedWorld

DISK = SystemDisk()


def test_the_archive_is_told_with_its_size_and_beginning_and_follows_pruning(
    tmp_path: Path,
) -> None:
    world = make_store(tmp_path / "data", 4)
    began_ms = world.now_ms - 4 * HOUR_MS
    holding = Holding(DISK, world.layout)
    view = holding.look(5, 6)
    files = [path.stat().st_size for path in (tmp_path / "data" / "archive").iterdir()]
    assert (view.archive_segments, view.archive_bytes) == (3, sum(files))
    assert (view.first_seq, view.since_ms, view.last_known_ms) == (
        1,
        began_ms,
        began_ms + 2 * HOUR_MS,
    )
    assert (view.retention_bytes, view.retention_ms) == (5, 6)
    assert view.snapshot_bytes == sum(p.stat().st_size for p in (tmp_path / "data").glob("s*.json"))
    assert view.log_bytes == (tmp_path / "data" / "wal.log").stat().st_size
    assert view.free_bytes > 0
    (tmp_path / "data" / "archive" / f"{1:020d}.wal").unlink()
    view = holding.look()
    assert (view.archive_segments, view.first_seq, view.since_ms) == (2, 9, began_ms + HOUR_MS)


def test_a_log_that_is_gone_is_told_as_nothing(tmp_path: Path) -> None:
    world = make_store(tmp_path / "data", 1)
    assert Holding(DISK, world.layout).look().since_ms > 0
    world.wal.close()
    (tmp_path / "data" / "wal.log").unlink()
    view = Holding(DISK, world.layout).look()
    assert (view.archive_segments, view.log_bytes, view.first_seq, view.since_ms) == (0, 0, 1, 0)


def test_what_the_disk_fails_to_read_is_told_as_nothing_and_at_the_next_look() -> None:
    disk = SimDisk("data")
    world = LoggedWorld("data", disk=disk)
    world.run("a")
    reads = disk.reads
    told = Holding(disk, world.layout).look()
    reads = disk.reads - reads
    assert reads > 2
    for number in range(reads):
        holding = Holding(disk, world.layout)
        disk.plan_read_error(disk.reads + 1 + number)
        holding.look()
        assert holding.look() == told


def test_status_says_what_the_archive_holds_from_server_and_files(tmp_path: Path) -> None:
    make_store(tmp_path / "data", 3).wal.close()
    told = json.loads(beaver("status", "--json", "--data", str(tmp_path / "data")))["storage"]
    assert told["archive_segments"] == 2
    text = beaver("status", "--data", str(tmp_path / "data"))
    assert "history from seq 1, since" in text
    assert "in 2 segments" in text
    with serving(tmp_path / "data", "--workers", "1") as server:
        assert "kept for 7d or up to" in beaver("status", "--data", str(server.data))
        served = server.status()
    assert served["storage"]["retention_bytes"] > 0
    assert served["storage"]["archive_bytes"] == told["archive_bytes"]
    assert served["version"]


def test_a_shipper_is_told_with_its_lag_and_whether_it_lives(tmp_path: Path) -> None:
    world = make_store(tmp_path / "data", 1)
    assert ships(DISK, world.layout, 8, 1_000_000) == []
    path = Path(world.layout.ship("0" * 16))
    told = Shipping(target="s3://b/p", seq=5, caught_up_ms=990_000, at_ms=999_000, pid=7)
    for seq, at_ms, running, lag_events, lag_s in (
        (5, 999_000, True, 3, 10.0),
        (8, 999_000, True, 0, 0.0),
        (5, 970_001, True, 3, 10.0),
        (5, 970_000, False, 3, 10.0),
    ):
        told.seq, told.at_ms = seq, at_ms
        path.write_bytes(json.dumps({f: getattr(told, f) for f in told.__struct_fields__}).encode())
        (view,) = ships(DISK, world.layout, 8, 1_000_000)
        assert (view.running, view.lag_events, view.lag_seconds) == (running, lag_events, lag_s)
    path.write_bytes(b"nonsense")
    assert ships(DISK, world.layout, 8, 1_000_000) == []
