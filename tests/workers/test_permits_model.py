"""What is recalled never starts, what has started is never recalled: in every interleaving.

`interleavings` runs the real `Permits` and `Inbox`, and lets the worker step before any system
call of the server.  A bug sown into either is found.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from beaver.structs.messages import Attempt
from beaver.workers import wire
from beaver.workers.inbox import Inbox
from beaver.workers.permits import Permits
from tests.workers.interleavings import (
    Run,
    Violation,
    explore,
    read_back_all,
    small_buffers,
    tokens_of,
)

LENGTH: Final = 3
RUNS_MIN: Final = 100
SIZE: Final = 1_900


class Step(enum.Enum):
    """What a server does, one after the other."""

    GIVE_ONE = "give one"
    GIVE_THREE = "give three"
    RECALL = "recall"
    """Takes back what waits, as when an attempt turns out long."""
    CANCEL = "cancel"
    """Takes back what waits, drops the first of it, and gives the others again."""
    AGAIN = "again"
    """Takes back what waits, and gives it again."""
    LOOK = "look"
    """The loop's timer, where anything waits for room."""


class Script:
    """Steps of a server; the last may be that it lets the worker end."""

    def __init__(self, steps: Sequence[Step], *, size: int = 0, ends: bool = False) -> None:
        self.steps = steps
        self.size = size
        self.ends = ends

    def __call__(self, run: Run) -> None:
        tokens = iter(range(1, 100))
        for step in self.steps:
            if step is Step.GIVE_ONE:
                run.give(next(tokens), size=self.size)
            elif step is Step.GIVE_THREE:
                run.give(*(next(tokens) for _ in range(3)), size=self.size)
            elif step is Step.LOOK:
                run.loop.fire()
            else:
                taken = run.take_back()
                again = {Step.RECALL: [], Step.CANCEL: taken[1:], Step.AGAIN: taken}[step]
                run.give(*again, size=self.size)
        if self.ends:
            run.server.end()
            run.take_back()


def scripts(length: int, *without: Step) -> Iterator[tuple[Step, ...]]:
    """All that begin by giving, and hold a recall."""
    steps = [step for step in Step if step not in without]
    recalls = {Step.RECALL, Step.CANCEL, Step.AGAIN}
    for rest in itertools.product(steps, repeat=length - 1):
        for first in (Step.GIVE_ONE, Step.GIVE_THREE):
            if recalls.intersection(rest):
                yield first, *rest


@pytest.mark.parametrize(
    ("bodies_max", "length", "ends"),
    [(1, 3, False), (2, 3, False), (3, 4, False), (1, 2, True), (2, 3, True), (3, 3, True)],
)
def test_every_attempt_is_started_or_recalled_and_never_both(
    bodies_max: int, length: int, ends: bool
) -> None:
    """All scripts of so many steps, in every interleaving with a worker."""
    runs, mixed = 0, 0
    for steps in scripts(length, Step.LOOK):
        for fate in explore(Script(steps, ends=ends), bodies_max=bodies_max):
            runs += 1
            mixed += bool(fate.started and fate.recalled)
    assert runs > mixed > RUNS_MIN, (runs, mixed)


@small_buffers
def test_a_full_socket_holds_up_nothing_in_any_interleaving() -> None:
    """The smallest buffer that the system gives holds one or two of these messages.

    Two bodies that the worker has already fill it, so that a recall which sends them again
    leaves no room for others.
    """
    runs, full = 0, 0
    for steps in scripts(LENGTH):
        for fate in explore(Script(steps, size=SIZE), bodies_max=3, buffer=1):
            runs += 1
            full += fate.waited
    assert runs > full > RUNS_MIN, (runs, full)


class RecallsBodies(Permits):
    """Bug: what can be read back of the bodies counts as recalled, as if it were the permit."""

    def take_back(self) -> list[int]:
        return tokens_of(read_back_all(self._jobs_theirs)) or super().take_back()


class OwesNothing(Permits):
    """Bug: what is still permitted is not sent again."""

    def _read_bodies(self, recalled: set[int]) -> None:
        for _ in read_back_all(self._jobs_theirs):
            pass


class OwesTheLowest(Permits):
    """Bug: of the bodies that are still permitted the first is sent again, not the last."""

    def _owe(self, message: wire.Message | None) -> None:
        if message is None or self._owed is None:
            super()._owe(message)


class KeepsBodies(Permits):
    """Bug: bodies that were recalled stay in the socket."""

    def _read_bodies(self, recalled: set[int]) -> None:
        pass


class NeverMakesRoom(Permits):
    """Bug: bodies that a worker has twice may fill the socket for ever."""

    def _make_room(self) -> bool:
        return False


class StartsTheNext(Inbox):
    """Bug: a worker starts the next body it has, whatever its permit says."""

    def _body(self, token: int) -> Attempt:
        if not self._bodies:
            self._bodies.extend(wire.receive(self._jobs))
        return self._bodies.popleft()


class TakesTwoPermits(Inbox):
    """Bug: a worker reads two permits at once, to save a call."""

    _extra: int | None = None

    def _permit(self, wait: bool) -> int:
        if self._extra is not None:
            token, self._extra = self._extra, None
            return token
        token = super()._permit(wait)
        with contextlib.suppress(BlockingIOError):
            self._extra = wire.PERMIT.unpack(os.read(self.fileno(), 8))[0]
        return token


class ForgetsWhatItHas(Inbox):
    """Bug: a worker drops bodies that are not permitted yet."""

    def _body(self, token: int) -> Attempt:
        attempt = super()._body(token)
        self._bodies.clear()
        return attempt


@small_buffers
@pytest.mark.parametrize(
    ("server", "inbox"),
    [
        (RecallsBodies, Inbox),
        (OwesNothing, Inbox),
        (OwesTheLowest, Inbox),
        (KeepsBodies, Inbox),
        (NeverMakesRoom, Inbox),
        (Permits, StartsTheNext),
        (Permits, TakesTwoPermits),
        (Permits, ForgetsWhatItHas),
    ],
    ids=lambda kind: kind.__name__,
)
def test_a_sown_bug_is_found(server: type[Permits], inbox: type[Inbox]) -> None:
    with pytest.raises(Violation):
        explore_all(server, inbox)


def explore_all(server: type[Permits], inbox: type[Inbox]) -> None:
    """Tries scripts from the shortest on, with room for all and with hardly any."""
    for length in range(2, LENGTH + 2):
        for steps in scripts(length):
            for size, buffer in ((0, 0), (SIZE, 1)):
                script = Script(steps, size=size)
                explore(script, server=server, inbox=inbox, bodies_max=3, buffer=buffer)
