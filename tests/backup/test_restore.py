"""Restoring: nothing is overwritten, nothing unverified gets a name, the copy is its own store."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from beaver.backup.restoring import restore_file
from beaver.errors import BackupDamaged, BeaverError, DiskFull, InvalidInput, NewerFormat, NotFound
from beaver.helper.work import prepare_segment
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import SegmentInfo, segments
from beaver.replay.verifying import verify
from beaver.store.log_source import Until
from beaver.store.recovery import open_store
from tests.backup.stores import (
    CLOCK,
    DISK,
    HOUR_MS,
    backed_up,
    fingerprint,
    make_store,
    quiet,
    restored,
)
from tests.support.program import (
    Server,
    beaver,
    enqueue,
    eventually,
    processes_of,
    run_beaver,
    serving,
)
from tests.worlds.journal import append, enqueued
from tests.worlds.stores import LoggedWorld

APP = """
from beaver import Beaver, JobContext
app = Beaver()

@app.job
def key(ctx: JobContext):
    return ctx.idempotency_key
"""


@pytest.fixture
def file(world: LoggedWorld, tmp_path: Path) -> Path:
    return backed_up(world, tmp_path / "copy.tar")


def nothing_new(tmp_path: Path) -> None:
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "copy.tar", "bad.tar"}


# -- what comes out ------------------------------------------------------------------------------


def test_a_restored_store_is_private_verified_and_appends(file: Path, tmp_path: Path) -> None:
    data = tmp_path / "again"
    found = restored(file, data)
    assert {path.name for path in data.iterdir()} == {
        "archive", "wal.log", "snapshot.json", "snapshot.old.json",
    }  # fmt: skip
    assert data.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in data.glob("*.*"))
    assert verify(DISK, str(data)).ok
    assert enqueue(data, {"id": "new", "task": "echo"})[0]["seq"] == found.last_seq + 1
    assert not list(tmp_path.glob(".again*"))


def test_a_copy_has_an_id_of_its_own_and_the_keys_of_its_origin(tmp_path: Path) -> None:
    """Two stores can be told apart; a job that ran after the copy has the same key in both."""
    (tmp_path / "shop.py").write_text(APP)
    data, copy = tmp_path / "data", tmp_path / "copy"
    enqueue(data, {"id": "a", "task": "key", "payload": {}})
    beaver("backup", str(tmp_path / "b"), "--data", str(data))
    told = json.loads(beaver("restore", str(tmp_path / "b"), "--data", str(copy), "--json"))
    keys = []
    for path in (data, copy):
        with serving(path, "-A", "shop:app", "--burst", cwd=tmp_path) as server:
            server.wait()
        shown = json.loads(beaver("show", "a", "--data", str(path), "--json"))
        keys.append(shown["result"])
    assert keys[0] == keys[1]
    ids = [info.header.store.hex() for p in (data, copy) for info in segments_of(p)]
    assert ids == [told["origin"], told["store"]]
    assert ids[0] != ids[1]
    # A copy of the copy still has them.
    beaver("backup", str(tmp_path / "c"), "--data", str(copy))
    again = restored(tmp_path / "c", tmp_path / "again")
    assert (again.origin, again.store not in ids) == (ids[0], True)


def segments_of(path: Path) -> list[SegmentInfo]:
    return list(segments(DISK, Layout(str(path))))


def test_servers_of_original_and_copy_leave_each_other_alone(tmp_path: Path) -> None:
    """Workers of either are no leftovers of the other, also at a start after `kill -9`."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    slow = {"task": "echo", "payload": {"sleep_ms": 60_000}}
    with serving(data, "--workers", "1") as original:
        enqueue(data, {"id": "long", **slow})
        eventually(lambda: original.status()["in_flight"] == 1, "it runs")
        beaver("backup", str(tmp_path / "b"), "--data", str(data))
        restored(tmp_path / "b", copy)
        first = Server(copy, "--workers", "1")
        first.ready()
        first.kill()
        second = Server(copy, "--workers", "1")
        second.ready()
        running = [worker["job"] for worker in original.status()["workers"]]
        assert running == ["long"]
        assert processes_of(data)
        second.kill()
        beaver("cancel", "long", "--data", str(data))
    assert (
        not (copy / "token").exists()
        or (copy / "token").read_text() != (data / "token").read_text()
    )


