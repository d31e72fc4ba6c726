"""`Beaver` and its handles while a server runs: results, lost answers, connections."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import pytest

from beaver import Beaver
from beaver.errors import StoreUnavailable, WaitTimeout
from tests.api.conftest import ModelServer


@pytest.fixture
def app(data: str) -> Beaver:
    return Beaver(data)


def test_results_have_the_type_that_the_function_says(app: Beaver, server: ModelServer) -> None:
    @dataclass
    class Point:
        x: int
        y: float

    @app.job
    def typed(n: int) -> list[tuple[int, int]]:
        return [(n, n)]

    def point() -> Point:
        return Point(1, 2)

    point.__annotations__["return"] = Point
    pointed = app.job(point)

    @app.job
    def untrue(n: int) -> int:
        return n

    first, second, third = typed.enqueue(1), pointed.enqueue(), untrue.enqueue(1)
    server.finish(first.id, b"[[1,1]]")
    server.finish(second.id, b'{"x":1,"y":2}')
    server.finish(third.id, b'"no int"')
    assert first.result(timeout=5) == [(1, 1)]
    assert second.result(timeout=5) == Point(1, 2.0)
    found: object = third.result(timeout=5)
    assert found == "no int"


def test_result_waits_and_gives_up_in_time(app: Beaver, server: ModelServer) -> None:
    @app.job
    def slow() -> int:
        return 1

    handle = slow.enqueue()
    with pytest.raises(WaitTimeout):
        handle.result(timeout=0.02)
    server.finish(handle.id, b"7")
    assert handle.result() == 7

    async def main() -> int:
        return await handle.aresult(timeout=5)

    assert asyncio.run(main()) == 7


def test_a_server_that_died_before_it_answered_gets_the_job_once(
    app: Beaver, data: str, server: ModelServer
) -> None:
    """The enqueue is applied, its answer lost; the same request goes out again."""
    lost: list[str] = []

    def die_once(op: str, writer: asyncio.StreamWriter) -> bool:
        if op == "enqueue" and not lost:
            lost.append(op)
            writer.transport.abort()
            return False
        return True

    server.before_answer = die_once
    handle = app.enqueue("echo", 1)
    assert lost
    assert not handle.created
    assert len(server.state.jobs) == 1

    lost.clear()

    async def main() -> None:
        assert not (await app.aenqueue("echo", 2)).created

    asyncio.run(main())
    assert lost
    assert len(server.state.jobs) == 2


def test_what_may_not_be_sent_twice_is_not(app: Beaver, server: ModelServer) -> None:
    handle = app.enqueue("echo", 1)
    handle.cancel()
    seen = []

    def die(op: str, writer: asyncio.StreamWriter) -> bool:
        if op == "requeue":
            seen.append(op)
            writer.transport.abort()
        return op != "requeue"

    server.before_answer = die
    with pytest.raises(StoreUnavailable, match="outcome is unknown"):
        app.client.requeue(handle.id)
    assert seen == ["requeue"]


def test_a_forked_child_makes_its_own_connection(app: Beaver, server: ModelServer) -> None:
    app.enqueue("echo", 1)
    before = server.connections
    pid = os.fork()
    if pid == 0:
        try:
            app.enqueue("echo", 2)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert app.status().pending == 2
    assert server.connections == before + 1


def test_a_connection_that_nobody_closes_ends_with_its_loop(
    app: Beaver, server: ModelServer
) -> None:
    async def main() -> None:
        await app.aenqueue("echo", 1)

    for _ in range(3):
        asyncio.run(main())
    assert app.status().pending == 3
