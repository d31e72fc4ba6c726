"""Room for bodies: bounded, first come first served, and given back by those who leave."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from beaver.server.http.problems import Problem
from beaver.server.http.site import SMALL_BYTES, Room
from tests.http_api.client import Http
from tests.worlds.runtime import on_loop

SIZE = SMALL_BYTES + 1
"""The smallest body that needs room."""


class Sender:
    """A client that sends a body once it is let."""

    def __init__(self, size: int = SIZE) -> None:
        self.content_length = size
        self.content = SimpleNamespace(readany=self._read)
        self.may_send = asyncio.Event()
        self._left = size

    async def _read(self) -> bytes:
        await self.may_send.wait()
        sent, self._left = self._left, 0
        return bytes(sent)


async def read(room: Room, sender: Sender) -> int:
    async with room.reading(cast("Any", sender), SIZE) as body:
        return len(body)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@on_loop
async def test_bodies_beyond_the_room_wait_and_come_in_order() -> None:
    room = Room(2 * SIZE)
    senders = [Sender() for _ in range(4)]
    reading = [asyncio.ensure_future(read(room, sender)) for sender in senders]
    await turns()
    for sender in senders:
        sender.may_send.set()
    assert await asyncio.gather(*reading) == [SIZE] * 4
    with pytest.raises(Problem):
        await read(room, Sender(SIZE + 1))


@on_loop
async def test_small_bodies_need_no_room() -> None:
    room = Room(0)
    sender = Sender(SMALL_BYTES)
    sender.may_send.set()
    assert await read(room, sender) == SMALL_BYTES


@pytest.mark.parametrize("at_once", [True, False])
def test_those_who_leave_while_they_wait_take_no_room_along(at_once: bool) -> None:
    """Also where one leaves in the very turn in which it would have got its room."""

    @on_loop
    async def main() -> None:
        room = Room(SIZE)
        for _ in range(20):
            holds, waits, last = Sender(), Sender(), Sender()
            tasks = [asyncio.ensure_future(read(room, s)) for s in (holds, waits, last)]
            await turns()
            if at_once:
                tasks[0].cancel()
                tasks[1].cancel()
            else:
                tasks[1].cancel()
                await turns()
                tasks[0].cancel()
            last.may_send.set()
            assert await asyncio.wait_for(tasks[2], 5) == SIZE
            await asyncio.gather(*tasks, return_exceptions=True)

    main()


def test_a_crowd_that_leaves_with_half_its_bodies_keeps_nobody_out(http: Http) -> None:
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {http.token}\r\n"
        "Content-Length: 8388608\r\n\r\n"
    ).encode()
    for _ in range(3):
        crowd = [socket.create_connection((http.host, http.port)) for _ in range(60)]
        for one in crowd:
            one.sendall(head + b"[" * 100_000)
        for one in crowd:
            one.close()
    answer = http.post("/v1/jobs", b'{"id": "behind the crowd"}'.ljust(8 << 20))
    assert answer.status == 201


def test_a_stream_has_no_head(http: Http) -> None:
    assert http.ask("HEAD", "/v1/events").status == 405
    assert http.ask("HEAD", "/v1/status").status == 200
