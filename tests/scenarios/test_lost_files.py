"""What happens to a running server when somebody removes or replaces its files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from beaver.client import blocking
from beaver.errors import ServerGone
from beaver.structs.messages import Options, Request
from beaver.system.disk import SystemDisk
from beaver.transport import endpoint
from tests.support.program import (
    Server,
    beaver,
    enqueue,
    eventually,
    processes_of,
    run_beaver,
    serving,
    status,
)

LATER = "2100-01-01T00:00:00Z"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/locks")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


# -- the lock file --------------------------------------------------------------------------------


@linux_only
def test_a_removed_lock_file_lets_nobody_in_and_the_holder_is_named(data: Path) -> None:
    """The first server is stopped, so that it cannot make the file again."""
    with serving(data, "--workers", "1") as first:
        enqueue(data, {"id": "a"})
        first.drained(1)
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            (data / "LOCK").unlink()
            second = Server(data, "--workers", "1")
            assert second.wait() == 3
        finally:
            os.kill(first.process.pid, signal.SIGCONT)
        assert f"in use by process {first.process.pid}" in "".join(second.stderr)
        enqueue(data, {"id": "b"})
        first.drained(2)


def test_a_removed_lock_file_is_made_again_and_is_held(data: Path) -> None:
    with serving(data, "--workers", "1") as server:
        (data / "LOCK").unlink()
        eventually((data / "LOCK").exists, "it is there again")
        assert (data / "LOCK").read_text() == f"{server.process.pid}\n"
        assert SystemDisk().lock(str(data / "LOCK")) is None
        eventually(lambda: any("removed the lock file" in line for line in server.stderr), "told")
        second = Server(data, "--workers", "1")
        assert second.wait() == 3
        enqueue(data, {"id": "a"})
        server.drained(1)


def test_a_lock_file_that_was_replaced_before_the_start_is_as_good(data: Path) -> None:
    enqueue(data, {"id": "a"})
    (data / "LOCK").unlink()
    (data / "LOCK").write_text("999999\n")
    with serving(data, "--workers", "1") as server:
        server.drained(1)


# -- where it listens -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["server.json", "beaver.sock"])
def test_a_server_whose_socket_or_hint_was_removed_is_found_again(data: Path, name: str) -> None:
    with serving(data, "--workers", "1") as server, blocking.connect(str(data)) as before:
        (data / name).unlink()
        eventually(lambda: _is_found(data), "it is found again")
        enqueue(data, {"id": "a"})
        server.drained(1)
        assert before.status().completed == 1, "who was connected still is"
        assert any("is there again" in line for line in server.stderr)


def test_a_runtime_directory_that_was_emptied_is_made_again(tmp_path: Path) -> None:
    """The socket of a long path lies in /tmp, where services remove what is old."""
    data = tmp_path / ("d" * 120)
    with serving(data, "--workers", "1") as server:
        place = Path(endpoint.read(str(data)).socket).parent  # type: ignore[union-attr]
        assert place != data
        shutil.rmtree(place)
        eventually(lambda: _is_found(data), "it is found again")
        enqueue(data, {"id": "a"})
        server.drained(1)
    assert not place.exists()


def _is_found(data: Path) -> bool:
    found = blocking.find(str(data))
    if found is not None:
        found.close()
    return found is not None


# -- the log --------------------------------------------------------------------------------------


def _delete(data: Path) -> None:
    (data / "wal.log").unlink()


def _rename(data: Path) -> None:
    (data / "wal.log").rename(data / "wal.away")


def _replace_by_a_copy(data: Path) -> None:
    shutil.copy(data / "wal.log", data / "copy")
    (data / "copy").rename(data / "wal.log")


def _cut(data: Path) -> None:
    os.truncate(data / "wal.log", 100)


def _rename_the_directory(data: Path) -> None:
    data.rename(data.with_name("moved"))


def _delete_the_directory(data: Path) -> None:
    shutil.rmtree(data)


def _replace_the_directory(data: Path) -> None:
    copy = data.with_name("copy")
    subprocess.run(["cp", "-a", str(data), str(copy)], check=False)
    data.rename(data.with_name("moved"))
    copy.rename(data)


LOSSES: dict[Callable[[Path], None], str] = {
    _delete: "it was deleted or renamed",
    _rename: "it was deleted or renamed",
    _replace_by_a_copy: "another file stands in its place",
    _cut: "it was cut",
    _rename_the_directory: "its directory was deleted or renamed",
    _delete_the_directory: "its directory was deleted or renamed",
    _replace_the_directory: "another file stands in its place",
}

each_loss = pytest.mark.parametrize("lose", LOSSES, ids=[loss.__name__[1:] for loss in LOSSES])


@each_loss
def test_an_idle_server_ends_with_7_and_says_what_became_of_its_log(
    data: Path, lose: Callable[[Path], None]
) -> None:
    server = Server(data, "--workers", "1")
    server.ready()
    enqueue(data, {"id": "a", "run_at": LATER})
    marked = processes_of(data)
    lose(data)
    assert server.wait(20.0) == 7
    assert LOSSES[lose] in "".join(server.stderr)
    assert "Nothing acknowledged is lost" not in "".join(server.stderr)
    eventually(lambda: not any(map(_runs, marked)), "its workers are gone", 5.0)


def _request(job: str) -> Request:
    return Request(job, msgspec.msgpack.encode(Options("echo")), b"1", job.encode().ljust(12))


def _runs(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


@pytest.mark.parametrize("commit", ["inline", "writer"])
@pytest.mark.parametrize("lose", [_delete, _replace_by_a_copy, _cut])
def test_nothing_is_acknowledged_into_a_log_that_is_gone(
    data: Path, lose: Callable[[Path], None], commit: str
) -> None:
    """Not even in the second until the next look: each commit is looked at before it is told."""
    server = Server(data, "--workers", "1", BEAVER_COMMIT=commit)
    server.ready()
    with blocking.connect(str(data)) as connected:
        for number in range(40):
            connected.enqueue([_request(f"j{number}")])
        lose(data)
        with pytest.raises(ServerGone):
            connected.enqueue([_request("late")])
    assert server.wait(20.0) == 7


def test_a_deleted_log_is_kept_beside_and_goes_on_once_it_is_put_back(data: Path) -> None:
    server = Server(data, "--workers", "1")
    server.ready()
    enqueue(data, *({"id": f"j{number}", "run_at": LATER} for number in range(40)))
    _delete(data)
    assert server.wait(20.0) == 7
    (kept,) = data.glob("wal.log.rescued-*")
    assert str(kept) in "".join(server.stderr)
    refused = run_beaver("run", "--data", str(data), "--http", "off")
    assert refused.returncode == 4
    assert kept.name in refused.stderr
    kept.rename(data / "wal.log")
    assert status(data)["pending"] == 40
    beaver("verify", "--data", str(data))
    with serving(data, "--workers", "1") as server:
        enqueue(data, {"id": "more"})
        server.drained(1)


def test_a_hard_link_to_the_log_is_nobody_s_trouble(data: Path) -> None:
    """Backups are made so, and sealing makes one itself."""
    with serving(data, "--workers", "1") as server:
        os.link(data / "wal.log", data / "backup")
        enqueue(data, {"id": "a"})
        server.drained(1)
        eventually(lambda: server.status()["completed"] == 1, "it goes on")
