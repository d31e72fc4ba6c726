"""The real inbox over the real permits: what the slot says of an attempt, and since when."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import cast

from beaver.workers.inbox import Inbox
from beaver.workers.permits import Permits
from beaver.workers.slots import Slots, SlotWriter
from tests.workers.interleavings import Loop, attempt

STORE = bytes(range(16))


class Waiting(Inbox):
    """A worker that waits: its attempt is given at the very moment in which it would wait."""

    server: Permits
    given_ns = 0

    def _permit(self, wait: bool) -> int:
        self.server.give([attempt(self.started + 1)])
        self.given_ns = time.monotonic_ns()
        return super()._permit(wait)


def test_the_limit_of_an_attempt_begins_when_it_is_taken(tmp_path: Path) -> None:
    """Not with the wait for it, and no later: user code runs from then on."""
    slots = Slots.open(str(tmp_path / "slots"), 1, STORE, 0)
    server = Permits(cast("asyncio.AbstractEventLoop", Loop()))
    jobs, permits = server.hand_over()
    theirs = socket.socket(fileno=jobs)
    inbox = Waiting(theirs, permits, SlotWriter(slots.fd, 1), 0, 0)
    inbox.server = server
    for token in (1, 2, 3):
        taken = inbox.take()
        taken_ns = time.monotonic_ns()
        assert taken is not None
        assert taken.token == slots.read(1).started == token
        assert inbox.given_ns <= slots.read(1).since_ns <= taken_ns
    server.close()
    theirs.close()
    os.close(permits)
    slots.close()
