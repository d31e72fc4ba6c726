"""By URL through `kill -9` and restarts of the server: nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from beaver import Beaver, NoServer
from tests.http_client.conftest import token_of, url_of
from tests.support.program import Server, events, eventually, serving

KILLS = 2
JOBS_EACH = 10
PRODUCERS = 4


class Restarting:
    """A server on one address, killed and started again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.server = Server(data, "--http", "127.0.0.1:0", "--workers", "2")
        self.server.ready()
        self.url = url_of(data)
        self.token = token_of(data)

    def restart(self) -> None:
        self.server.kill()
        self.server = Server(
            self.data, "--http", self.url.removeprefix("http://"), "--workers", "2"
        )
        self.server.ready()

    def app(self, **more: Any) -> Beaver:
        return Beaver(self.url, token=self.token, **more)


@contextmanager
def restarting(data: Path) -> Any:
    running = Restarting(data)
    try:
        yield running
    finally:
        running.server.kill()


def check_each_once(data: Path, jobs: list[str]) -> None:
    """Every job that was acknowledged is in the log once, and completed once."""
    log = events(data)
    came_in = Counter(e["job"] for e in log if e["event"] == "ENQUEUE")
    completed = Counter(e["job"] for e in log if e["event"] == "ACK")
    assert came_in == Counter(jobs)
    assert completed == Counter(jobs)


def more_than(jobs: list[str], count: int) -> bool:
    return len(jobs) > count


def test_threads_and_coroutines_lose_and_double_nothing_through_kills(tmp_path: Path) -> None:
    """One application, many threads and a loop; each job is enqueued and its result waited for."""
    with restarting(tmp_path / "data") as running:
        app, until = running.app(timeout=60), threading.Event()
        jobs: list[str] = []

        def produce() -> None:
            number = 0
            while number < JOBS_EACH or not until.is_set():
                handle = app.enqueue("echo", number, max_attempts=50)
                assert handle.result(timeout=60) == number
                jobs.append(handle.id)
                number += 1

        async def aproduce() -> None:
            number = 0
            while number < JOBS_EACH or not until.is_set():
                handle = await app.aenqueue("echo", number, max_attempts=50)
                assert await handle.aresult(timeout=60) == number
                jobs.append(handle.id)
                number += 1

        async def produce_several() -> None:
            await asyncio.gather(*(aproduce() for _ in range(PRODUCERS)))

        with ThreadPoolExecutor(PRODUCERS + 1) as threads:
            working = [threads.submit(produce) for _ in range(PRODUCERS)]
            working.append(threads.submit(asyncio.run, produce_several()))
            for _ in range(KILLS):
                goal = len(jobs) + 10
                eventually(partial(more_than, jobs, goal), "jobs go on")
                running.restart()
            until.set()
            for one in working:
                one.result(60)
        assert len(jobs) >= 2 * PRODUCERS * JOBS_EACH
        assert running.server.stop() == 0
        check_each_once(running.data, jobs)


def test_a_wait_goes_on_over_a_restart(tmp_path: Path) -> None:
    with restarting(tmp_path / "data") as running:
        app = running.app(timeout=60)
        handle = app.enqueue("echo", {"sleep_ms": 1_500}, max_attempts=50)
        found: list[Any] = []
        waiting = threading.Thread(target=lambda: found.append(handle.result(timeout=60)))
        waiting.start()
        running.restart()
        waiting.join()
        assert found == [{"sleep_ms": 1_500}]


def test_a_server_that_comes_up_late_is_waited_for(tmp_path: Path) -> None:
    """A producer that starts before its server works, too."""
    with serving(tmp_path / "data", "--http", "127.0.0.1:0") as first:
        url, token = url_of(first.data), token_of(first.data)
    app = Beaver(url, token=token, timeout=60)
    found: list[Any] = []
    producer = threading.Thread(target=lambda: found.append(app.enqueue("echo", 7).result(60)))
    producer.start()
    with serving(tmp_path / "data", "--http", url.removeprefix("http://")):
        producer.join()
    assert found == [7]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_long_absence_is_told_within_the_time_of_the_call(tmp_path: Path, awaited: bool) -> None:
    with serving(tmp_path / "data", "--http", "127.0.0.1:0") as server:
        app = Beaver(url_of(server.data), token=token_of(server.data), timeout="2s")
    started = time.monotonic()
    call = app.client.status if not awaited else lambda: asyncio.run(app.astatus())
    with pytest.raises(NoServer, match="no server answers"):
        call()
    assert 1 < time.monotonic() - started < 30, "it was tried again, and not for ever"
