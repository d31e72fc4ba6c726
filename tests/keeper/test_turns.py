"""Starts, restarts, and who waits for whom: everybody gets through, and in turn."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from beaver import StoreUnavailable
from beaver.client.embedded import EmbeddedClient
from beaver.client.opening import open_client
from beaver.holder.turn import try_turn
from beaver.journal.wal import lock
from beaver.journal.wal.lock import CHANGING_S, LOCK_WAIT_S, Patience, acquire, try_lock
from beaver.request.requests import make_request
from beaver.system.disk import SystemDisk
from beaver.transport import endpoint
from tests.support.program import Server, events, eventually
from tests.worlds.keeper import MANY, python


def has_turn(data: Path) -> bool:
    turn = try_turn(str(data))
    if turn is not None:
        turn.release()
    return turn is None


def test_producers_wait_for_a_server_that_starts(data: Path) -> None:
    """From before it takes the lock until it listens, nobody else starts to hold the store."""
    data.mkdir(mode=0o700)
    lock = acquire(partial(try_lock, SystemDisk(), str(data)), str(data))
    server = Server(data)
    try:
        eventually(lambda: has_turn(data), "the server has the turn")
        producer = python(MANY, str(data), "p", "3")
        lock.release()
        server.ready()
        out, err = producer.communicate(timeout=30)
        assert producer.returncode == 0, err
        assert len(out.split()) == 3
        info = endpoint.read(str(data))
        assert info is not None
        assert not info.keeper
        assert not has_turn(data)
        server.drained(3)
        assert server.stop() == 0
    finally:
        lock.release()
        if server.process.poll() is None:
            server.kill()


def is_beyond(data: Path, seq: int) -> bool:
    return open_client(data).status().last_seq > seq


def test_producers_get_through_the_restarts_of_a_server(data: Path) -> None:
    """Four producers enqueue while a server is stopped and started again, and killed."""
    data.mkdir(mode=0o700)
    server = Server(data)
    server.ready()
    producers = [python(MANY, str(data), f"p{n}", "800") for n in range(4)]
    try:
        for end in (server.stop, None, None):
            seq = open_client(data).status().last_seq
            eventually(partial(is_beyond, data, seq), "jobs come in")
            (end or server.kill)()
            server = Server(data)
            server.ready()
        for producer in producers:
            out, err = producer.communicate(timeout=120)
            assert producer.returncode == 0, err
            assert len(set(out.split())) == 800
        server.drained(3200, 120)
        assert server.stop() == 0
    finally:
        for producer in producers:
            producer.kill()
            producer.wait()
        if server.process.poll() is None:
            server.kill()


class Waiting:
    """One call that waits for a store, on a clock that only its waiting moves."""

    def __init__(self, data: Path) -> None:
        self.now_s = 0.0
        self._patience = Patience(str(data), now_s=lambda: self.now_s, pause=self._pass)

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds

    def to_the_end(self) -> tuple[float, str]:
        """Waits until it is given up; returns after how long, and what was said."""
        while True:
            try:
                self._patience.wait()
            except StoreUnavailable as error:
                return self.now_s, str(error)


@pytest.mark.parametrize(
    ("phase", "wait_s"),
    [("", LOCK_WAIT_S), ("starting", CHANGING_S), ("ending", CHANGING_S), ("what?", LOCK_WAIT_S)],
)
def test_a_lock_is_waited_for_5_s_and_a_server_that_starts_or_ends_60(
    data: Path, caplog: pytest.LogCaptureFixture, phase: str, wait_s: float
) -> None:
    """It is a running server, and a call goes through it; that it waits longer is told once."""
    data.mkdir(mode=0o700)
    held = acquire(partial(try_lock, SystemDisk(), str(data)), str(data))
    try:
        endpoint.tell_phase(str(data), phase)
        waited_s, said = Waiting(data).to_the_end()
    finally:
        held.release()
    changes = wait_s == CHANGING_S
    named = f"process {os.getpid()}" + (f", a server that is {phase}" if changes else "")
    assert wait_s <= waited_s < wait_s + 0.05
    assert f"in use by {named}, which does not answer (waited {wait_s:.0f} s)" in said
    told = [f"{data} is held by {named}: it is waited for, up to 60 s"] if changes else []
    assert [record.getMessage() for record in caplog.records] == told
    assert (LOCK_WAIT_S, CHANGING_S) == (5.0, 60.0)


def test_a_phase_that_another_process_has_left_behind_is_worth_nothing(data: Path) -> None:
    """A server that was killed in its start says so for ever: its word ends with it."""
    data.mkdir(mode=0o700)
    held = acquire(partial(try_lock, SystemDisk(), str(data)), str(data))
    try:
        (data / "phase").write_text("1 starting\n")
        waited_s, _ = Waiting(data).to_the_end()
    finally:
        held.release()
    assert waited_s < LOCK_WAIT_S + 0.05


def test_a_call_waits_once_whoever_is_in_its_way(data: Path) -> None:
    """Not first for the turn, then for the lock, and then by a keeper for the lock again."""
    data.mkdir(mode=0o700)
    wait_s = 1.0
    turn = try_turn(str(data))
    assert turn is not None
    freed = threading.Timer(0.7 * wait_s, turn.release)
    held = acquire(partial(try_lock, SystemDisk(), str(data)), str(data))
    began_s = time.monotonic()
    freed.start()
    try:
        with pytest.raises(StoreUnavailable, match=f"in use by process {os.getpid()}"):
            EmbeddedClient(str(data), lock_wait_s=wait_s).enqueue([make_request("echo")])
        assert time.monotonic() - began_s < 2 * wait_s
    finally:
        freed.join()
        held.release()


def test_who_has_the_turn_and_not_the_lock_is_named(data: Path) -> None:
    data.mkdir(mode=0o700)
    (data / "LOCK").write_text("1\n")
    turn = try_turn(str(data))
    assert turn is not None
    with (
        turn,
        pytest.raises(StoreUnavailable, match=f"in use by process {os.getpid()},"),
    ):
        EmbeddedClient(str(data), lock_wait_s=0.1).enqueue([make_request("echo")])


def test_a_holder_that_is_gone_is_not_named_as_if_it_were_there(data: Path) -> None:
    """A lock that outlives its process, by a log writer say, has an old pid in it."""
    data.mkdir(mode=0o700)
    ended_process = subprocess.Popen([sys.executable, "-c", ""])
    ended_process.wait()
    (data / "LOCK").write_text(f"{ended_process.pid}\n")
    assert lock.holder_of(str(data)).endswith("which is not to be seen from here")


TOGETHER = """
import os, sys, time
from beaver import Beaver
app = Beaver(sys.argv[1])
app.enqueue("echo", 0)
while not os.path.exists(sys.argv[3]):
    time.sleep(0.01)
