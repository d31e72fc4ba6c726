"""The keeper: started by producers, shared by them, gone when it is not needed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from beaver import Beaver, NoServer, WaitTimeout
from beaver.client import blocking, embedded
from beaver.client.embedded import EmbeddedClient
from beaver.client.opening import open_client
from beaver.client.reconnecting import ReconnectingClient
from beaver.errors import Corruption, ServerLeft
from beaver.holder import starting
from beaver.holder.turn import try_turn
from beaver.journal.wal.lock import acquire, try_lock
from beaver.replay.replaying import check
from beaver.request.requests import make_request
from beaver.system.disk import SystemDisk
from beaver.transport import endpoint
from tests.support.program import beaver, events, eventually, run_beaver, serving
from tests.worlds.keeper import MANY, ended, is_alive, keeper_pid, python, start_keeper


def test_producers_that_start_at_once_share_one_keeper(data: Path) -> None:
    """Of twelve processes on a fresh directory none fails, and one keeper serves all."""
    producers = [python(MANY, str(data), f"p{n}", "20") for n in range(12)]
    seqs: list[int] = []
    for producer in producers:
        out, err = producer.communicate(timeout=60)
        assert producer.returncode == 0, err
        seqs += map(int, out.split())
    assert sorted(seqs) == list(range(1, 241))
    assert keeper_pid(data)
    assert check(SystemDisk(), str(data)).ok


def test_a_lone_change_to_a_small_store_starts_nothing(data: Path) -> None:
    beaver("enqueue", "echo", "1", "--data", str(data))
    beaver("enqueue", "echo", "2", "--data", str(data))
    assert sorted(os.listdir(data)) == ["LOCK", "archive", "wal.log"]


def test_who_enqueues_again_at_once_gets_a_keeper_and_then_its_connection(data: Path) -> None:
    app = Beaver(data)
    for n in range(3):
        app.enqueue("echo", n)
    pid = keeper_pid(data)
    assert pid
    assert isinstance(app.connection, ReconnectingClient)
    assert app.connection._client is not None
    assert app.connection._client.greeting.pid == pid
    assert app.status().pending == 3


def test_a_keeper_says_that_it_runs_nothing(data: Path) -> None:
    """Status, explain and result are as without a server; the keeper is named."""
    pid = start_keeper(data)
    beaver("enqueue", "echo", "1", "--id", "a", "--data", str(data))
    assert f"no server runs; these figures are from a keeper (process {pid})" in beaver(
        "status", "--data", str(data)
    )
    told = beaver("explain", "a", "--data", str(data))
    assert f"No server runs; `beaver run --data {data}` starts one." in told
    assert "ENQUEUE" in told
    waiting = run_beaver("enqueue", "echo", "--wait", "--data", str(data))
    assert waiting.returncode == 3
    assert "no server runs" in waiting.stderr
    with open_client(data) as without:
        status = without.status()
        assert (status.running, status.keeper) == (False, pid)
        with pytest.raises(NoServer, match="cannot end"):
            without.wait("a")


@pytest.mark.parametrize("kept", [False, True], ids=["from the files", "from a keeper"])
def test_a_result_that_cannot_come_is_waited_for_no_longer_than_was_asked(
    data: Path, kept: bool
) -> None:
    """`result(timeout=)` without a server ends with `WaitTimeout`."""
    app = Beaver(data)
    handle = app.enqueue("echo", 1)
    if kept:
        start_keeper(data)
    with pytest.raises(WaitTimeout, match=r"has not ended after 0\.3 s, and no server runs"):
        handle.result(timeout=0.3)


def test_a_server_takes_over_and_clients_do_not_notice(data: Path) -> None:
    """While two producers enqueue, a server asks the keeper to end, and their jobs run there."""
    start_keeper(data)
    producers = [python(MANY, str(data), f"p{n}", "1500") for n in range(2)]
    try:
        eventually(lambda: open_client(data).status().pending > 100, "they enqueue")
        with serving(data) as server:
            for producer in producers:
                _, err = producer.communicate(timeout=60)
                assert producer.returncode == 0, err
            server.drained(3000)
    finally:
        for producer in producers:
            producer.kill()
            producer.wait()
    enqueued = [e["job"] for e in events(data) if e["event"] == "ENQUEUE"]
    assert len(enqueued) == len(set(enqueued)) == 3000


def test_a_server_that_ends_is_followed_by_a_keeper(data: Path) -> None:
    """Producers that a server has served go on without it."""
    with serving(data):
        producer = python(MANY, str(data), "p", "3000")
        eventually(lambda: open_client(data).status().last_seq > 50, "it enqueues")
    try:
        _, err = producer.communicate(timeout=60)
        assert producer.returncode == 0, err
    finally:
        producer.kill()
        producer.wait()
    counts = check(SystemDisk(), str(data)).counts
    assert sum(counts.values()) == 3000


def test_a_killed_keeper_has_lost_nothing_that_was_acknowledged(data: Path) -> None:
    app = Beaver(data)
    start_keeper(data)
    told = []
    for n in range(100):
        if n % 20 == 10:
            pid = keeper_pid(data)
            os.kill(pid, signal.SIGKILL)
            ended(pid)
        told.append(app.enqueue("echo", n, id=f"job-{n}").id)
    assert [e["job"] for e in events(data) if e["event"] == "ENQUEUE"] == told


def test_a_keeper_that_ends_when_it_is_needed_costs_no_request_and_no_error(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request comes just when the keeper gives up; also those that are not sent twice."""
    monkeypatch.setenv("BEAVER_KEEPER_IDLE", "50ms")
    pid = start_keeper(data, idle="50ms")
    app = Beaver(data)
    app.enqueue("echo", 1, id="a")
    assert app.client.cancel("a") == "cancelled"
    keepers = {pid}
    for n in range(40):
        # Not a wait for a condition: the moments around the end of the idle time are meant.
        threading.Event().wait(0.04 + n % 10 * 0.003)
        assert app.client.requeue("a") == "pending"
        assert app.client.cancel("a") == "cancelled"
        keepers.add(keeper_pid(data))
    history = [event.event for event in app.client.history("a")]
    assert history == ["ENQUEUE", "CANCEL", *["REQUEUE", "CANCEL"] * 40]
    assert len(keepers) > 1, "the idle time was met"


