"""One worker's sockets as the server holds them, without the worker."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from beaver.structs.messages import Outcome, OutcomeKind
from beaver.workers import wire
from beaver.workers.mailbox import Mailbox


class Listener:
    """Keeps what a mailbox says, in order."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def ready(self, mailbox: Mailbox) -> None:
        self.said.append("ready")

    def received(self, mailbox: Mailbox, outcomes: Sequence[Outcome]) -> None:
        self.said += [outcome.token for outcome in outcomes]

    def broken(self, mailbox: Mailbox, why: str, *, at_once: bool = True) -> None:
        self.said.append(why)


@contextmanager
def connected(listener: Listener, pid: object) -> Iterator[tuple[Mailbox, socket.socket]]:
    """Gives a mailbox, and the worker's end of its stream, on which it has told its `pid`."""
    mailbox = Mailbox(asyncio.get_running_loop(), 1, 1, listener)
    jobs, permits, stream, slots = mailbox.hand_over(os.memfd_create("slots"))
    for fd in (jobs, permits, slots):
        os.close(fd)
    with socket.socket(fileno=stream) as worker:
        worker.sendall(wire.frame(pid))
        yield mailbox, worker


def test_outcomes_that_a_reaped_worker_has_sent_are_delivered_at_its_end() -> None:
    """The loop may hear of the end before it has read the worker's last words."""

    async def main() -> list[object]:
        listener = Listener()
        with connected(listener, os.getpid()) as (mailbox, worker):
            for token in (5, 9):
                worker.sendall(wire.frame(Outcome(token, "a", int(OutcomeKind.OK))))
        mailbox.close()
        return listener.said

    assert asyncio.run(main()) == ["ready", 5, 9, "it closed its stream"]
