"""SAQ on Redis with `appendfsync always`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from beaver.bench.peers.base import AwaitedPeer, load
from beaver.bench.peers.jobs import record_async
from beaver.bench.peers.redis_server import SETUP, start_redis
from beaver.bench.records import NOTE
from beaver.bench.subject import AsyncSender


def _queue(address: str, name: str) -> Any:
    connection = load("redis.asyncio").Redis(unix_socket_path=address)
    return load("saq.queue.redis").RedisQueue(connection, name=name)


class _Sender:
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    async def send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            await self._queue.enqueue("record", n=number, note=NOTE)

    async def close(self) -> None:
        await self._queue.disconnect()


class Saq(AwaitedPeer):
    name = "saq"
    packages = ("saq", "redis")
    setup = f"{SETUP}; 2 processes of 10 coroutines"

    def start(self) -> None:
        """See `Peer`."""
        self.preload()
        self.address = start_redis(self, self._directory)

    @classmethod
    def preload(cls) -> None:
        """See `Peer`."""
        load("saq")

    async def connect(self, queue: str, clients: int) -> AsyncSender:
        """See `AwaitedPeer`."""
        opened = _queue(self.address, queue)
        await opened.connect()
        return _Sender(opened)

    @staticmethod
    def work(address: str, queue: str) -> None:
        """See `Peer`."""

        async def run() -> None:
            functions = [("record", record_async)]
            await load("saq").Worker(_queue(address, queue), functions=functions).start()

        asyncio.run(run())
