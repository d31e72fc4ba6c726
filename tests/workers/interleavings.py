"""Every interleaving of one server and one worker: the real code over real sockets and pipes.

`Permits` and `Inbox` run in one thread.  Before each system call of the server the schedule
decides whether the worker makes a step first: it reads a permit, or receives a message.  All
schedules are tried, depth first: each run repeats the choices of the one before up to the
last that had another way to go.  A run ends early where each side has seen just what it had
seen in an earlier run: then socket and pipe hold the same too, and so does all that follows.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast

import pytest

from beaver.structs.messages import Attempt
from beaver.workers import permits, wire
from beaver.workers.inbox import Inbox
from beaver.workers.permits import Permits
from beaver.workers.slots import SlotWriter

STEPS_MAX: Final = 1_000

small_buffers = pytest.mark.skipif(
    sys.platform != "linux", reason="what the smallest buffer holds is known for Linux"
)


class Violation(AssertionError):
    """An attempt that was lost, or given twice, or started after it was recalled."""


class Known(Exception):
    """The rest of this run would be that of an earlier one."""


class _Pause(Exception):
    """The worker would wait here."""


class Fate(NamedTuple):
    """What became of the attempts in one run."""

    started: list[int]
    recalled: set[int]
    waited: bool
    """Something did not find room at once."""


class Schedule:
    """Which way to go at each choice of one run, and what comes after it."""

    def __init__(self) -> None:
        self._path: list[bool] = []
        self._at = 0
        self._known: set[Hashable] = set()

    def choose(self, seen: Hashable) -> bool:
        """Takes the next way.

        Raises:
            Known: What comes from here was tried: both sides had seen the same before.
        """
        if self._at == len(self._path):
            if seen in self._known:
                raise Known
            self._known.add(seen)
            self._path.append(False)
        self._at += 1
        return self._path[self._at - 1]

    def next(self) -> bool:
        """Prepares the next run; false where all were tried."""
        self._at = 0
        while self._path and self._path[-1]:
            self._path.pop()
        if not self._path:
            return False
        self._path[-1] = True
        return True


class Loop:
    """Keeps what is to be called later, until the test says so."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []
        self.calls = 0

    def call_later(self, _: float, callback: Callable[[], None]) -> Loop:
        self.later.append(callback)
        self.calls += 1
        return self

    def cancel(self) -> None:
        self.later.clear()

    def add_writer(self, *_: object) -> None: ...

    def remove_writer(self, *_: object) -> None: ...

    def fire(self) -> None:
        calls, self.later = self.later, []
        for call in calls:
            call()


class Worker:
    """A worker that runs step by step."""

    def __init__(self, ends: tuple[int, int], inbox: type[Inbox]) -> None:
        self.jobs = socket.socket(fileno=ends[0])
        self.inbox = inbox(self.jobs, ends[1], cast("SlotWriter", None), 0, 0)
        self.permit: int | None = None
        self.ended = False
        self.may_receive = False
        self.seen: list[Hashable] = []

    def can_step(self) -> bool:
        if self.ended:
            return False
        if self.permit is None:
            return readable(self.inbox.fileno())
        return bool(self.inbox._bodies) or readable(self.jobs.fileno())

    def step(self) -> int | None:
        """Reads a permit, or receives one message; returns what it starts, if anything."""
        if self.permit is None:
            self.permit = self.inbox._permit(wait=False)
            self.seen.append(self.permit)
            if self.permit == wire.END:
                self.ended, self.permit = True, None
            return None
        self.may_receive = True
        try:
            attempt = self.inbox._body(self.permit)
        except _Pause:
            self.seen.append("waits")
            return None
        self.permit = None
        self.seen.append("starts")
        return attempt.token

    def receive(self, real: Callable[[socket.socket], list[Attempt]]) -> list[Attempt]:
        """Stands for `wire.receive`: at most one message a step, and it never waits."""
        if not self.may_receive or not readable(self.jobs.fileno()):
            raise _Pause
        self.may_receive = False
        attempts = real(self.jobs)
        self.seen.append(tuple(attempt.token for attempt in attempts))
        return attempts


