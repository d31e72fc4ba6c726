"""`replay` of a log: `--check`, its verdict, and the listing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from beaver.errors import Corruption, InvalidInput, NewerFormat, NotFound
from beaver.inspect.listing import event_line
from beaver.replay.replaying import check, event_views, parse_until
from beaver.snapshot.files import write_snapshot
from beaver.store.log_source import Until
from beaver.system.disk import SystemDisk
from beaver_model import fingerprint
from beaver_model.commands import Boot, SetBounds, SetQueue
from tests.history.long_store import listing, long_store, prune, snap
from tests.worlds.model import job
from tests.worlds.stores import LoggedWorld, flip


def test_a_whole_log_has_the_live_state_s_fingerprint(world: LoggedWorld) -> None:
    long_store(world)
    before = listing(world.path)
    report = check(SystemDisk(), world.path)
    assert report.ok
    assert report.base == "start"
    assert (report.first_seq, report.last_seq, report.events) == (1, 14, 14)
    # Each segment that was sealed ends with a CLOSE frame.
    assert report.frames == 14 + 4
    assert report.fingerprint == fingerprint(world.state)
    assert report.counts == {
        "pending": 2,
        "in_flight": 0,
        "completed": 2,
        "dead": 1,
        "cancelled": 0,
    }
    assert (report.violations, report.torn_tail_bytes, report.error) == ([], 0, None)
    assert listing(world.path) == before


def test_the_report_has_the_fields_of_the_contract(world: LoggedWorld) -> None:
    world.run("a")
    assert set(msgspec.to_builtins(check(SystemDisk(), world.path))) == {
        "ok",
        "base",
        "frames",
        "events",
        "first_seq",
        "last_seq",
        "counts",
        "fingerprint",
        "violations",
        "torn_tail_bytes",
        "error",
    }


def test_the_fingerprint_is_that_of_the_seq_whichever_way_it_was_reached(
    world: LoggedWorld,
) -> None:
    fingerprints = long_store(world)
    for seq in range(1, 15):
        report = check(SystemDisk(), world.path, Until(seq=seq))
        assert (report.last_seq, report.fingerprint) == (seq, fingerprints[seq])
    prune(world)
    # The archive begins with seq 8 now, and the older snapshot holds seq 7.
    for seq in range(8, 15):
        report = check(SystemDisk(), world.path, Until(seq=seq))
        assert report.base == "older snapshot"
        assert (report.first_seq, report.last_seq) == (8, seq)
        assert report.fingerprint == fingerprints[seq]


def test_a_check_until_a_time_stops_there(world: LoggedWorld) -> None:
    fingerprints = long_store(world)
    report = check(SystemDisk(), world.path, Until(time_ms=61_000))
    assert (report.last_seq, report.fingerprint) == (7, fingerprints[7])
    assert check(SystemDisk(), world.path, Until(time_ms=999)).events == 0


def test_a_segment_alone_says_base_none_and_checks_the_chain(
    world: LoggedWorld, tmp_path: Path
) -> None:
    long_store(world)
    copied = tmp_path / "elsewhere.wal"
    shutil.copy(world.layout.archived(5), copied)
    report = check(SystemDisk(), str(copied))
    assert report.ok
    assert (report.base, report.fingerprint, report.counts) == ("none", None, {})
    assert (report.first_seq, report.last_seq, report.events) == (5, 7, 3)
    flip(str(copied), 64 + 40)
    damaged = check(SystemDisk(), str(copied))
    assert not damaged.ok
    assert damaged.error is not None
    assert (damaged.error.file, damaged.error.offset, damaged.error.seq) == (str(copied), 64, 5)


def test_a_segment_in_its_place_begins_with_its_siblings(world: LoggedWorld) -> None:
    fingerprints = long_store(world)
    report = check(SystemDisk(), world.layout.archived(8))
    assert (report.base, report.first_seq, report.last_seq) == ("start", 8, 10)
    assert (report.events, report.frames) == (3, 4)
    assert report.fingerprint == fingerprints[10]
    report = check(SystemDisk(), world.layout.log)
    assert (report.first_seq, report.last_seq, report.events) == (14, 14, 1)
    assert report.fingerprint == fingerprints[14]


def test_a_log_copied_with_its_snapshot_begins_with_it(world: LoggedWorld, tmp_path: Path) -> None:
    fingerprints = long_store(world)
    snap(world)
    world.enqueue(job("more"))
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(world.layout.log, copy / "wal.log")
    shutil.copy(world.layout.snapshot, copy / "snapshot.json")
    report = check(SystemDisk(), str(copy / "wal.log"))
    assert (report.base, report.first_seq, report.last_seq) == ("snapshot", 14, 15)
    assert report.fingerprint == fingerprint(world.state) != fingerprints[14]


def test_a_snapshot_of_another_store_is_no_base(world: LoggedWorld, tmp_path: Path) -> None:
    long_store(world)
    prune(world)
    world.disk.unlink(world.layout.snapshot_old)
    write_snapshot(world.disk, world.layout, world.state, b"x" * 16, keep_previous=False)
    assert check(SystemDisk(), world.path).base == "none"


def test_a_half_written_last_frame_is_no_damage(world: LoggedWorld) -> None:
    world.run("a")
    fingerprint_now, offset = fingerprint(world.state), world.wal.used
    with open(world.layout.log, "r+b") as file:
        file.seek(offset)
        file.write(b"\xffBF\xfe" + b"half" * 10)
    report = check(SystemDisk(), world.path)
    assert report.ok
    assert report.torn_tail_bytes == 44
    assert report.fingerprint == fingerprint_now
    assert len(list(event_views(SystemDisk(), world.path))) == 3


def test_corruption_is_told_with_place_and_seq(world: LoggedWorld) -> None:
    long_store(world)
    flip(world.layout.archived(5), 64 + 40)
    report = check(SystemDisk(), world.path)
    assert not report.ok
    assert report.error is not None
    assert report.error.file == world.layout.archived(5)
    assert (report.error.offset, report.error.seq) == (64, 5)
    assert "CRC" in report.error.reason
    assert (report.last_seq, report.fingerprint) == (4, None)
    views = event_views(SystemDisk(), world.path)
    assert [next(views).seq for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(Corruption, match="seq 5"):
        next(views)


def test_a_missing_segment_is_told(world: LoggedWorld) -> None:
    long_store(world)
    os.unlink(world.layout.archived(5))
    report = check(SystemDisk(), world.path)
    assert report.error is not None
    assert (report.error.seq, report.last_seq) == (5, 4)


def test_a_log_shorter_than_its_snapshot_is_told(world: LoggedWorld) -> None:
    world.run("a")
    cut = world.wal.used
    world.run("b")
    snap(world)
    with open(world.layout.log, "r+b") as file:
        file.seek(cut)
        file.write(bytes(world.wal.used - cut))
    report = check(SystemDisk(), world.path)
    assert report.error is not None
    assert (report.error.offset, report.error.seq) == (cut, 4)
    assert "snapshot.json shows that it reached seq 6" in report.error.reason
    # Up to a seq before that there is nothing to complain of.
    assert check(SystemDisk(), world.path, Until(seq=3)).ok


def test_a_missing_log_beside_a_snapshot_is_corruption(world: LoggedWorld) -> None:
    world.run("a")
    snap(world)
    os.unlink(world.layout.log)
    report = check(SystemDisk(), world.path)
    assert report.error is not None
    assert "reached seq 3" in report.error.reason


@pytest.mark.parametrize("lone", [False, True])
def test_an_illegal_event_is_told(world: LoggedWorld, tmp_path: Path, *, lone: bool) -> None:
    from beaver.journal.codec import encode_commit
    from beaver.journal.port import append_now
    from beaver_model.events import Acked

    world.run("a")
    world.seal()
    world.enqueue(job("b"))
    append_now(world.wal, encode_commit(world.now_ms, [Acked("b", 4, b"null")]), 1)
    path = world.path
    if lone:
        path = str(tmp_path / "lone.wal")
        shutil.copy(world.layout.log, path)
    report = check(SystemDisk(), path)
    assert report.base == ("none" if lone else "start")
    assert report.error is not None
    assert report.error.seq == 5
    assert "job b is pending" in report.error.reason


def test_strangers_in_a_log_without_beginning_are_not_called_illegal(
    world: LoggedWorld, tmp_path: Path
) -> None:
    world.do(Boot())
    world.do(SetBounds(0))
    world.enqueue(job("old"))
    world.dispatch("old")
    world.run("again")
    world.seal()
    world.do(Boot())
    world.do(SetQueue("default", paused=True))
    world.do(SetQueue("default", paused=False))
    world.run("again")
    world.fail_and_wait("new")
    lone = str(tmp_path / "lone.wal")
    shutil.copy(world.layout.log, lone)
    report = check(SystemDisk(), lone)
    assert report.ok, report.error
    assert report.base == "none"
    views = {(view.event, view.job): view for view in event_views(SystemDisk(), lone)}
    assert views["RETRY", "new"].attempt == 1
    assert views["RELEASE", "old"].attempt is None


def test_nothing_to_read_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(NotFound):
            check(SystemDisk(), str(path))
        with pytest.raises(NotFound):
            list(event_views(SystemDisk(), str(path)))
    assert list(tmp_path.iterdir()) == []


def test_a_newer_version_is_named(world: LoggedWorld) -> None:
    import struct

    from beaver.journal.wal.format import crc32c

    world.run("a")
    with open(world.layout.log, "r+b") as file:
        header = bytearray(file.read(60))
        header[8] = 9
        file.seek(0)
        file.write(bytes(header) + struct.pack("<I", crc32c(bytes(header))))
    with pytest.raises(NewerFormat, match="9"):
        check(SystemDisk(), world.path)


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("17", Until(seq=17)),
        ("99999999999", Until(seq=99_999_999_999)),
        ("1700000000000", Until(time_ms=1_700_000_000_000)),
        ("1970-01-01T00:01:00Z", Until(time_ms=60_000)),
    ],
)
def test_until_takes_a_seq_or_a_time(text: str, until: Until) -> None:
    assert parse_until(text) == until


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "1.5"])
def test_until_refuses_what_is_neither(text: str) -> None:
    with pytest.raises(InvalidInput, match="--until"):
        parse_until(text)


def test_progress_ends_near_the_whole(world: LoggedWorld) -> None:
    for number in range(12):
        world.enqueue(*(job(f"{number}-{n}") for n in range(2_000)))
    told: list[tuple[int, int]] = []
    check(SystemDisk(), world.path, on_progress=lambda done, total: told.append((done, total)))
    assert told
    assert told == sorted(told)
    assert all(done <= total for done, total in told)


def test_the_listing_has_every_seq_once(world: LoggedWorld) -> None:
    long_store(world)
    assert [view.seq for view in event_views(SystemDisk(), world.path)] == list(range(1, 15))
    prune(world)
    views = list(event_views(SystemDisk(), world.path))
    assert [view.seq for view in views] == list(range(8, 15))
    assert [view.seq for view in event_views(SystemDisk(), world.layout.archived(8))] == [8, 9, 10]


def test_an_event_is_one_line_whatever_it_holds(world: LoggedWorld) -> None:
    world.do(Boot())
    world.enqueue(job("two words", queue="a=b"))
    world.dispatch("two words")
    world.fail("two words", 'line one\nline "two"\u2028')
    lines = [event_line(view) for view in event_views(SystemDisk(), world.path)]
    assert "\n".join(lines) == (
        "1 1970-01-01T00:00:01.000Z BOOT - epoch=1 power_cut=false\n"
        '2 1970-01-01T00:00:01.000Z ENQUEUE "two words" task=echo queue="a=b" priority=5 '
        "max_attempts=5 timeout_ms=600000 payload=null\n"
        '3 1970-01-01T00:00:01.000Z DISPATCH "two words" attempt=1 worker=1 token=3\n'
        '4 1970-01-01T00:00:01.000Z RETRY "two words" attempt=1 worker=1 token=3 '
        'run_at=1970-01-01T00:00:02.000Z cause=failed error="line one\\nline \\"two\\"\\u2028"'
    )


def test_an_event_as_json_has_the_fields_of_the_contract(world: LoggedWorld) -> None:
    world.run("a", b'{"r": 1}')
    text = msgspec.json.encode(list(event_views(SystemDisk(), world.path)))
    enqueue, dispatch, ack = msgspec.json.decode(text)
    assert {"seq", "time_ms", "event", "job", "task", "queue", "max_attempts"} <= set(enqueue)
    assert enqueue["payload"] is None
    assert (dispatch["attempt"], dispatch["token"], dispatch["worker"]) == (1, 2, 1)
    assert (ack["attempt"], ack["token"], ack["worker"]) == (1, 2, 1)
    assert ack["result"] == {"r": 1}
    assert "result" not in enqueue
    assert "payload" not in ack
