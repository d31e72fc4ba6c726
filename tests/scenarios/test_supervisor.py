"""A supervisor is told what it asked for, over a real socket: ready, alive, stopping."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beaver.server.supervisor import Supervisor
from tests.support.program import beaver, enqueue, eventually, serving

APP = """
import os
from beaver import Beaver
app = Beaver()

@app.job
def look():
    return [name for name in os.environ if "NOTIFY" in name or "WATCHDOG" in name]
"""


class Listener:
    """The socket of a supervisor, and all that came to it."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self.heard: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.heard.append(message.decode())

    def count(self, word: str) -> int:
        return sum(word in message.split("\n") for message in self.heard)


@contextmanager
def listening(address: str) -> Iterator[Listener]:
    listener = Listener(address)
    yield listener
    listener._socket.close()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_supervisor_hears_ready_then_beats_then_stopping(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "n") if kind == "path" else f"@beaver-test-{tmp_path}"
    data = tmp_path / "data"
    (tmp_path / "shop.py").write_text(APP)
    with listening(address) as heard:
        app = ("--workers", "1", "-A", "shop:app")
        with serving(
            data, *app, cwd=tmp_path, NOTIFY_SOCKET=address, WATCHDOG_USEC="100000"
        ) as server:
            eventually(lambda: heard.count("WATCHDOG=1") > 2, "it beats")
            assert heard.heard[0].startswith("READY=1\nSTATUS=serving ")
            assert heard.count("STOPPING=1") == 0
            # Neither workers nor jobs can speak for it.
            enqueue(data, {"id": "a", "task": "look"})
            server.drained(1)
            assert json.loads(beaver("show", "a", "--data", str(data), "--json"))["result"] == []
            assert server.stop() == 0
        eventually(lambda: heard.count("STOPPING=1") == 1, "it says that it stops")
        assert heard.count("READY=1") == 1


def test_a_server_that_hangs_no_longer_beats(tmp_path: Path) -> None:
    """The beats come from the event loop, and start again with it."""
    address = str(tmp_path / "n")
    with (
        listening(address) as heard,
        serving(
            tmp_path / "data", "--workers", "1", NOTIFY_SOCKET=address, WATCHDOG_USEC="40000"
        ) as server,
    ):
        eventually(lambda: heard.count("WATCHDOG=1") > 2, "it beats")
        server.process.send_signal(signal.SIGSTOP)
        eventually(lambda: _is_still(heard), "no beat comes any more")
        before = heard.count("WATCHDOG=1")
        server.process.send_signal(signal.SIGCONT)
        eventually(lambda: heard.count("WATCHDOG=1") > before + 2, "it beats again")


def _is_still(heard: Listener) -> bool:
    """True where as much time as ten beats take has brought none."""
    before, until_s = heard.count("WATCHDOG=1"), time.monotonic() + 0.4
    while time.monotonic() < until_s:
        if heard.count("WATCHDOG=1") != before:
            return False
        time.sleep(0.01)
    return True


def test_without_a_supervisor_or_with_a_deaf_one_the_server_serves(tmp_path: Path) -> None:
    nobody = str(tmp_path / "nobody")
    with serving(
        tmp_path / "data", "--workers", "1", NOTIFY_SOCKET=nobody, WATCHDOG_USEC="100000"
    ) as server:
        enqueue(tmp_path / "data", {"id": "a", "task": "echo"})
        server.drained(1)


@pytest.mark.parametrize(
    ("asked", "beats"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 1.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, 0.0),
        ({}, 0.0),
    ],
)
def test_a_watchdog_is_answered_twice_a_period_if_it_is_meant_for_us(
    asked: dict[str, str], beats: float
) -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "OTHER": "kept", **asked}
    assert Supervisor(environ)._beat_s == beats
    assert environ == {"OTHER": "kept"}