class Run:
    """One run of a script: what the server gave and recalled, what the worker started."""

    def __init__(
        self, schedule: Schedule, permits_kind: type[Permits], inbox: type[Inbox], buffer: int
    ) -> None:
        self.schedule = schedule
        self.loop = Loop()
        self.server = permits_kind(cast("asyncio.AbstractEventLoop", self.loop))
        if buffer:
            self.server._jobs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.ends = self.server.hand_over()
        self.worker = Worker(self.ends, inbox)
        self.held: set[int] = set()
        """Given, and not recalled."""
        self.started: list[int] = []
        self.recalled: set[int] = set()
        self.seen: list[Hashable] = []
        """What the server's calls gave it."""
        self.alone = False
        """The script is over: nothing is to be chosen any more."""

    # -- the server's script ----------------------------------------------------------------

    def give(self, *tokens: int, size: int = 0) -> None:
        self.held.update(tokens)
        self.server.give([attempt(token, size) for token in tokens])

    def take_back(self) -> list[int]:
        tokens = self.server.take_back()
        if tokens != sorted(set(tokens)):
            raise Violation(f"recalled out of order: {tokens}")
        if not self.held.issuperset(tokens):
            raise Violation(f"recalled what was not given: {tokens}")
        if both := set(tokens) & set(self.started):
            raise Violation(f"recalled and started: {both}")
        self.held.difference_update(tokens)
        self.recalled.update(tokens)
        return tokens

    def finish(self) -> None:
        """Lets both sides do what they can, and looks whether anything is left."""
        for _ in range(STEPS_MAX):
            if self.worker.can_step():
                self._step()
            elif self.loop.later:
                self.loop.fire()
                if not self.worker.can_step():
                    break
            else:
                break
        else:
            raise Violation("it never comes to rest")
        if self.server._ended and not self.worker.ended:
            raise Violation("it was never told to end")
        if self.held != set(self.started) or self.worker.permit is not None:
            raise Violation(f"given {self.held}, started {self.started}, and nothing moves")

    # -- the worker beside it ---------------------------------------------------------------

    def interleave(self) -> None:
        """Called before each system call of the server."""
        while not self.alone and self.worker.can_step():
            if not self.schedule.choose((tuple(self.seen), tuple(self.worker.seen))):
                break
            self._step()

    def _step(self) -> None:
        token = self.worker.step()
        if token is None:
            return
        # A slot that names this token says that all before it have started.
        if token not in self.held or token in self.started:
            raise Violation(f"started {token}, held are {self.held}, before {self.started}")
        if late := {t for t in self.held if t < token} - set(self.started):
            raise Violation(f"started {token} before {late}")
        self.started.append(token)

    def close(self) -> None:
        self.alone = True
        self.server.close()
        self.worker.jobs.close()
        os.close(self.ends[1])


def attempt(token: int, size: int = 0) -> Attempt:
    """Returns an attempt of about `size` bytes; the very first one is short."""
    return Attempt(token, "j", "t", b"x" * (size if token > 1 else 0), 1, 1, "q", 0, "k", 0)


def explore(
    script: Callable[[Run], None],
    *,
    server: type[Permits] = Permits,
    inbox: type[Inbox] = Inbox,
    bodies_max: int = 2,
    buffer: int = 0,
) -> list[Fate]:
    """Runs a script under every schedule; returns what became of the attempts in each."""
    fates = []
    schedule = Schedule()
    with pytest.MonkeyPatch.context() as patch:
        current: list[Run] = []
        _hook(patch, current, bodies_max)
        more = True
        while more:
            run = Run(schedule, server, inbox, buffer)
            current[:] = [run]
            try:
                script(run)
                run.alone = True
                run.finish()
                fates.append(Fate(run.started, run.recalled, run.loop.calls > 0))
            except Known:
                pass
            finally:
                run.close()
            more = schedule.next()
    return fates


def _hook(patch: pytest.MonkeyPatch, current: Sequence[Run], bodies_max: int) -> None:
    """Puts a choice before every system call of the server."""

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            run = current[0]
            run.interleave()
            result = None
            try:
                result = real(*args)
            finally:
                run.seen.append(_digest(result))
            return result

        return call

    receive, messages = wire.receive, wire.messages
    calls = SimpleNamespace(
        read=before(os.read), write=before(os.write), close=os.close, dup=os.dup
    )
    patch.setattr(permits, "os", calls)
    patch.setattr(wire, "read_back", before(wire.read_back))
    patch.setattr(wire, "receive", lambda _: current[0].worker.receive(receive))
    patch.setattr(wire, "messages", partial(messages, bodies_max=bodies_max))
    patch.setattr(Permits, "_send", before(Permits._send))
    patch.setattr(Permits, "_holds_permits", before(Permits._holds_permits))


def _digest(result: Any) -> Hashable:
    """Returns what tells two results apart; descriptors differ from run to run."""
    return result.data if isinstance(result, wire.Message) else result


def readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def read_back_all(jobs: socket.socket) -> Iterator[wire.Message]:
    """Yields the messages that the worker has not received."""
    while (message := wire.read_back(jobs)) is not None:
        yield message


def tokens_of(messages: Iterable[wire.Message]) -> list[int]:
    return [token for message in messages for token in message.tokens]