def test_an_idle_keeper_ends_and_leaves_a_closed_log(data: Path) -> None:
    pid = start_keeper(data, idle="50ms")
    ended(pid)
    assert sorted(os.listdir(data)) == ["LOCK", "archive", "wal.log"]
    acquire(partial(try_lock, SystemDisk(), str(data)), str(data), 0.0).release()


def test_a_connection_alone_does_not_keep_a_keeper(data: Path) -> None:
    """A web process holds its connection for as long as it lives."""

    def connected() -> tuple[int, blocking.Client] | None:
        """Who it is, and a connection; on a busy machine it may have ended before."""
        pid = start_keeper(data, idle="50ms")
        found = blocking.find(data)
        return None if found is None else (pid, found)

    met = eventually(connected, "a keeper is met while it is there")
    assert met is not None
    pid, held = met
    with held:
        ended(pid)
        held.notice()
        assert held.closed
        with pytest.raises(ServerLeft):
            held.enqueue([make_request("echo")])


def test_a_keeper_holds_nothing_of_its_starter(data: Path, tmp_path: Path) -> None:
    """No pipe, file, directory, session or setting of its starter lives on in it."""
    code = (
        "import os, sys; from beaver.client.embedded import EmbeddedClient as C\n"
        "from beaver.client import embedded; from beaver.request.requests import make_request\n"
        "embedded.SMALL_BYTES = -1; os.umask(0)\n"
        "secret = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT); os.set_inheritable(secret, True)\n"
        "C(sys.argv[1]).enqueue([make_request('echo')]); print(os.getsid(0))\n"
    )
    starter = python(code, str(data), str(tmp_path / "secret"), BEAVER_STORE="ab" * 16)
    # Returns although the keeper lives: its descriptors are not those of the starter.
    out, err = starter.communicate(timeout=30)
    assert starter.returncode == 0, err
    pid = keeper_pid(data)
    process = Path(f"/proc/{pid}")
    opened = {os.readlink(fd) for fd in (process / "fd").iterdir()}
    assert not any("secret" in path for path in opened)
    assert [os.readlink(process / "fd" / str(n)) for n in range(3)] == ["/dev/null"] * 3
    assert os.readlink(process / "cwd") == "/"
    assert os.getsid(pid) not in (int(out), os.getsid(0))
    assert b"BEAVER_" not in (process / "environ").read_bytes()
    assert "Umask:\t0077" in (process / "status").read_text()
    stat = (process / "stat").read_text().rpartition(")")[2].split()
    assert int(stat[1]) != starter.pid


