"""P8: no client makes the server's memory grow without bound, alone or with others."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver.client.blocking import connect
from beaver.request.requests import make_request
from beaver.transport import framing
from tests.support.program import Server, eventually, serving

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read in /proc"
)

MIB = 1 << 20
HELLO = framing.encode_frame([0, "hello", [framing.VERSION]])
GROWTH_MAX = 700 * MIB
"""More than both budgets and what Python takes beside them; each attack had gigabytes."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "data", "--workers", "1") as server:
        yield server


class Attack:
    """Raw connections to the local socket of a server."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self._server, self._stack = server, stack
        self._path = json.loads((server.data / "server.json").read_text())["socket"]
        self._before = self.peak()

    def open(self, *, greet: bool = True) -> socket.socket:
        one = self._stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        one.settimeout(10)
        one.connect(self._path)
        if greet:
            one.sendall(HELLO)
            one.recv(1 << 16)
        return one

    def peak(self) -> int:
        """The most memory that the server has had so far."""
        text = Path(f"/proc/{self._server.process.pid}/status").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) << 10

    def growth(self) -> int:
        return self.peak() - self._before


def pour(one: socket.socket, data: bytes, seconds: float = 3.0) -> int:
    """Sends as much as is taken without a pause of so long; returns how much that was."""
    one.settimeout(seconds)
    view, sent = memoryview(data), 0
    try:
        while sent < len(data):
            sent += one.send(view[sent : sent + MIB])
    except (TimeoutError, ConnectionError):
        pass
    return sent


def serves(server: Server) -> None:
    """Others are served, whatever that client does."""
    with closing(connect(str(server.data))) as client:
        before = client.status().completed
        client.enqueue([make_request("echo", 1)])
        eventually(lambda: client.status().completed == before + 1, "a job of another's ran", 30)


def answers(one: socket.socket, count: int) -> Iterator[Any]:
    """Reads so many answers."""
    reader = framing.FrameReader()
    one.settimeout(30)
    while count:
        data = one.recv(1 << 20)
        assert data, "the server hung up"
        for body in reader.feed(data):
            count -= 1
            yield framing.decode_message(body)


def test_pipelined_questions_behind_a_commit_are_answered_within_a_bound(server: Server) -> None:
    """Thousands of answers of a megabyte, asked for at once by several; each comes in the end."""
    with ExitStack() as stack:
        attack = Attack(server, stack)
        with closing(connect(str(server.data))) as client:
            client.enqueue([make_request("nobody", "x" * (MIB - 100), id="big")])
        ask = framing.encode_frame([2, "show", ["big"]])
        open_commit = framing.encode_frame([1, "enqueue", [[make_request("nobody", 1)]]])
        clients = [attack.open() for _ in range(4)]
        for one in clients:
            pour(one, (open_commit + ask * 30) * 30)
        serves(server)
        assert attack.growth() < GROWTH_MAX
        got = [answer[:2] for answer in answers(clients[0], 31 * 30)]
        assert sorted(got) == [*[[1, 0]] * 30, *[[2, 0]] * 900]


def test_many_clients_that_do_not_read_are_bounded_together(server: Server) -> None:
    """Each is within its own bound; together they would hold gigabytes."""
    with ExitStack() as stack:
        attack = Attack(server, stack)
        with closing(connect(str(server.data))) as client:
            client.enqueue([make_request("nobody", "x" * (MIB - 100), id="big")])
        ask = framing.encode_frame([2, "show", ["big"]])
        for _ in range(300):
            pour(attack.open(), ask * 50, 0.2)
        serves(server)
        assert attack.growth() < GROWTH_MAX


def test_a_million_waits_are_refused_beyond_the_bound(server: Server) -> None:
    with ExitStack() as stack:
        attack = Attack(server, stack)
        with closing(connect(str(server.data))) as client:
            client.enqueue([make_request("nobody", 1, id="never")])
        one = attack.open()
        wait = [framing.encode_frame([n, "wait", ["never", -1]]) for n in range(1, 200_001)]
        reading = threading.Thread(target=lambda: one.recv(1 << 10), daemon=True)
        reading.start()
        pour(one, b"".join(wait))
        serves(server)
        assert attack.growth() < GROWTH_MAX
        reading.join(30)
        one.close()
        serves(server)


def test_half_frames_before_hello_are_refused_and_after_it_bounded_together(
    server: Server,
) -> None:
    half = struct.pack("<I", 63 * MIB) + bytes(60 * MIB)
    with ExitStack() as stack:
        attack = Attack(server, stack)
        for _ in range(5):
            one = attack.open(greet=False)
            assert pour(one, half) < 2 * MIB, "it is hung up on, with what was on its way"
        assert attack.growth() < 50 * MIB
        senders = [
            threading.Thread(target=pour, args=(attack.open(), half, 1.0), daemon=True)
            for _ in range(20)
        ]
        for sender in senders:
            sender.start()
        serves(server)
        for sender in senders:
            sender.join(60)
        serves(server)
        assert attack.growth() < GROWTH_MAX


def test_nobody_keeps_others_waiting_with_halves_of_frames(server: Server) -> None:
    """Who fills the room for large frames and stops is hung up on once somebody wants it."""
    with ExitStack() as stack:
        attack = Attack(server, stack)
        for _ in range(4):
            pour(attack.open(), struct.pack("<I", 63 * MIB) + bytes(MIB))
        with closing(connect(str(server.data))) as client:
            batch = [make_request("nobody", "x" * 1_000_000) for _ in range(4)]
            assert len(client.enqueue(batch)) == 4


@pytest.mark.parametrize(
    "request_body",
    [
        [1, "\0" * (30 * MIB), []],
        [1, "show", ["x" * (30 * MIB)]],
        [1, "list", ["x" * (30 * MIB), "", "", 0, 0]],
        [1, "wait", ["x" * (30 * MIB), -1]],
        [1, "enqueue", [["x" * (30 * MIB)]]],
    ],
    ids=["op", "show", "list", "wait", "enqueue"],
)
def test_a_huge_word_is_not_repeated(server: Server, request_body: list[Any]) -> None:
    with ExitStack() as stack:
        attack = Attack(server, stack)
        one = attack.open()
        pour(one, framing.encode_frame(request_body))
        ((number, status, said),) = answers(one, 1)
        assert (number, status) == (1, 1)
        assert len(said[1]) < 5_000
        assert attack.growth() < 200 * MIB
        one.sendall(framing.encode_frame([2, "status", []]))
        assert next(answers(one, 1))[:2] == [2, 0], "and the connection goes on"


def test_millions_of_jobs_in_one_frame_are_refused_before_they_are_made(server: Server) -> None:
    """Each takes eight bytes there, and a hundred once it is made."""
    nothing = msgspec.msgpack.encode(["", b"", b"", b""])
    count = 30 * MIB // len(nothing)
    head = msgspec.msgpack.encode([1, "enqueue"]).replace(b"\x92", b"\x93", 1)
    message = head + b"\x91\xdd" + count.to_bytes(4, "big") + nothing * count
    with ExitStack() as stack:
        attack = Attack(server, stack)
        one = attack.open()
        pour(one, struct.pack("<I", len(message)) + message)
        ((number, status, said),) = answers(one, 1)
        assert (number, status) == (1, 1)
        assert f"{count} jobs in one commit" in said[1]
        assert attack.growth() < 200 * MIB
