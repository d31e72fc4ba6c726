"""Backups: a copy at one seq while the store is used, which never looks whole before it is."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from beaver.backup.capture import capture
from beaver.backup.writing import back_up, stream_backup
from beaver.errors import BackupDamaged, BeaverError, DiskFull, InvalidInput, NotFound
from beaver.replay.verifying import verify
from tests.backup.stores import CLOCK, DISK, backed_up, fingerprint, make_store, quiet, restored
from tests.support.program import BEAVER, beaver, enqueue, environment, eventually, serving
from tests.worlds.stores import LoggedWorld, flip


def test_a_backup_holds_the_whole_store_and_is_a_plain_tar(
    world: LoggedWorld, tmp_path: Path
) -> None:
    file = backed_up(world, tmp_path / "copy.tar")
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert names[0] == "beaver-backup.json"
    assert names[-1] == "beaver-backup.end.json"
    assert names[1:-1] == [
        "snapshot.old.json",
        "snapshot.json",
        *(f"archive/{seq:020d}.wal" for seq in (1, 9, 17)),
        "wal.log",
    ]
    assert file.stat().st_mode & 0o777 == 0o600
    found = restored(file, tmp_path / "again")
    assert found.last_seq == world.state.last_seq
    assert found.fingerprint == fingerprint(world.path)


def test_a_backup_holds_what_was_acknowledged_before_it_began_while_others_enqueue(
    tmp_path: Path,
) -> None:
    """Beside a running server, from the command line: nothing is lost, nothing waits."""
    data, going = tmp_path / "data", True
    acknowledged: list[int] = []

    def keep_enqueueing() -> None:
        while going:
            acknowledged.append(enqueue(data, {"task": "echo"})[0]["seq"])

    with serving(data, "--workers", "1"):
        enqueue(data, *({"id": f"job-{n}", "task": "echo"} for n in range(200)))
        thread = threading.Thread(target=keep_enqueueing)
        thread.start()
        try:
            eventually(lambda: len(acknowledged) > 1, "some are acknowledged")
            before = acknowledged[-1]
            told = json.loads(beaver("backup", str(tmp_path / "b"), "--data", str(data), "--json"))
        finally:
            going = False
            thread.join()
    assert told["last_seq"] >= before
    assert told["fingerprint"] == restored(tmp_path / "b", tmp_path / "again").fingerprint


def test_what_is_pruned_and_replaced_meanwhile_stays_in_the_copy(
    world: LoggedWorld, tmp_path: Path
) -> None:
    """The log is sealed, grows, is pruned, and the snapshots go while a copy is under way."""
    seq, state = world.state.last_seq, fingerprint(world.path)
    captured = capture(DISK, world.path)
    world.run("later")
    world.seal()
    world.run("much-later")
    for kept in (tmp_path / "data" / "archive").iterdir():
        kept.unlink()
    (tmp_path / "data" / "snapshot.json").unlink()
    report = verify(captured.disk, world.path)
    captured.disk.close()
    assert report.ok
    assert (report.log.last_seq, report.log.fingerprint) == (seq, state)


def test_a_copy_that_was_begun_again_since_the_log_was_sealed_is_whole(
    world: LoggedWorld, tmp_path: Path
) -> None:
    for number in range(3):
        world.seal()
        world.run(f"more-{number}")
        assert restored(
            backed_up(world, tmp_path / f"{number}.tar"), tmp_path / str(number)
        ).fingerprint == fingerprint(world.path)


def test_without_a_server_and_with_a_torn_tail_the_acknowledged_part_is_copied(
    world: LoggedWorld, tmp_path: Path
) -> None:
    state = fingerprint(world.path)
    offset = world.wal.used
    world.wal.abandon()
    descriptor = os.open(world.layout.log, os.O_RDWR)
    os.pwrite(descriptor, b"\xffBF\xfe torn", offset)
    os.close(descriptor)
    found = restored(backed_up(world, tmp_path / "copy.tar"), tmp_path / "again")
    assert found.fingerprint == state


def test_a_damaged_store_gives_no_backup(world: LoggedWorld, tmp_path: Path) -> None:
    flip(world.layout.archived(9), 200)
    with pytest.raises(BeaverError):
        back_up(DISK, world.path, str(tmp_path / "copy.tar"), CLOCK)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    sent: list[bytes] = []
    with pytest.raises(BackupDamaged, match=r"cannot be backed up.*9\.wal"):
        stream_backup(DISK, world.path, sent.append, CLOCK)
    (tmp_path / "stream.tar").write_bytes(b"".join(sent))
    with pytest.raises(BackupDamaged, match="cut short"):
        restored(tmp_path / "stream.tar", tmp_path / "again")


def test_nothing_is_overwritten(world: LoggedWorld, tmp_path: Path) -> None:
    file = tmp_path / "copy.tar"
    file.write_text("mine")
    with pytest.raises(InvalidInput, match="exists already"):
        back_up(DISK, world.path, str(file), CLOCK)
    assert file.read_text() == "mine"
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(InvalidInput, match="exists already"):
        back_up(DISK, world.path, str(file), CLOCK)


def test_without_a_store_or_room_nothing_is_left(world: LoggedWorld, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        back_up(DISK, str(tmp_path / "none"), str(tmp_path / "copy.tar"), CLOCK)
    with pytest.raises(InvalidInput, match="cannot make"):
        back_up(DISK, world.path, str(tmp_path / "no" / "copy.tar"), CLOCK)
    with pytest.raises(DiskFull, match="no room for"):
        _into_a_full_disk(world)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def _into_a_full_disk(world: LoggedWorld) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        back_up(DISK, world.path, str(Path(world.path).parent / "copy.tar"), CLOCK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_backup_that_is_killed_never_has_its_name(tmp_path: Path) -> None:
    """`kill -9` at any moment: either there is no file, or it is whole."""
    make_store(tmp_path / "data", 30)
    file = tmp_path / "copy.tar"
    command = [*BEAVER, "backup", str(file), "--data", str(tmp_path / "data")]
    for number in range(4):
        process = subprocess.Popen(command, env=environment())
        if number < 3:
            eventually(lambda: list(tmp_path.glob(".copy.tar.*")) or file.exists(), "it began")
            for _ in range(number * 50):
                os.sched_yield()
            process.kill()
        process.wait()
        if file.exists():
            assert restored(file, tmp_path / str(number)).last_seq > 0
            file.unlink()
    left = {path.name for path in tmp_path.iterdir()} - {"data", "0", "1", "2", "3"}
    assert all(name.startswith(".copy.tar.") and name.endswith(".partial") for name in left)


def test_it_is_told_how_far_a_backup_is(world: LoggedWorld, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    back_up(DISK, world.path, str(tmp_path / "b"), CLOCK, lambda done, of: told.append((done, of)))
    assert told[-1][0] == told[-1][1] > 0
    told.clear()
    sent: list[bytes] = []
    made = stream_backup(DISK, world.path, sent.append, CLOCK, quiet)
    assert made.bytes == sum(map(len, sent))


def test_a_stream_goes_through_a_pipe(world: LoggedWorld, tmp_path: Path) -> None:
    """`beaver backup - | beaver restore -`."""
    made = subprocess.run(
        [*BEAVER, "backup", "-", "--data", world.path], capture_output=True, check=True
    )
    assert b"up to seq" in made.stderr
    done = subprocess.run(
        [*BEAVER, "restore", "-", "--data", str(tmp_path / "again"), "--json"],
        input=made.stdout,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["fingerprint"] == fingerprint(world.path)
