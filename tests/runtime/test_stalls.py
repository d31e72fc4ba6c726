"""Loop stalls: each is measured, and a long one is told with its place."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any

import pytest

from beaver.server import loop_stalls
from beaver.server.loop_stalls import LoopStalls
from tests.support.needs import need

LOOPS = ("asyncio", "uvloop")
STALL_S = 0.05
"""Sown stalls; they are real, since what is measured is real time."""


def measured(
    monkeypatch: pytest.MonkeyPatch, loop: str, work: Callable[[], Coroutine[Any, Any, None]]
) -> LoopStalls:
    """Runs a coroutine on a measured loop of that kind."""
    if loop == "asyncio":
        monkeypatch.setitem(sys.modules, "beaver.server.uvloop_stalls", None)
    else:
        need(None if find_spec("uvloop") else "uvloop is not installed")
    measuring = LoopStalls()

    async def main() -> None:
        measuring.watch()
        try:
            await work()
        finally:
            measuring.end()

    with asyncio.Runner(loop_factory=measuring.new_loop) as runner:
        assert type(runner.get_loop()).__module__.startswith(
            "asyncio" if loop == "asyncio" else "beaver.server.uvloop_stalls"
        )
        runner.run(main())
    return measuring


def sow_a_stall() -> None:
    time.sleep(STALL_S)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stall_in_a_timer_is_measured_and_told_with_its_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loop: str
) -> None:
    """Also after the loop was idle for so long that the thread that looks sleeps."""
    caplog.set_level(logging.DEBUG, logger="beaver")
    monkeypatch.setattr(loop_stalls, "LOG_EVERY_S", 0.0)

    async def work() -> None:
        await asyncio.sleep(0.4)
        asyncio.get_running_loop().call_later(0.001, sow_a_stall)
        await asyncio.sleep(0.1)

    measuring = measured(monkeypatch, loop, work)
    assert measuring.longest_s >= STALL_S
    assert measuring.longest_in.startswith("sow_a_stall, at runtime/test_stalls.py:")
    (told,) = [r.getMessage() for r in caplog.records if "ms by sow_a_stall" in r.getMessage()]
    line = sow_a_stall.__code__.co_firstlineno + 1
    assert told.endswith(f"\n  runtime/test_stalls.py:{line} sow_a_stall")


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_read_leads_to_is_one_stall(monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    """A commit runs soon after the read that asked for it: whoever waits, waits for both."""

    async def work() -> None:
        running = asyncio.get_running_loop()
        done = running.create_future()

        class Reader(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                time.sleep(STALL_S)
                running.call_soon(self.commit)

            def commit(self) -> None:
                time.sleep(STALL_S)
                running.call_soon(done.set_result, None)

        import socket

        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await running.create_unix_connection(Reader, sock=ours)
            theirs.send(b"x")
            await done
            await asyncio.sleep(0.01)
            transport.close()

    measuring = measured(monkeypatch, loop, work)
    # asyncio polls between a read and what it calls soon; libuv does not.
    assert measuring.longest_s >= STALL_S * (2 if loop == "uvloop" else 1)


@pytest.mark.parametrize("loop", LOOPS)
def test_waiting_is_no_stall(monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    """However long the loop sleeps, nobody is kept waiting."""

    async def work() -> None:
        for _ in range(5):
            await asyncio.sleep(STALL_S)

    measuring = measured(monkeypatch, loop, work)
    assert measuring.lengths.total < 5 * STALL_S
    assert sum(measuring.lengths.counts) >= 5


def test_a_stall_that_is_not_long_has_no_place_and_is_not_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is usual is counted and not talked about."""
    caplog.set_level(logging.DEBUG, logger="beaver")
    measuring = LoopStalls()
    measuring.poll_returned()
    measuring.poll_begins()
    assert measuring.longest_s > 0
    assert measuring.longest_in == ""
    assert not caplog.records


def test_every_stall_is_in_the_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sampled: the count is that of the polls that returned."""
    measuring = LoopStalls()
    for _ in range(100):
        measuring.poll_returned()
        measuring.poll_begins()
    measuring.poll_begins()  # a poll that follows a poll
    assert sum(measuring.lengths.counts) == 100
