"""The local socket and its operations: order, visibility, and clients that misbehave."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from beaver.client import calls
from beaver.client.blocking import connect
from beaver.client.calls import Call
from beaver.errors import InvalidInput, NotFound, WaitTimeout
from beaver.inspect import finding
from beaver.inspect.finding import SLICE_JOBS
from beaver.request.operations import OPERATIONS
from beaver.request.requests import make_request, request_bytes
from beaver.server.connection import PAUSE_BYTES, UNREAD_BYTES_MAX
from beaver.server.results import Results
from beaver.server.unix_socket import SocketServer
from beaver.transport import framing
from beaver_model.bounds import BATCH_BYTES_MAX
from beaver_model.commands import Complete, Dispatch
from tests.worlds.runtime import EngineWorld, on_loop
from tests.worlds.service import service_over


class Peer:
    """A client that speaks raw frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames = framing.FrameReader()
        self._ready: list[Any] = []

    def send(self, *messages: Any) -> None:
        self.writer.write(b"".join(map(framing.encode_frame, messages)))

    async def answer(self) -> Any:
        """The next answer, or `None` where the server has hung up."""
        while not self._ready:
            data = await self.reader.read(1 << 16)
            if not data:
                return None
            self._ready += map(framing.decode_message, self._frames.feed(data))
        return self._ready.pop(0)

    async def ask(self, op: str, *body: Any) -> Any:
        self.send([1, op, list(body)])
        number, status, answer = await self.answer()
        assert number == 1
        if status:
            raise framing.error_named(*answer)
        return msgspec.json.decode(answer) if isinstance(answer, bytes) else answer


class Door:
    """Where clients come in; whoever came is shown out at the end."""

    def __init__(self, path: str, results: Results, server: SocketServer) -> None:
        self.path = path
        self.results = results
        self.server = server
        self.peers: list[Peer] = []

    async def stranger(self) -> Peer:
        self.peers.append(Peer(*await asyncio.open_unix_connection(self.path)))
        return self.peers[-1]

    async def client(self) -> Peer:
        client = await self.stranger()
        client.send([0, "hello", [framing.VERSION]])
        assert (await client.answer())[:2] == [0, 0]
        return client


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[tuple[EngineWorld, Door]]:
    """A socket server over a real engine, without workers."""
    world = EngineWorld(tmp_path / "data")
    results = Results()
    service = service_over(world.engine, results)
    server = SocketServer(service, "store")
    door = Door(str(tmp_path / "s"), results, server)
    await server.start(door.path)
    try:
        yield world, door
    finally:
        await service.close()
        await server.close()
        for peer in door.peers:
            peer.writer.close()