# -- until ---------------------------------------------------------------------------------------


def test_a_store_can_be_restored_to_every_seq(world: LoggedWorld, tmp_path: Path) -> None:
    """The state is the one that the original had there; what comes later is gone."""
    file = backed_up(world, tmp_path / "copy.tar")
    last = world.state.last_seq
    for seq in range(1, last + 1, 5):
        data = tmp_path / str(seq)
        found = restored(file, data, Until(seq=seq))
        assert found.last_seq == seq  # Each of its commits has one event.
        assert found.fingerprint == fingerprint(world.path, Until(seq=seq))
        assert verify(DISK, str(data)).ok
    assert restored(file, tmp_path / "all", Until(seq=last + 10)).last_seq == last


def test_a_store_can_be_restored_to_a_time(world: LoggedWorld, tmp_path: Path) -> None:
    file = backed_up(world, tmp_path / "copy.tar")
    until = Until(time_ms=world.now_ms - 3 * HOUR_MS)
    found = restored(file, tmp_path / "then", until)
    assert found.fingerprint == fingerprint(world.path, until)
    assert 0 < found.last_seq < world.state.last_seq


def test_a_commit_is_restored_whole_or_not_at_all(tmp_path: Path) -> None:
    data = tmp_path / "data"
    enqueue(data, {"id": "a", "task": "echo"})
    enqueue(data, {"id": "b", "task": "echo"}, {"id": "c", "task": "echo"})
    beaver("backup", str(tmp_path / "b"), "--data", str(data))
    seqs = [event["seq"] for event in map(json.loads, beaver(
        "replay", str(data), "--json").splitlines()) if event["job"] in ("b", "c")]  # fmt: skip
    found = restored(tmp_path / "b", tmp_path / "x", Until(seq=seqs[0]))
    assert found.last_seq == seqs[0] - 1
    assert restored(tmp_path / "b", tmp_path / "y", Until(seq=seqs[1])).last_seq == seqs[1]


def test_a_point_before_the_copy_is_refused(world: LoggedWorld, tmp_path: Path) -> None:
    """Where the archive was pruned, its first snapshot is the earliest point."""
    (tmp_path / "data" / "archive" / f"{1:020d}.wal").unlink()
    file = backed_up(world, tmp_path / "copy.tar")
    with pytest.raises(InvalidInput, match=r"begins with seq 9.*can be restored to seq"):
        restored(file, tmp_path / "x", Until(seq=10))
    with pytest.raises(InvalidInput, match="has seq 1"):
        restored(backed_up(make_store(tmp_path / "d2", 1), tmp_path / "2"), tmp_path / "x",
                 Until(seq=0))  # fmt: skip
    found = restored(file, tmp_path / "x")
    assert (found.first_seq, found.fingerprint) == (9, fingerprint(world.path))
    assert not list(tmp_path.glob(".x*"))


# -- nothing is overwritten ------------------------------------------------------------------------


def test_only_an_absent_or_empty_directory_is_taken(file: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("kept")
    for data in (tmp_path / "data", taken, file):
        with pytest.raises(InvalidInput, match="nothing is overwritten"):
            restored(file, data)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="nothing is overwritten"):
        restored(file, link)
    assert (taken / "mine").read_text() == "kept"
    (taken / "mine").unlink()
    assert restored(file, taken).last_seq
    assert restored(file, tmp_path / "deep" / "er").last_seq


