"""One worker as the server sees it: attempts go in, outcomes come out.

How attempts are sent and taken back is the business of `permits`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

import msgspec

from beaver.errors import InvalidInput
from beaver.structs.messages import Attempt, Outcome
from beaver.transport.framing import FrameReader
from beaver.workers import wire
from beaver.workers.outlet import Item, Outlet
from beaver.workers.permits import Permits

_READ_BYTES: Final = 256 << 10
_LAST_READS: Final = 64
"""Reads of a dead worker's stream: more than its buffer can hold in the smallest pieces."""
_PID_MAX: Final = 1 << 31


class Owner(Protocol):
    """Receives what arrives in a mailbox."""

    def ready(self, mailbox: Mailbox) -> None: ...

    def received(self, mailbox: Mailbox, outcomes: Sequence[Outcome]) -> None: ...

    def broken(self, mailbox: Mailbox, why: str, *, at_once: bool = True) -> None:
        """The worker closed its stream, sent what is no outcome, or broke another channel."""
        ...


class Mailbox:
    """The sockets and the pipe of one worker process."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, worker: int, birth: int, owner: Owner
    ) -> None:
        self.worker = worker
        self.birth = birth
        self.pid = 0
        """Known once the worker is ready."""
        self.killed = False
        self.kill_is_told = False
        """The zygote has said that it has sent the kill."""
        self.useful = False
        """It has started an attempt."""
        self.fault = ""
        """The fault that it is killed for; empty while all is well."""
        self.slot_lost: tuple[int, int] | None = None
        """Token and time that count as started, where its slot cannot be believed any more."""
        self._loop = loop
        self._owner = owner
        self._stream, self._stream_theirs = wire.stream_pair()
        self._frames = FrameReader(wire.FRAME_BYTES_MAX)
        self._permits = Permits(loop, partial(owner.broken, self))
        self._stream_outlet = Outlet(loop, self._stream)
        loop.add_reader(self._stream, self._read)

    def hand_over(self, slots: int) -> wire.Ends:
        """Returns the worker's ends, for the caller to pass on and close.

        That of the stream is then open in the worker alone; the others stay open here.

        Args:
            slots: Descriptor of the slots, which is copied.

        Raises:
            OSError: There are no descriptors for it.  All ends are closed.
        """
        try:
            own_slots = os.dup(slots)
            try:
                jobs, permits = self._permits.hand_over()
            except OSError:
                os.close(own_slots)
                raise
        except OSError:
            self.close()
            raise
        return wire.Ends(jobs, permits, self._stream_theirs.detach(), own_slots)

    # -- in ---------------------------------------------------------------------------------

    def dispatch(self, attempts: Sequence[Attempt]) -> None:
        """Sends attempts, in order."""
        self._permits.give(attempts)

    def recall(self) -> list[int]:
        """Takes back the attempts that the worker has not taken: their tokens, in order."""
        return self._permits.take_back()

    @property
    def highest(self) -> int:
        """Highest token that the worker may have started."""
        return self._permits.highest

    def end(self) -> None:
        """Lets the worker end once it has run what it was sent."""
        self._permits.end()

    def cancel(self, token: int) -> None:
        """Passes on that an attempt is to be stopped softly."""
        self._stream_outlet.send(Item(wire.frame(token)))

    # -- out --------------------------------------------------------------------------------

    def _read(self) -> bool:
        """Reads once; false where there was nothing, or nothing will come any more."""
        try:
            data = self._stream.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._stream)
            self._owner.broken(self, "it closed its stream", at_once=False)
            return False
        try:
            outcomes = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, InvalidInput) as error:
            self._loop.remove_reader(self._stream)
            self._owner.broken(self, f"it sent what is no outcome ({error})")
            return False
        if outcomes:
            self._owner.received(self, outcomes)
        return True

    def _decode(self, data: bytes) -> list[Outcome]:
        bodies = self._frames.feed(data)
        if not self.pid:
            for body in bodies:
                self.pid = _pid(body)
                self._owner.ready(self)
                break
        return [wire.decode_outcome(body) for body in bodies]

    def close(self) -> None:
        """Delivers the last outcomes of a worker that has been reaped, then closes all ends.

        It reads no more than a stream can hold, since another process may hold the other end.
        """
        for _ in range(_LAST_READS):
            if not self._read():
                break
        self.drop()

    def drop(self) -> None:
        """Closes all ends, whatever is in them."""
        self._loop.remove_reader(self._stream)
        self._permits.close()
        self._stream_outlet.close()
        for end in (self._stream, self._stream_theirs):
            end.close()


def _pid(body: bytes) -> int:
    """Returns the process id by which a worker introduces itself; 0 and 1 are nobody's."""
    pid = wire.decode_int(body)
    if not 1 < pid < _PID_MAX:
        raise InvalidInput(f"{pid} is no process id")
    return pid
