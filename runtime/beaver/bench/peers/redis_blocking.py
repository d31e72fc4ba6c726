"""RQ, Dramatiq and Celery on Redis with `appendfsync always`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from beaver.bench.peers.base import BlockingPeer, load
from beaver.bench.peers.redis_server import SETUP, start_redis
from beaver.bench.records import NOTE
from beaver.bench.subject import WORKERS, Sender

JOB = "beaver.bench.peers.jobs.record"


class _Redis(BlockingPeer):
    module: str

    def start(self) -> None:
        """See `Peer`."""
        self.preload()
        self.address = start_redis(self, self._directory)

    @classmethod
    def preload(cls) -> None:
        """See `Peer`."""
        load(cls.module)


class _RqSender:
    def __init__(self, address: str, queue: str) -> None:
        rq, redis = load("rq"), load("redis")
        self._connection = redis.Redis(unix_socket_path=address)
        self._queue: Any = rq.Queue(queue, connection=self._connection)

    def send(self, numbers: Sequence[int]) -> None:
        if len(numbers) == 1:
            self._queue.enqueue(JOB, args=(numbers[0], NOTE), result_ttl=0)
            return
        prepare = self._queue.prepare_data
        self._queue.enqueue_many([prepare(JOB, (number, NOTE), result_ttl=0) for number in numbers])

    def close(self) -> None:
        self._connection.close()


class Rq(_Redis):
    name = "rq"
    module = "rq"
    packages = ("rq", "redis")
    batches = True
    setup = f"{SETUP}; 2 SimpleWorkers (no fork a job), no results"

    def connect(self, queue: str) -> Sender:
        """See `BlockingPeer`."""
        return _RqSender(self.address, queue)

    @staticmethod
    def work(address: str, queue: str) -> None:
        """See `Peer`."""
        rq, redis = load("rq"), load("redis")
        connection = redis.Redis(unix_socket_path=address)
        rq.SimpleWorker([queue], connection=connection).work(logging_level="ERROR")


class _DramatiqSender:
    def __init__(self, address: str, queue: str) -> None:
        from beaver.bench.peers import dramatiq_app

        self._broker, self._actor = dramatiq_app.make(address, queue)

    def send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._actor.send(number, NOTE)

    def close(self) -> None:
        self._broker.close()


class Dramatiq(_Redis):
    name = "dramatiq"
    module = "dramatiq"
    packages = ("dramatiq", "redis")
    setup = f"{SETUP}; 2 processes of 8 threads"

    def connect(self, queue: str) -> Sender:
        """See `BlockingPeer`."""
        return _DramatiqSender(self.address, queue)

    def worker_commands(self, queue: str) -> list[list[str]]:
        """See `Peer`: its own program starts both processes."""
        command = [sys.executable, "-m", "dramatiq", "beaver.bench.peers.dramatiq_app"]
        return [[*command, "--processes", str(WORKERS), "--queues", queue, "--skip-logging"]]


class _CelerySender:
    def __init__(self, address: str, queue: str) -> None:
        from beaver.bench.peers import celery_app

        self._app, self._queue = celery_app.make(address), queue

    def send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._app.send_task("record", (number, NOTE), queue=self._queue)

    def close(self) -> None:
        self._app.close()


class Celery(_Redis):
    name = "celery"
    module = "celery"
    packages = ("celery", "redis")
    setup = f"{SETUP}; `acks_late`, prefork with 2 processes, prefetch 64, no results"

    def connect(self, queue: str) -> Sender:
        """See `BlockingPeer`."""
        return _CelerySender(self.address, queue)

    def worker_commands(self, queue: str) -> list[list[str]]:
        """See `Peer`: its own program starts both processes."""
        command = [sys.executable, "-m", "celery", "-A", "beaver.bench.peers.celery_app:worker"]
        command += ["worker", "--concurrency", str(WORKERS), "--queues", queue]
        command += ["--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
        return [[*command, "--without-heartbeat"]]
