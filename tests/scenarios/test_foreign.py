"""What other users of the machine may have put in our way, and other things that are no file."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from beaver.errors import StoreUnavailable
from beaver.journal.wal.lock import acquire, try_lock
from beaver.system.disk import SystemDisk
from beaver.transport import endpoint, framing
from tests.support.program import (
    BEAVER,
    DEADLINE_S,
    beaver,
    enqueue,
    environment,
    run_beaver,
    serving,
)

STRANGER, OTHER = 54_321, 54_322
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="SO_PEERCRED")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user can reach and write to."""
    place = Path(tempfile.mkdtemp(prefix="beaver-open-", dir="/tmp"))
    place.chmod(0o777)
    yield place
    shutil.rmtree(place)


def as_user(uid: int, work: Callable[[], str]) -> str:
    """Runs work as another user, in a child; returns what it says or raises, as text."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            text = work()
        except BaseException as error:  # noqa: BLE001 - all of it is told
            text = f"{type(error).__name__}: {error}"
        os.write(theirs, text.encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as told:
        text = told.read().decode()
    os.waitpid(pid, 0)
    return text


# -- the directory --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
@pytest.mark.parametrize("command", [("run", "--http", "off"), ("enqueue", "echo")])
def test_a_directory_that_others_may_write_is_refused(
    data: Path, mode: int, command: tuple[str, ...]
) -> None:
    data.mkdir()
    data.chmod(mode)
    done = run_beaver(*command, "--data", str(data))
    assert done.returncode == 3
    assert f"chmod go-w {data}" in done.stderr
    assert os.listdir(data) == []


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750])
def test_a_directory_that_others_may_only_read_is_taken(data: Path, mode: int) -> None:
    data.mkdir()
    data.chmod(mode)
    enqueue(data, {"id": "a"})


@as_root
@pytest.mark.parametrize("command", [("run", "--http", "off"), ("enqueue", "echo")])
def test_a_directory_of_another_user_is_refused(data: Path, command: tuple[str, ...]) -> None:
    data.mkdir()
    os.chown(data, STRANGER, STRANGER)
    done = run_beaver(*command, "--data", str(data))
    assert done.returncode == 3
    assert f"belongs to user {STRANGER}" in done.stderr
    assert os.listdir(data) == []


@as_root
def test_a_directory_below_one_of_another_user_is_made_for_us_alone(data: Path) -> None:
    data.mkdir()
    os.chown(data, STRANGER, STRANGER)
    enqueue(data / "ours", {"id": "a"})
    assert stat.S_IMODE((data / "ours").stat().st_mode) == 0o700


def test_a_link_of_ours_to_a_directory_of_ours_is_taken(data: Path, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    data.symlink_to(tmp_path / "place")
    with serving(data, "--workers", "1") as server:
        enqueue(data, {"id": "a"})
        server.drained(1)


@as_root
def test_a_link_of_another_user_to_a_directory_of_ours_is_refused(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "place").mkdir()
    data.symlink_to(tmp_path / "place")
    os.chown(data, STRANGER, STRANGER, follow_symlinks=False)
    done = run_beaver("enqueue", "echo", "--data", str(data))
    assert done.returncode == 3
    assert "symbolic link" in done.stderr
    assert os.listdir(tmp_path / "place") == []


# -- what stands in place of a file ---------------------------------------------------------------

NAMES = ("LOCK", "wal.log", "wal.next", "snapshot.json", "slots", "server.json", "history.db")


def test_a_lock_that_is_a_link_leaves_its_target_as_it_is(data: Path, tmp_path: Path) -> None:
    data.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("12345\n")
    (data / "LOCK").symlink_to(victim)
    for command in (("run", "--http", "off"), ("enqueue", "echo")):
        done = run_beaver(*command, "--data", str(data))
        assert done.returncode == 3
        assert "symbolic link" in done.stderr
    assert victim.read_text() == "12345\n"


@pytest.mark.parametrize("name", [*NAMES, "snapshot.old.json", "server.json.new", "slots.new"])
def test_no_link_in_place_of_a_file_is_followed(data: Path, tmp_path: Path, name: str) -> None:
    """Also where it leads to the true file, or to none that is there yet."""
    enqueue(data, {"id": "a"})
    _stop_keeper(data)
    victim = tmp_path / "victim"
    if (data / name).exists():
        (data / name).rename(victim)
    else:
        victim.write_bytes(b"precious")
    before = victim.read_bytes()
    (data / name).symlink_to(victim)
    done = run_beaver("run", "--burst", "--http", "off", "--workers", "1", "--data", str(data))
    assert done.returncode in (0, 3), done.stderr
    assert "Traceback" not in done.stderr
    assert victim.read_bytes() == before
    assert done.returncode == 0 or "symbolic link" in done.stderr


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "command",
    [("status",), ("list",), ("verify",), ("replay", "."), ("enqueue", "echo"), ("explain", "a")],
    ids=lambda command: command[0],
)
def test_a_fifo_in_place_of_a_file_hangs_nobody(
    data: Path, name: str, command: tuple[str, ...]
) -> None:
    enqueue(data, {"id": "a"})
    _stop_keeper(data)
    (data / name).unlink(missing_ok=True)
    os.mkfifo(data / name)
    words = [str(data) if word == "." else word for word in command]
    place = () if command[0] == "replay" else ("--data", str(data))
    done = subprocess.run(
        [*BEAVER, *words, *place],
        capture_output=True,
        text=True,
        env=environment(BEAVER_KEEPER_IDLE="0"),
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode in (0, 3, 4, 6, 7), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_fifo_or_a_directory_in_place_of_a_file_hangs_no_start(data: Path, name: str) -> None:
    enqueue(data, {"id": "a"})
    _stop_keeper(data)
    for make in (os.mkfifo, os.mkdir):
        shutil.move(data / name, data.with_name("kept")) if (data / name).exists() else None
        make(data / name)
        done = run_beaver("run", "--burst", "--http", "off", "--workers", "1", "--data", str(data))
        assert done.returncode in (0, 3), done.stderr
        assert "Traceback" not in done.stderr
        if done.returncode == 0:
            return
        assert f"{data / name}" in done.stderr
        (data / name).rmdir() if make is os.mkdir else (data / name).unlink()
        if data.with_name("kept").exists():
            shutil.move(data.with_name("kept"), data / name)
    beaver("run", "--burst", "--http", "off", "--workers", "1", "--data", str(data))


def test_an_archive_that_is_a_link_is_refused(data: Path, tmp_path: Path) -> None:
    enqueue(data, {"id": "a"})
    _stop_keeper(data)
    (data / "archive").rename(tmp_path / "elsewhere")
    (data / "archive").symlink_to(tmp_path / "elsewhere")
    done = run_beaver("run", "--burst", "--http", "off", "--workers", "1", "--data", str(data))
    assert done.returncode == 3
    assert str(data / "archive") in done.stderr


def test_a_link_in_place_of_the_retry_file_leaves_its_target_as_it_is(tmp_path: Path) -> None:
    from beaver.request.jobfile import write_requests

    (tmp_path / "victim").write_text("precious")
    (tmp_path / "jobs.retry.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"):
        write_requests(str(tmp_path / "jobs.retry.jsonl"), [])
    assert (tmp_path / "victim").read_text() == "precious"


# -- the configuration ----------------------------------------------------------------------------


def _config_in(place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BEAVER, "config"],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@as_root
def test_a_configuration_that_nobody_named_is_not_read_from_another_user(tmp_path: Path) -> None:
    file = tmp_path / "beaver.yaml"
    file.write_text("workers: 3\n")
    assert _config_in(tmp_path).returncode == 0
    os.chown(file, STRANGER, STRANGER)
    refused = _config_in(tmp_path)
    assert refused.returncode == 2
    assert f"belongs to user {STRANGER}" in refused.stderr
    assert "--config" in refused.stderr
    beaver("config", "--config", str(file))
    (tmp_path / "other").mkdir()
    (tmp_path / "ours.yaml").write_text("workers: 3\n")
    (tmp_path / "other" / "beaver.yaml").symlink_to(tmp_path / "ours.yaml")
    assert _config_in(tmp_path / "other").returncode == 0
    os.chown(tmp_path / "other" / "beaver.yaml", STRANGER, STRANGER, follow_symlinks=False)
    assert _config_in(tmp_path / "other").returncode == 2


def test_a_fifo_in_place_of_the_configuration_hangs_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "beaver.yaml")
    refused = _config_in(tmp_path)
    assert refused.returncode == 2
    assert "no regular file" in refused.stderr


# -- the socket -----------------------------------------------------------------------------------


@as_root
@linux_only
def test_a_server_answers_no_other_user(data: Path, open_place: Path) -> None:
    """Even where somebody has opened directory and socket to everybody."""
    with serving(data, "--workers", "1") as server:
        path = endpoint.read(str(data)).socket  # type: ignore[union-attr]
        for place in [Path(path), *Path(path).parents]:
            if place.stat().st_uid == os.geteuid() and str(place).startswith(("/tmp/", str(data))):
                place.chmod(0o777)

        def ask() -> str:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10.0)
                connection.connect(path)
                connection.sendall(endpoint.hello_frame())
                return f"answered: {len(connection.recv(100))} bytes"

        assert as_user(os.geteuid(), ask) != "answered: 0 bytes"
        told = as_user(STRANGER, ask)
        assert told == "answered: 0 bytes" or told.startswith(("ConnectionReset", "BrokenPipe"))
        data.chmod(0o700)
        enqueue(data, {"id": "a"})
        server.drained(1)


@as_root
@linux_only
def test_a_client_gives_nothing_to_the_server_of_another_user(open_place: Path) -> None:
    path = str(open_place / "beaver.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        pid = os.fork()
        if pid == 0:
            os.setuid(STRANGER)
            listening.bind(path)
            os.chmod(path, 0o777)
            listening.listen()
            heard = b""
            for _ in range(3):
                peer, _ = listening.accept()
                try:
                    heard = peer.recv(100)
                except OSError:
                    heard = b""
                (open_place / "heard").write_bytes(heard)
                if heard:
                    greeting = [0, 0, [framing.VERSION, "ab" * 16, 1, os.getpid()]]
                    peer.sendall(framing.encode_frame(greeting))
                peer.close()
            os._exit(0)
        try:
            while not os.path.exists(path) or stat.S_IMODE(os.stat(path).st_mode) != 0o777:
                assert os.waitpid(pid, os.WNOHANG) == (0, 0)

            def ask() -> str:
                return str(endpoint.dial(path)[1].store)

            assert endpoint.dial(path)[1].store == "ab" * 16, "root may ask everybody's"
            assert f"runs as user {STRANGER}" in as_user(OTHER, ask)
            assert as_user(STRANGER, ask) == "ab" * 16
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


@as_root
def test_a_hint_of_another_user_is_not_believed(data: Path, open_place: Path) -> None:
    hint = open_place / "server.json"
    info = endpoint.ServerInfo(pid=1, socket="/x", store="ab" * 16)
    hint.write_bytes(msgspec.json.encode(info))
    hint.chmod(0o644)
    os.chown(hint, STRANGER, STRANGER)

    def look() -> str:
        found = endpoint.read(str(open_place))
        return "nothing" if found is None else found.socket

    assert as_user(OTHER, look) == "nothing"
    assert as_user(STRANGER, look) == "/x"


@as_root
def test_whoever_is_not_the_owner_may_not_lock(open_place: Path) -> None:
    """The victim of the attack that began it: a lock file linked to a file of its own."""
    theirs = open_place / "data"

    def prepare() -> str:
        theirs.mkdir()
        (theirs / "LOCK").symlink_to(open_place / "victim")
        theirs.chmod(0o777)
        return ""

    as_user(STRANGER, prepare)
    (open_place / "victim").write_text("12345\n")
    with pytest.raises(StoreUnavailable, match=f"belongs to user {STRANGER}"):
        acquire(partial(try_lock, SystemDisk(), str(theirs)), str(theirs), wait_s=0)
    assert (open_place / "victim").read_text() == "12345\n"


def _stop_keeper(data: Path) -> None:
    """Whoever has appended without a server may have left a keeper that still holds the store."""
    info = endpoint.read(str(data))
    if info is not None and info.keeper:
        os.kill(info.pid, 15)
        while Path(f"/proc/{info.pid}").exists() and endpoint.read(str(data)) is not None:
            pass