def test_a_directory_that_is_filled_meanwhile_is_not_overwritten(
    file: Path, tmp_path: Path
) -> None:
    data = tmp_path / "again"

    def fill(done: int, of: int) -> None:
        data.mkdir(exist_ok=True)
        (data / "mine").write_text("kept")

    with pytest.raises(InvalidInput, match="nothing is overwritten"):
        restore_file(str(file), str(data), Until(), fill)
    assert [path.name for path in data.iterdir()] == ["mine"]
    assert not list(tmp_path.glob(".again*"))


# -- hostile and damaged -------------------------------------------------------------------------


def members_of(file: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(file) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def packed(members: list[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.GNU_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=kind) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return raw.getvalue()


def renamed(members: list[tuple[tarfile.TarInfo, bytes]], name: str) -> None:
    members[1][0].name = name


def linked(members: list[tuple[tarfile.TarInfo, bytes]], kind: bytes) -> None:
    info = members[1][0]
    info.type, info.linkname, info.size = kind, "/etc/passwd", 0


def announced(members: list[tuple[tarfile.TarInfo, bytes]], change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    head = json.loads(members[0][1])
    change(head)
    raw = json.dumps(head).encode()
    members[0][0].size = len(raw)
    members[0] = (members[0][0], raw)


def announced_name(name: str) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        renamed(members, name)
        announced(members, lambda head: head["members"][0].update(name=name))

    return change


TRICKS: dict[str, Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]] = {
    "a path upwards": announced_name("../../evil"),
    "an absolute path": announced_name("/tmp/evil"),
    "a foreign name": announced_name("token"),
    "a name that was not announced": lambda m: renamed(m, "../evil"),
    "a symbolic link": lambda m: linked(m, tarfile.SYMTYPE),
    "a hard link": lambda m: linked(m, tarfile.LNKTYPE),
    "a directory": lambda m: linked(m, tarfile.DIRTYPE),
    "a device": lambda m: linked(m, tarfile.CHRTYPE),
    "a FIFO": lambda m: linked(m, tarfile.FIFOTYPE),
    "a member twice": lambda m: m.insert(2, m[1]),
    "a member too few": lambda m: m.pop(2) and None,
    "a member too many": lambda m: m.insert(-1, (tarfile.TarInfo("evil"), b"")),
    "no end": lambda m: m.pop() and None,
    "other bytes": lambda m: m.__setitem__(1, (m[1][0], bytes(len(m[1][1])))),
    "no log": lambda m: announced(m, lambda head: head["members"].pop()),
    "negative sizes": lambda m: announced(m, lambda h: h["members"][0].update(size=-1)),
    "wrong types": lambda m: announced(m, lambda head: head.update(members=7)),
    "nothing announced": lambda m: announced(m, dict.clear),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_forged_backup_is_refused_and_leaves_nothing(
    trick: str, file: Path, tmp_path: Path
) -> None:
    members = members_of(file)
    TRICKS[trick](members)
    bad = tmp_path / "bad.tar"
    bad.write_bytes(packed(members))
    with pytest.raises(BackupDamaged):
        restored(bad, tmp_path / "again")
    nothing_new(tmp_path)


def test_a_bomb_is_refused_before_it_is_read(file: Path, tmp_path: Path) -> None:
    """What is announced must fit the disk; what comes must be what was announced."""
    members = members_of(file)
    announced(members, lambda head: head["members"][0].update(size=1 << 49))
    bad = tmp_path / "bad.tar"
    bad.write_bytes(packed(members))
    with pytest.raises(DiskFull, match="are free"):
        restored(bad, tmp_path / "again")
    endless = io.BytesIO(bad.read_bytes() + bytes(1 << 20))
    with pytest.raises(DiskFull):
        restore_file("-", str(tmp_path / "again"), Until(), quiet, incoming=endless.read)
    nothing_new(tmp_path)


def test_a_head_that_never_ends_is_refused(file: Path, tmp_path: Path) -> None:
    members = members_of(file)
    members[0][0].size = 1 << 40
    header = members[0][0].tobuf(tarfile.GNU_FORMAT)

    def incoming(size: int) -> bytes:
        nonlocal header
        data, header = header[:size], header[size:]
        return data or bytes(size)

    with pytest.raises(BackupDamaged, match="has 1099511627776 bytes"):
        restore_file("-", str(tmp_path / "again"), Until(), quiet, incoming=incoming)
    nothing_new(tmp_path)


def test_a_truncated_backup_is_refused_wherever_it_ends(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    bad = tmp_path / "bad.tar"
    for size in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
        bad.write_bytes(whole[:size])
        with pytest.raises(BeaverError) as caught:
            restored(bad, tmp_path / "again")
        assert caught.value.exit_code == 4
    nothing_new(tmp_path)


def test_a_flipped_bit_is_found_wherever_it_is(file: Path, tmp_path: Path) -> None:
    """Or it changes nothing: in a tar header there are bytes that say nothing to us."""
    whole, state = file.read_bytes(), restored(file, tmp_path / "good").fingerprint
    bad, drawn = tmp_path / "bad.tar", random.Random(7)
    refused = 0
    for number in range(150):
        raw = bytearray(whole)
        raw[drawn.randrange(len(raw))] ^= 1 << drawn.randrange(8)
        bad.write_bytes(raw)
        try:
            found = restored(bad, tmp_path / str(number))
        except (BackupDamaged, InvalidInput, NewerFormat):
            refused += 1
            assert not (tmp_path / str(number)).exists()
        else:
            assert found.fingerprint == state
    assert refused > 140


def test_a_forged_state_with_right_checksums_is_refused(file: Path, tmp_path: Path) -> None:
    """The log has to give the state that the end tells."""
    members = members_of(file)
    end = json.loads(members[-1][1])
    end["fingerprint"] = "0" * len(end["fingerprint"])
    raw = json.dumps(end).encode()
    members[-1][0].size = len(raw)
    members[-1] = (members[-1][0], raw)
    bad = tmp_path / "bad.tar"
    bad.write_bytes(packed(members))
    with pytest.raises(BackupDamaged, match="gives the state"):
        restored(bad, tmp_path / "again")
    nothing_new(tmp_path)


def test_what_is_no_backup_is_named_as_such(file: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no backup at"):
        restored(tmp_path / "none", tmp_path / "again")
    bad = tmp_path / "bad.tar"
    bad.write_bytes(b"x" * 4096)
    with pytest.raises(InvalidInput, match="is no backup"):
        restored(bad, tmp_path / "again")
    bad.write_bytes(packed([(tarfile.TarInfo("holiday.jpg"), b"")]))
    with pytest.raises(InvalidInput, match="none made by"):
        restored(bad, tmp_path / "again")
    bad.write_bytes(b"\x1f\x8b" + bytes(4096))
    with pytest.raises(InvalidInput, match="unpack it first"):
        restored(bad, tmp_path / "again")
    members = members_of(file)
    announced(members, lambda head: head.update(version=2))
    bad.write_bytes(packed(members))
    with pytest.raises(NewerFormat, match="version 2"):
        restored(bad, tmp_path / "again")
    assert run_beaver("restore", str(tmp_path), "--data", str(tmp_path / "x")).returncode == 6
    nothing_new(tmp_path)


def test_the_origin_of_a_copy_outlives_the_sealing_of_its_log(file: Path, tmp_path: Path) -> None:
    found = restored(file, tmp_path / "again")
    opened = open_store(DISK, str(tmp_path / "again"), clock=CLOCK, create=False)
    wal = opened.journal
    append(wal, enqueued("new"))
    prepare_segment(DISK, wal.next_path, 1 << 14)
    wal.adopt(wal.next_path)
    assert wal.seal()
    wal.close()
    header = list(segments(DISK, Layout(str(tmp_path / "again"))))[-1].header
    assert (header.store.hex(), header.lineage.hex()) == (found.store, found.origin)
