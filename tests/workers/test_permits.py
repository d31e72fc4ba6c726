"""Bodies and permits between one server and one worker, step by step, in one process."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from beaver.structs.messages import Attempt
from beaver.workers import inbox, wire
from beaver.workers.inbox import Inbox
from beaver.workers.permits import Permits
from beaver.workers.slots import Slots, SlotWriter
from tests.workers.interleavings import attempt, read_back_all, readable, small_buffers, tokens_of
from tests.worlds.workers import until


class Pair:
    """A server's permits and a worker's inbox at the other end."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        writer = SlotWriter(slots.fd, 1)
        self.descriptors = open_descriptors()
        self.permits = Permits(asyncio.get_running_loop())
        jobs, self.pipe = self.permits.hand_over()
        self.jobs = socket.socket(fileno=jobs)
        self.inbox = Inbox(self.jobs, self.pipe, writer, 0, 0)

    def give(self, *tokens: int, size: int = 0) -> None:
        self.permits.give([attempt(token, size) for token in tokens])

    def take(self) -> int:
        taken = self.inbox.take(wait=False)
        return taken.token if taken is not None else wire.END

    def started(self) -> int:
        return self.slots.read(1).started

    def close(self) -> None:
        self.permits.close()
        self.jobs.close()
        os.close(self.pipe)
        assert open_descriptors() == self.descriptors, "descriptors are left open"


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Pair], Coroutine[Any, Any, None]]], None]:
    """Runs a test with a pair."""

    def in_loop(test: Callable[[Pair], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            slots = Slots.open(str(tmp_path / "slots"), 1, b"s" * 16, 0)
            pair = Pair(slots)
            try:
                await test(pair)
            finally:
                pair.close()
                slots.close()

        asyncio.run(main())

    return in_loop


Run = Callable[[Callable[[Pair], Coroutine[Any, Any, None]]], None]


def open_descriptors() -> int:
    path = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
    return len(list(path.iterdir()))


class ServerGone(BaseException):
    """Stands for the end of the worker's process."""


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets an exception stand for the end of this process."""

    def die() -> None:
        raise ServerGone

    monkeypatch.setattr(inbox, "die_with_group", die)
    return iter(())


def test_a_message_holds_many_attempts_and_each_starts_by_its_own_permit(run: Run) -> None:
    async def test(pair: Pair) -> None:
        pair.give(*range(1, 101))
        assert [pair.take() for _ in range(3)] == [1, 2, 3]
        assert pair.started() == 3
        assert pair.permits.take_back() == list(range(4, 101))
        with pytest.raises(BlockingIOError):
            pair.take()

    run(test)


def test_long_attempts_travel_in_files_between_short_ones(run: Run) -> None:
    async def test(pair: Pair) -> None:
        sizes = [5, 90_000, 7, 60_000, 60_000, 300_000, 300_000, 9]
        pair.permits.give([attempt(n, size) for n, size in enumerate(sizes, 2)])
        taken = [pair.inbox.take(wait=False) for _ in sizes]
        assert [len(a.payload) for a in taken if a] == sizes
        assert [a.token for a in taken if a] == list(range(2, 10))

    run(test)


@pytest.mark.parametrize("size", [0, 100_000], ids=["in a message", "in a file"])
def test_a_recall_between_permit_and_body_sends_the_body_again(run: Run, size: int) -> None:
    async def test(pair: Pair) -> None:
        pair.give(2, 3, 4, size=size)
        permit = pair.inbox._permit(wait=False)
        assert permit == 2
        assert pair.permits.take_back() == [3, 4]
        assert readable(pair.jobs.fileno()), "the body of its permit is gone"
        body = pair.inbox._body(permit)
        assert (body.token, len(body.payload)) == (2, size)
        assert tokens_of(read_back_all(pair.jobs)) == [], "what is recalled stays in the socket"
        pair.give(5)
        assert pair.take() == 5

    run(test)


def test_a_worker_that_dies_between_permit_and_body_has_not_started(run: Run) -> None:
    """The slot says so, so its attempt is given back and charged nothing."""

    async def test(pair: Pair) -> None:
        pair.give(1, 2)
        assert pair.take() == 1
        assert pair.inbox._permit(wait=False) == 2
        assert pair.permits.take_back() == [], "the permit is gone from the pipe"
        assert pair.started() == 1

    run(test)


@pytest.mark.usefixtures("mortal")
def test_a_worker_whose_server_dies_before_the_body_is_there_dies_too(run: Run) -> None:
    async def test(pair: Pair) -> None:
        pair.give(1)
        assert pair.inbox._permit(wait=False) == 1
        assert tokens_of(read_back_all(pair.permits._jobs_theirs)) == [1]
        pair.permits.close()
        with pytest.raises(ServerGone):
            pair.inbox._body(1)
        assert pair.started() == 0
        with pytest.raises(ServerGone):
            pair.take()
        pair.permits = Permits(asyncio.get_running_loop())

    run(test)


def test_a_recalled_body_that_comes_again_is_found_once(run: Run) -> None:
    """The worker has it from before the recall, and gets it a second time."""

    async def test(pair: Pair) -> None:
        pair.give(1, 2, 3, 4)
        assert pair.take() == 1
        assert pair.permits.take_back() == [2, 3, 4]
        pair.give(3, 4)
        assert [pair.take(), pair.take()] == [3, 4]
        pair.give(5)
        assert pair.take() == 5
        assert pair.permits.take_back() == []

    run(test)


def test_full_ways_hold_up_the_order_of_nothing(run: Run) -> None:
    """Thousands more than socket and pipe take, with a pipe of the smallest size."""

    async def test(pair: Pair) -> None:
        shrink(pair.permits._pipe)
        count = 30_000
        pair.give(*range(1, count + 1), size=100)
        assert pair.permits._bodies, "the socket is not full"
        assert pair.permits._tokens, "the pipe is not full"
        taken = []

        def work() -> None:
            for _ in range(count):
                got = pair.inbox.take()
                assert got is not None
                taken.append(got.token)

        await asyncio.to_thread(work)
        assert taken == list(range(1, count + 1))

    run(test)


def test_full_ways_are_recalled_whole_and_serve_on(run: Run) -> None:
    async def test(pair: Pair) -> None:
        shrink(pair.permits._pipe)
        pair.give(*range(1, 20_001), size=100)
        pair.permits.end()
        assert pair.permits._bodies
        assert pair.permits._tokens
        assert [pair.take(), pair.take()] == [1, 2]
        assert pair.permits.take_back() == list(range(3, 20_001))
        assert pair.take() == wire.END, "an end that was asked for stays"
        assert pair.inbox.closed

    run(test)


@small_buffers
def test_what_a_worker_has_twice_does_not_fill_the_socket(run: Run) -> None:
    """Two bodies of a message that it has received come again, and leave no room."""

    async def test(pair: Pair) -> None:
        pair.permits._jobs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        pair.give(1, 2, 3, size=1_900)
        assert pair.take() == 1
        assert pair.permits.take_back() == [2, 3]
        pair.give(2, 3, size=1_900)
        assert [pair.take(), pair.take()] == [2, 3]
        pair.give(4, size=1_900)
        assert pair.permits._bodies, "the socket is not full"
        await until(lambda: not pair.permits._bodies)
        assert pair.take() == 4

    run(test)


@small_buffers
def test_a_message_that_the_system_finds_too_long_is_cut(run: Run) -> None:
    async def test(pair: Pair) -> None:
        for end in (pair.permits._jobs, pair.permits._jobs_theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        pair.give(2, 3, 4, 5, size=1_000)
        pair.give(6, size=20_000)
        taken: list[int] = []

        def work() -> None:
            while len(taken) < 5:
                got = pair.inbox.take()
                assert got is not None
                taken.append(got.token)

        await asyncio.to_thread(work)
        assert taken == [2, 3, 4, 5, 6]

    run(test)


def test_what_cannot_be_sent_leaves_nothing_open(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has no descriptor left for the second long attempt."""
    real = wire.write_to_file
    files: list[int] = []

    def write(body: bytes) -> int:
        if files:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        files.append(real(body))
        return files[0]

    async def test(pair: Pair) -> None:
        monkeypatch.setattr(wire, "write_to_file", write)
        with pytest.raises(OSError, match="open files"):
            pair.give(2, 3, size=100_000)
        assert files

    run(test)


def test_end_comes_after_all_that_was_given(run: Run) -> None:
    async def test(pair: Pair) -> None:
        pair.give(1, 2)
        pair.permits.end()
        pair.permits.end()
        assert [pair.take() for _ in range(4)] == [1, 2, wire.END, wire.END]
        assert pair.permits.take_back() == []

    run(test)


def test_what_does_not_fit_goes_into_messages_of_bounded_size() -> None:
    attempts = [attempt(n, 3_000) for n in range(2, 202)]
    messages = wire.messages(attempts)
    try:
        assert tokens_of(messages) == [a.token for a in attempts]
        assert all(len(m.data) <= wire.MESSAGE_BYTES_MAX for m in messages)
        assert all(len(m.tokens) <= wire.BODIES_MAX for m in messages)
        assert len(messages) < 15
        bodies: list[Attempt] = []
        for message in messages:
            bodies += wire.decode_attempts(message.data)
        assert bodies == attempts
    finally:
        for message in messages:
            assert not message.fds


def shrink(pipe: int) -> None:
    """Makes a pipe as small as it gets, where the system lets one choose."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
