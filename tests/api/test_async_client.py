"""The asyncio client: the same calls, awaited, many at once on one connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from beaver import Beaver
from beaver.client import asynchronous
from beaver.errors import Conflict, NotFound, ServerGone, StoreUnavailable
from beaver.structs.messages import Options, Request
from tests.api.conftest import ModelServer

OPTIONS = msgspec.msgpack.encode(Options("echo"))


def request(job: str, payload: bytes = b"null") -> Request:
    return Request(job, OPTIONS, payload, payload[:12].ljust(12, b"."))


def test_calls_run_at_once_on_one_connection(data: str, server: ModelServer) -> None:
    async def main() -> None:
        async with await asynchronous.connect(data) as found:
            made = await asyncio.gather(*(found.enqueue([request(f"j{n}")]) for n in range(200)))
            assert [one.id for [one] in made] == [f"j{n}" for n in range(200)]
            status, shown = await asyncio.gather(found.status(), found.show("j7"))
            assert (status.pending, shown.id) == (200, "j7")

    asyncio.run(main())
    assert server.connections == 1


def test_errors_reach_their_own_caller(data: str, server: ModelServer) -> None:
    async def main() -> None:
        async with await asynchronous.connect(data) as found:
            outcomes = await asyncio.gather(
                found.enqueue([request("a")]),
                found.show("nobody"),
                found.enqueue([request("a", b"2")]),
                return_exceptions=True,
            )
            assert [type(o) for o in outcomes] == [list, NotFound, Conflict]

    asyncio.run(main())


def test_a_cancelled_wait_leaves_the_connection_usable(data: str, server: ModelServer) -> None:
    async def main() -> None:
        async with await asynchronous.connect(data) as found:
            await found.enqueue([request("a")])
            waiting = asyncio.ensure_future(found.wait("a"))
            await found.status()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.to_thread(server.finish, "a", b"1")
            assert (await found.wait("a")).state == "completed"

    asyncio.run(main())


def test_cancelled_enqueues_leave_the_link_usable_and_the_others_their_answers(
    data: str, server: ModelServer
) -> None:
    """Of sixty-four at once, half are cancelled: the rest come in, each with its own answer."""
    app = Beaver(data)

    @app.job
    def echo(n: int) -> None: ...

    async def main() -> None:
        for turn in range(5):
            jobs = [echo.options(id=f"{turn}-{n}") for n in range(64)]
            tasks = [asyncio.ensure_future(job.aenqueue(1)) for job in jobs]
            for _ in range(turn):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.wait(tasks)
            found = [task.result() for task in tasks[1::2]]
            assert [handle.id for handle in found] == [f"{turn}-{n}" for n in range(1, 64, 2)]
            again = await asyncio.gather(*(job.aenqueue(1) for job in jobs[::2]))
            assert [handle.id for handle in again] == [f"{turn}-{n}" for n in range(0, 64, 2)]

    asyncio.run(main())
    assert app.status().pending == 5 * 64


def test_who_waits_hears_that_the_server_is_gone(data: str, server: ModelServer) -> None:
    async def main() -> None:
        async with await asynchronous.connect(data) as found:
            await found.enqueue([request("a")])
            waiting = [asyncio.ensure_future(found.wait("a")) for _ in range(3)]
            await found.status()
            server.drop_connections()
            for one in waiting:
                with pytest.raises(ServerGone):
                    await one
            assert found.closed
            with pytest.raises(StoreUnavailable):
                await found.status()

    asyncio.run(main())


def test_an_answer_that_is_none_ends_the_connection(data: str, server: ModelServer) -> None:
    def talk(op: str, writer: asyncio.StreamWriter) -> bool:
        if op == "status":
            writer.write(b"\x01\x00\x00\x00\xc1")
        return op != "status"

    server.before_answer = talk

    async def main() -> None:
        async with await asynchronous.connect(data) as found:
            with pytest.raises(ServerGone):
                await found.status()

    asyncio.run(main())


def test_no_server_and_no_directory_are_told_apart(tmp_path: Path, data: str) -> None:
    async def main() -> None:
        with pytest.raises(NotFound):
            await asynchronous.connect(tmp_path / "absent")
        with pytest.raises(StoreUnavailable):
            await asynchronous.connect(data)

    asyncio.run(main())