@on_loop
async def test_pipelined_requests_are_answered_each_once_and_share_a_commit(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (world, door):
        client = await door.client()
        client.send(*([n, "enqueue", [[make_request("echo", n)]]] for n in range(1, 51)))
        answers = [await client.answer() for _ in range(50)]
        assert [number for number, _, _ in answers] == list(range(1, 51))
        assert [body[0][1] for _, _, body in answers] == list(range(1, 51))
        assert world.engine.counters.commits <= 3


@on_loop
async def test_after_an_acknowledgement_every_read_shows_it(tmp_path: Path) -> None:
    """P11: on every connection, whatever the question."""
    async with served(tmp_path) as (_, door):
        one, other = await door.client(), await door.client()
        for n in range(20):
            await one.ask("enqueue", [make_request("echo", n, id=f"job-{n}")])
            assert (await other.ask("status"))["pending"] == n + 1
            assert (await other.ask("show", f"job-{n}"))["state"] == "pending"
            assert len(await other.ask("list", "", "", "", 0, 100)) == n + 1
            await one.ask("cancel", f"job-{n}") if n % 2 else None
            state = (await other.ask("explain", f"job-{n}"))["job"]["state"]
            assert state == ("cancelled" if n % 2 else "pending")
            await one.ask("requeue", f"job-{n}", None) if n % 2 else None


@on_loop
async def test_a_wait_is_answered_when_the_job_ends_and_not_before(tmp_path: Path) -> None:
    async with served(tmp_path) as (world, door):
        client = await door.client()
        await client.ask("enqueue", [make_request("echo", 1, id="a")])
        client.send([7, "wait", ["a", -1]], [8, "wait", ["a", 1]], [9, "show", ["a"]])
        numbers = {(await client.answer())[0], (await client.answer())[0]}
        assert numbers == {8, 9}, "the short wait timed out, the long one goes on"
        await world.engine.execute(Dispatch("a", 1))
        await world.engine.execute(Complete("a", world.state.jobs["a"].token, b"42"))
        number, status, body = await client.answer()
        assert (number, status) == (7, 0)
        assert msgspec.json.decode(body)["result"] == 42


@on_loop
async def test_a_client_that_talks_nonsense_loses_its_connection_and_nobody_else(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (_, door):
        good = await door.client()
        for nonsense in (
            b"GET / HTTP/1.1\r\n\r\n",
            framing.encode_frame([1, "status", []]),
            framing.encode_frame("hello"),
            framing.encode_frame([0, "hello", [framing.VERSION + 1]]),
            b"\x01\x00\x00\x00\xc1",
            b"\xff\xff\xff\xff",
        ):
            bad = await door.stranger()
            bad.writer.write(nonsense)
            while (answer := await bad.answer()) is not None:
                assert answer[1] == 1
        assert (await good.ask("status"))["running"]


@on_loop
async def test_bad_arguments_are_refused_by_each_operation_and_the_connection_lives(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (world, door):
        client = await door.client()
        operations = [*OPERATIONS, "nothing"]
        for op in operations:
            bodies: list[object] = [[{}], ["x"] * 9, None, [[1, 2]]]
            for body in bodies:
                client.send([3, op, body])
                number, status, answer = await client.answer()
                if op == "status":
                    continue
                assert (number, status) == (3, 1), (op, body, answer)
                assert answer[0] in ("InvalidInput", "NotFound"), (op, body, answer)
        assert world.state.last_seq == 0


@on_loop
async def test_the_socket_is_private(tmp_path: Path) -> None:
    """P8."""
    async with served(tmp_path) as (_, door):
        assert stat.S_IMODE(Path(door.path).stat().st_mode) == 0o600  # noqa: ASYNC240


@on_loop
async def test_a_client_that_does_not_read_is_held_back_and_others_are_served(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (world, door):
        good, lazy = await door.client(), await door.client()
        big = '"' + "x" * 100_000 + '"'
        await good.ask("enqueue", [make_request("echo", big, id="big")])
        sending = asyncio.ensure_future(_flood(lazy))
        for _ in range(50):
            assert (await good.ask("status"))["pending"] == 1
        sending.cancel()
        lazy.writer.transport.abort()
        assert (await good.ask("status"))["pending"] == 1
        assert world.failures == []


async def _flood(client: Peer) -> None:
    ask = partial(framing.encode_frame, [1, "show", ["big"]])
    while True:
        client.writer.write(ask())
        await client.writer.drain()


async def wait_until(met: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if met():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come to pass")


@on_loop
async def test_large_lists_are_found_one_by_one_as_they_are_read(tmp_path: Path) -> None:
    """And what comes behind one waits for it; other clients do not."""
    async with served(tmp_path) as (world, door):
        client, other = await door.client(), await door.client()
        jobs = [make_request("echo", "x" * 1_000) for _ in range(2 * SLICE_JOBS)]
        await client.ask("enqueue", jobs)
        page = sum(len(row.payload) for row in world.state.jobs.values())
        assert 30 * page > UNREAD_BYTES_MAX
        client.send(*([n, "list", ["", "", "", 0, 0]] for n in range(1, 31)), [31, "status", []])
        [connection, _] = sorted(door.server.connections, key=lambda one: -one.watches)
        transport = connection._transport
        for _ in range(50):
            await other.ask("status")
            assert transport is not None
            assert transport.get_write_buffer_size() < PAUSE_BYTES + 3 * page
            assert connection.watches <= 1
        answers = [await client.answer() for _ in range(31)]
        assert [number for number, _, _ in answers] == list(range(1, 32))
        assert {len(msgspec.json.decode(body)) for _, _, body in answers[:-1]} == {len(jobs)}


@on_loop
async def test_a_search_ends_with_its_connection_and_the_next_has_its_turn(
    tmp_path: Path,
) -> None:
    find_jobs = finding.find_jobs

    def forever(*_: Any) -> finding.Search:
        while True:
            yield

    def after_a_pause(*asked: Any) -> finding.Search:
        yield
        return (yield from find_jobs(*asked))

    async with served(tmp_path) as (_, door):
        client = await door.client()
        [connection] = door.server.connections
        other = await door.client()
        [others] = set(door.server.connections) - {connection}
        await other.ask("enqueue", [make_request("echo", 1)])
        with patch.object(finding, "find_jobs", forever):
            client.send([1, "list", ["", "", "", 0, 0]])
            await wait_until(lambda: connection.watches == 1)
        with patch.object(finding, "find_jobs", after_a_pause):
            listed = asyncio.create_task(other.ask("list", "", "", "", 0, 0))
            await wait_until(lambda: others.watches == 1)
            assert not listed.done()
            connection.close()
            assert len(await listed) == 1


@on_loop
async def test_a_client_that_sends_while_answers_fill_its_side_reads_them(tmp_path: Path) -> None:
    """Else the server waits until it reads, and it waits until the server reads."""

    def work(path: str) -> list[int]:
        with connect(f"unix:{path}") as client:
            client.enqueue([make_request("echo", "x" * 1_500) for _ in range(3_000)])
            lists = [calls.list_jobs(limit=3_000)] * 4
            more = [
                calls.enqueue([make_request("echo", "x" * 1_500) for _ in range(2_000)])
                for _ in range(4)
            ]
            both: list[Call[Any]] = [*lists, *more]
            return [len(answer) for answer in client.call_each(both)]

    async with served(tmp_path) as (_, door):
        found = await asyncio.wait_for(asyncio.to_thread(work, door.path), 60)
        assert found == [3_000] * 4 + [2_000] * 4


@on_loop
async def test_a_wait_leaves_nothing_behind_when_its_client_goes_away(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, door):
        client = await door.client()
        await client.ask("enqueue", [make_request("echo", id="a")])
        client.send([2, "wait", ["a", -1]], [3, "wait", ["a", 60_000]])
        await wait_until(lambda: door.results.waiting == 2)
        client.writer.close()
        await wait_until(lambda: door.results.waiting == 0)


@on_loop
async def test_a_client_that_repeats_a_number_waits_once(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, door):
        client = await door.client()
        await client.ask("enqueue", [make_request("echo", id="a")])
        client.send(*([7, "wait", ["a", -1]] for _ in range(5)))
        await client.ask("status")
        assert door.results.waiting == 1


@on_loop
async def test_all_who_wait_for_a_job_are_told_of_its_end(tmp_path: Path) -> None:
    async with served(tmp_path) as (world, door):
        clients = [await door.client() for _ in range(3)]
        await clients[0].ask("enqueue", [make_request("echo", id="a")])
        for client in clients:
            client.send([2, "wait", ["a", -1]], [3, "wait", ["a", 60_000]])
        await wait_until(lambda: door.results.waiting == 6)
        token = (await world.engine.execute(Dispatch("a", 1))).first_seq
        await world.engine.execute(Complete("a", token, b"1"))
        for client in clients:
            assert {(await client.answer())[0] for _ in range(2)} == {2, 3}
        assert door.results.waiting == 0


@on_loop
async def test_a_wait_that_is_over_leaves_nothing_behind(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, door):
        client = await door.client()
        await client.ask("enqueue", [make_request("echo", id="a")])
        with pytest.raises(WaitTimeout):
            await client.ask("wait", "a", 1)
        with pytest.raises(NotFound):
            await client.ask("wait", "none", -1)
        assert door.results.waiting == 0
        assert [connection.watches for connection in door.server.connections] == [0]


@on_loop
async def test_a_batch_of_exactly_the_bytes_of_a_commit_comes_in_and_one_more_does_not(
    tmp_path: Path,
) -> None:
    """Jobs are summed up only where what came is long enough; the bound is the same."""
    pieces = [make_request("echo", "x" * 900_000, id=f"j{n}") for n in range(9)]
    rest = BATCH_BYTES_MAX - sum(map(request_bytes, pieces))
    last = make_request("echo", "", id="last")
    last.payload = b'"' + b"x" * (rest - request_bytes(last)) + b'"'
    assert sum(map(request_bytes, [*pieces, last])) == BATCH_BYTES_MAX
    async with served(tmp_path) as (_, door):
        client = await door.client()
        longer = msgspec.structs.replace(last, payload=last.payload[:-1] + b'y"')
        with pytest.raises(InvalidInput, match=f"jobs of {BATCH_BYTES_MAX + 1} bytes"):
            await client.ask("enqueue", [*pieces, longer])
        assert len(await client.ask("enqueue", [*pieces, last])) == 10
