"""The real disk does what the port says."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from beaver.store.recovery import open_store, read_store
from beaver.system import disk as disks
from beaver.system.clock import SystemClock, SystemEntropy
from beaver.system.disk import SystemDisk, _look_with_fstat, _looking_at
from tests.worlds.journal import STORE, append, enqueued


@pytest.fixture
def disk() -> SystemDisk:
    return SystemDisk()


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_files_are_0600_and_directories_0700_whatever_the_umask(
    disk: SystemDisk, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        disk.mkdir(str(tmp_path / "data"))
        disk.open(str(tmp_path / "data/file"), create=True).close()
        lock = disk.lock(str(tmp_path / "data/LOCK"))
        assert lock is not None
        lock.release()
    finally:
        os.umask(before)
    assert mode(tmp_path / "data") == 0o700
    assert mode(tmp_path / "data/file") == 0o600
    assert mode(tmp_path / "data/LOCK") == 0o600


def test_everything_of_a_store_is_private(disk: SystemDisk, tmp_path: Path) -> None:
    opened = open_store(disk, str(tmp_path / "data"), clock=SystemClock(), create=True)
    append(opened.journal, enqueued("a"))
    opened.journal.close()
    for path in (tmp_path / "data").rglob("*"):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_store_on_a_real_disk_recovers(disk: SystemDisk, tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    opened = open_store(disk, path, clock=SystemClock(), create=True, store=STORE)
    for number in range(5):
        append(opened.journal, enqueued(f"job-{number}"))
    opened.journal.abandon()
    assert read_store(disk, path)[0].last_seq == 5
    opened = open_store(disk, path, clock=SystemClock(), create=False)
    assert opened.state.last_seq == 5
    opened.journal.close()


def test_a_write_goes_on_as_long_as_the_disk_takes_some_of_it(
    disk: SystemDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others make room on a full disk meanwhile, several writes may fit in part."""
    write, sizes = os.pwrite, iter([3, 2, 1, 4])
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[: next(sizes)], at))
    file = disk.open(str(tmp_path / "file"), create=True)
    file.pwrite(b"0123456789", 1)
    file.close()
    assert (tmp_path / "file").read_bytes() == b"\x000123456789"


def test_short_write_raises(disk: SystemDisk, tmp_path: Path) -> None:
    """A file size limit cuts a write short before it fails: with a count, not an error.

    A cached write asks again, and is told why; a durable one is never tried again.
    """
    script = (
        "import resource, signal, sys\n"
        "from beaver.system.disk import SystemDisk\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "file = SystemDisk().open(sys.argv[1], create=True)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for write in (file.pwrite, file.pwrite_durable):\n"
        "    try:\n"
        "        write(bytes(600), 500)\n"
        "    except OSError as error:\n"
        "        print(error.strerror)\n"
    )
    path = str(tmp_path / "file")
    command = [sys.executable, "-c", script, path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "File too large",
        "short write: 500 of 600 bytes at offset 500",
    ]


def test_write_to_a_full_device_raises() -> None:
    file = disks.SystemFile(os.open("/dev/full", os.O_RDWR))
    with pytest.raises(OSError, match="No space left"):
        file.pwrite_durable(b"x", 0)
    file.close()


def test_durable_write_falls_back_where_the_flag_is_refused(
    disk: SystemDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "pwritev", refusing)
    synced: list[int] = []
    monkeypatch.setattr(disks, "_sync", synced.append)
    file = disk.open(str(tmp_path / "file"), create=True)
    file.pwrite_durable(b"hello", 3)
    file.pwrite_durable(b"again", 8)
    assert file.pread(20, 0) == b"\0\0\0helloagain"
    assert len(synced) == 2


def test_failed_durable_write_is_not_tried_again(
    disk: SystemDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def failing(*_: object) -> int:
        calls.append(1)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwritev", failing)
    file = disk.open(str(tmp_path / "file"), create=True)
    with pytest.raises(OSError, match="Input/output error"):
        file.pwrite_durable(b"hello", 0)
    assert (len(calls), file.size()) == (1, 0)


def test_no_descriptor_is_inherited(disk: SystemDisk, tmp_path: Path) -> None:
    file = disk.open(str(tmp_path / "file"), create=True)
    lock = disk.lock(str(tmp_path / "LOCK"))
    assert lock is not None
    held = [file._descriptor, lock._descriptor]
    assert not any(os.get_inheritable(descriptor) for descriptor in held)
    lock.release()
    file.close()


def test_closing_twice_closes_once(disk: SystemDisk, tmp_path: Path) -> None:
    """The second close must not hit a descriptor that someone else has got since."""
    file = disk.open(str(tmp_path / "file"), create=True)
    descriptor = file._descriptor
    file.close()
    other = os.open(tmp_path, os.O_RDONLY)
    assert other == descriptor
    file.close()
    os.close(other)


def test_create_refuses_an_existing_file(disk: SystemDisk, tmp_path: Path) -> None:
    disk.open(str(tmp_path / "file"), create=True).close()
    with pytest.raises(FileExistsError):
        disk.open(str(tmp_path / "file"), create=True)


def test_mkdir_accepts_a_directory_and_refuses_a_file(disk: SystemDisk, tmp_path: Path) -> None:
    disk.mkdir(str(tmp_path))
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        disk.mkdir(str(tmp_path / "file"))


def hold_lock(path: str, connection: Connection) -> None:
    lock = SystemDisk().lock(path)
    connection.send(lock is not None)
    signal.pause()


def test_lock_is_held_by_one_process_and_dropped_by_kill_9(
    disk: SystemDisk, tmp_path: Path
) -> None:
    path = str(tmp_path / "LOCK")
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    holder = context.Process(target=hold_lock, args=(path, theirs))
    holder.start()
    assert ours.recv() is True
    assert disk.lock(path) is None
    assert (tmp_path / "LOCK").read_text() == f"{holder.pid}\n"
    holder.kill()
    holder.join()
    lock = disk.lock(path)
    assert lock is not None
    assert (tmp_path / "LOCK").read_text() == f"{os.getpid()}\n"
    lock.release()
    again = disk.lock(path)
    assert again is not None
    again.release()


def test_free_bytes_are_those_of_the_file_system(disk: SystemDisk, tmp_path: Path) -> None:
    assert 0 < disk.free_bytes(str(tmp_path)) < 1 << 60


def test_clock_and_entropy_are_the_machine_s() -> None:
    clock, entropy = SystemClock(), SystemEntropy()
    assert abs(clock.wall_ms() - time.time() * 1000) < 5_000
    assert clock.monotonic_ns() <= clock.monotonic_ns()
    assert all(0 <= entropy.random() < 1 for _ in range(1_000))
    assert entropy.token_bytes(16) != entropy.token_bytes(16)


def test_links_and_size_are_told_as_fstat_tells_them(tmp_path: Path) -> None:
    """They are asked for alone, where the system can: `fstat` would make the next write slower."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        for size, links in ((0, 1), (12_345, 1), (12_345, 2), (12_345, 1), (12_345, 0)):
            file.write(b"x" * (size - file.tell()))
            file.flush()
            (tmp_path / "second").unlink(missing_ok=True)
            if links == 2:
                (tmp_path / "second").hardlink_to(path)
            if links == 0:
                path.unlink()
            assert _looking_at(file.fileno())() == _look_with_fstat(file.fileno()) == (links, size)