def test_a_starter_with_threads_and_children_of_its_own_starts_a_keeper(data: Path) -> None:
    """The keeper is a program of its own, and no child that its starter has to reap."""
    code = (
        "import os, sys, threading, time; from beaver import Beaver\n"
        "from beaver.client import embedded\n"
        "embedded.SMALL_BYTES = -1\n"
        "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n"
        "app = Beaver(sys.argv[1]); print(app.enqueue('echo', 1).seq)\n"
        "try: os.waitpid(-1, os.WNOHANG)\n"
        "except ChildProcessError: print('no child')\n"
    )
    starter = python(code, str(data))
    out, err = starter.communicate(timeout=30)
    assert (out, starter.returncode) == ("1\nno child\n", 0), err
    assert keeper_pid(data)


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_keeper_whose_directory_is_gone_ends(data: Path, tmp_path: Path, how: str) -> None:
    pid = start_keeper(data)
    with blocking.connect(data) as held:
        held.enqueue([make_request("echo", id="a")])
    if how == "removed":
        shutil.rmtree(data)
        ended(pid)
        assert not data.exists()
    else:
        data.rename(tmp_path / "moved")
        ended(pid)
        assert events(tmp_path / "moved")[0]["job"] == "a"


def test_a_store_that_cannot_be_opened_is_refused_as_without_a_keeper(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the keeper says at its start is what the producer raises."""
    monkeypatch.setenv("BEAVER_KEEPER_IDLE", "0")
    with EmbeddedClient(str(data)) as alone:
        alone.enqueue([make_request("echo", "x" * 1000) for _ in range(3)])
        alone.enqueue([make_request("echo", "x" * 1000)])
    monkeypatch.setenv("BEAVER_KEEPER_IDLE", "60s")
    log = bytearray((data / "wal.log").read_bytes())
    log[500] ^= 1
    (data / "wal.log").write_bytes(log)
    monkeypatch.setattr(embedded, "SMALL_BYTES", -1)
    with pytest.raises(Corruption, match="corrupt data in"):
        EmbeddedClient(str(data)).enqueue([make_request("echo")])
    assert not keeper_pid(data)


def test_where_no_process_can_be_started_changes_are_made_alone(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application in a program that is no Python has none to start."""
    for name in ("executable", "prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, "/nowhere/app")
    app = Beaver(data)
    assert [app.enqueue("echo", n).seq for n in range(3)] == [1, 2, 3]
    assert not (data / "server.json").exists()


def test_two_keepers_that_start_at_once_are_one_in_the_end(data: Path) -> None:
    """The one that comes late finds the other, and ends without an error."""
    data.mkdir(mode=0o700)
    threads = [threading.Thread(target=start_keeper, args=(data,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    pid = keeper_pid(data)
    others = [
        int(entry)
        for entry in os.listdir("/proc")
        if entry.isdecimal() and is_keeper_of(int(entry), data) and is_alive(int(entry))
    ]
    eventually(lambda: [p for p in others if is_alive(p)] == [pid], "the others have ended")


def is_keeper_of(pid: int, data: Path) -> bool:
    try:
        return str(data) in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return False


def test_who_starts_has_the_turn_and_its_end_gives_it_back(data: Path) -> None:
    data.mkdir(mode=0o700)
    turn = try_turn(str(data))
    assert turn is not None
    assert try_turn(str(data)) is None
    turn.release()
    again = try_turn(str(data))
    assert again is not None
    again.release()


def test_a_keeper_ends_on_a_signal_with_all_that_it_has_acknowledged(data: Path) -> None:
    pid = start_keeper(data)
    with blocking.connect(data) as held:
        held.enqueue([make_request("echo", id="a")])
    os.kill(pid, signal.SIGTERM)
    ended(pid)
    assert events(data)[0]["job"] == "a"
    assert endpoint.read(str(data)) is None


def test_nobody_but_a_keeper_is_asked_to_leave(data: Path) -> None:
    with serving(data):
        starting.ask_to_leave(str(data))
        assert open_client(data).status().running


def test_a_busy_keeper_does_not_end(data: Path) -> None:
    """It counts from the last request, not from its start."""
    pid = start_keeper(data, idle="2s")
    with blocking.connect(data) as held:
        until_s = time.monotonic() + 4.5
        while time.monotonic() < until_s:
            held.enqueue([make_request("echo")])
    assert keeper_pid(data) == pid


def test_a_command_goes_on_where_its_keeper_ends(data: Path) -> None:
    """Between two of its calls, as for a long file in chunks."""
    pid = start_keeper(data)
    with open_client(data) as found:
        assert not isinstance(found, EmbeddedClient)
        assert found.greeting.pid == pid
        found.enqueue([make_request("echo", id="a")])
        starting.ask_to_leave(str(data))
        ended(pid)
        found.enqueue([make_request("echo", id="b")])
        assert [job.id for job in found.list_jobs()] == ["a", "b"]


def test_a_keeper_needs_no_room_for_outcomes(data: Path, tmp_path: Path) -> None:
    """It extends the log by what jobs need, and leaves no 64 MiB behind."""
    start_keeper(data)
    with blocking.connect(data) as held:
        held.enqueue([make_request("echo")])
    starting.ask_to_leave(str(data))
    assert (data / "wal.log").stat().st_size <= 2 << 20
    assert not (data / "wal.adopted").exists()