for n in range(100):
    app.enqueue("echo", n, id=f"{sys.argv[2]}-{n}")
"""


def test_fifty_producers_get_their_turns(data: Path, tmp_path: Path) -> None:
    """While all of them enqueue, nobody gets less than a third of what the middle one gets."""
    data.mkdir(mode=0o700)
    go = tmp_path / "go"
    producers = [python(TOGETHER, str(data), f"p{n}", str(go)) for n in range(50)]
    try:
        eventually(lambda: has_jobs(data, 50), "all are there", 120)
        go.touch()
        for producer in producers:
            _, err = producer.communicate(timeout=120)
            assert producer.returncode == 0, err
    finally:
        for producer in producers:
            producer.kill()
            producer.wait()
    order = [e["job"].partition("-")[0] for e in events(data) if e["event"] == "ENQUEUE"][50:]
    assert len(order) == 50 * 100
    shared = order[: len(order) // 2]
    counts = sorted(shared.count(name) for name in set(order))
    assert counts[0] > counts[25] / 3, counts


def has_jobs(data: Path, count: int) -> bool:
    return (data / "wal.log").exists() and open_client(data).status().pending >= count


WAITING = """
import os, sys, threading, time
from beaver.client.embedded import EmbeddedClient
from beaver.request.requests import make_request

def produce(name):
    client = EmbeddedClient(sys.argv[1])
    os.write(1, b"asks\\n")
    client.enqueue([make_request("echo", 0, id=name)])
    os.write(1, b"%.6f\\n" % time.monotonic())

for n in range(int(sys.argv[3])):
    threading.Thread(target=produce, args=(f"{sys.argv[2]}-{n}",)).start()
"""
PROCESSES, THREADS = 10, 5


@pytest.mark.skipif(sys.platform != "linux", reason="processes share a monotonic clock on Linux")
@pytest.mark.parametrize("by", ["a keeper", "a server"])
def test_fifty_producers_that_wait_for_a_store_are_served_together(data: Path, by: str) -> None:
    """No order of who came first is kept, and none is needed: nobody waits twice the median.

    Each looks every 20 ms, and whoever takes the store then serves all who wait.
    """
    data.mkdir(mode=0o700)
    held = acquire(partial(try_lock, SystemDisk(), str(data)), str(data))
    endpoint.tell_phase(str(data), "starting")  # So they wait as long as it takes.
    producers = [python(WAITING, str(data), f"p{n}", str(THREADS)) for n in range(PROCESSES)]
    server: Server | None = None
    try:
        for producer in producers:
            assert producer.stdout is not None
            for _ in range(THREADS):
                assert producer.stdout.readline() == "asks\n"
        if by == "a server":
            server = Server(data)
            eventually(lambda: has_turn(data), "the server wants the lock")
        freed_s = time.monotonic()
        endpoint.tell_phase(str(data), "")
        held.release()
        waits_s = []
        for producer in producers:
            out, err = producer.communicate(timeout=120)
            assert producer.returncode == 0, err
            waits_s += [float(line) - freed_s for line in out.split()]
        waits_s.sort()
        assert len(waits_s) == PROCESSES * THREADS
        assert waits_s[-1] < 2 * waits_s[len(waits_s) // 2], waits_s
        if server is not None:
            assert server.stop() == 0
    finally:
        held.release()
        for producer in producers:
            producer.kill()
            producer.wait()
        if server is not None and server.process.poll() is None:
            server.kill()
