"""One connection that any number of threads share, without a thread of its own.

Each thread queues its frame and waits for its own answer.  The thread that holds the lock sends
all queued frames in one write.  One of the waiting threads reads for all, wakes exactly those
whose answers came, and passes the reading on once it has its own.

An interrupt (Ctrl-C, or whatever a signal handler raises) may leave a send or a read half done.
Then the connection is lost, and every waiting thread is told.  An interrupt while a thread only
sleeps ends that thread's call alone.

What may not live here: what is asked (`calls`), finding a server (`blocking`, `endpoint`).
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
from collections import deque
from typing import Any, Final

import msgspec

from beaver.errors import BeaverError, ServerLeft
from beaver.system.spinning import Looking
from beaver.transport import framing

_RECEIVE_BYTES: Final = 1 << 16
_TOGETHER_BYTES: Final = 1 << 16
"""Frames are sent without waiting for more once they have this many bytes."""
_OTHER_READS_MS: Final = 10
"""How long a thread that has to send leaves the reading to another one before it looks again."""


class PendingAnswer(msgspec.Struct, eq=False):
    """One answer that a thread waits for."""

    number: int
    done: bool = False
    value: tuple[int, Any] | None = None
    """`(status, body)`; `None` where the connection was lost without a farewell."""
    gate: Any = None
    """The lock that its thread waits at while another one reads."""
    asleep: bool = False
    """Its thread only waits: an interrupt there leaves nothing half done."""


class _Held:
    """The socket of a channel, closed when nobody holds this any more.

    Every user of the socket holds a reference to this.  A thread that is about to enter a system
    call already has the number of the descriptor: if it were closed by then, the next connection
    could get that number, and the thread would read the answers of the other connection.
    """

    __slots__ = ("socket",)

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def __del__(self) -> None:
        self.socket.close()


class Channel:
    """A connection and the answers that are awaited on it."""

    def __init__(self, connection: socket.socket) -> None:
        self.lost = False
        """The connection is gone or closed."""
        self._held: _Held | None = _Held(connection)
        """`None` once it is closed, which it is only after it is lost."""
        self._frames = framing.FrameReader()
        self._numbers = itertools.count(1)
        self._unsent: deque[bytes] = deque()
        self._sending = threading.Lock()
        self._mutex = threading.Lock()
        """Guards all below."""
        self._slots: dict[int, PendingAnswer] = {}
        self._reader: PendingAnswer | None = None
        """The one whose thread reads for all."""
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._looking = Looking()

    def ask(self, op: str, body: Any) -> PendingAnswer:
        """Sends a request; the slot that is returned goes to `wait_for`.

        Raises:
            InvalidInput: It is longer than a server reads.
            ServerLeft: The connection was lost before; nothing was sent.
        """
        number = next(self._numbers)
        frame = framing.encode_request(number, op, body)
        slot = PendingAnswer(number)
        with self._mutex:
            held = self._held
            if self.lost or held is None:
                raise ServerLeft("the connection to the server is closed; nothing was sent")
            self._slots[number] = slot
        try:
            # 1. A thread that finds the lock taken leaves its frame to the holder.
            # 2. The holder looks again once it has let go: what came meanwhile is not forgotten.
            sending, unsent = self._sending, self._unsent
            unsent.append(frame)
            while unsent and sending.acquire(blocking=False):
                try:
                    self._send_all(held.socket, unsent)
                finally:
                    sending.release()
        except ConnectionError:
            # A farewell may follow the last answers: the next reader reaches the end of the stream.
            self.notice()
        except (OSError, ValueError):  # The socket is closed: its descriptor is -1.
            self._lose()
        except BaseException:
            # A frame may be half sent: nothing can follow it.
            self._lose()
            raise
        return slot

    def wait_for(self, slot: PendingAnswer) -> None:
        """Returns once a slot is done."""
        held = self._held
        if held is None:  # Then it was lost before, and the slot is done.
            return
        try:
            with self._mutex:
                reads = self._reader is None
                if reads:
                    self._reader = slot
            if not reads:
                self._line_up(slot)
            while not slot.done:
                # A lone thread may spin for its answer: no other thread needs the interpreter.
                if len(self._slots) != 1 or not self._looking.sees(self._readable.poll):
                    slot.asleep = True
                    self._readable.poll()
                    slot.asleep = False
                self._take(held.socket)
            if self._reader is slot:
                with self._mutex:
                    self._pass_on()
        except BaseException:
            self._interrupted(slot)
            raise

    def _line_up(self, slot: PendingAnswer) -> None:
        """Sleeps until the answer is there, or it is our turn to read."""
        with self._mutex:
            if slot.done:
                return
            if self._reader is None:
                self._reader = slot
                return
            gate = slot.gate = threading.Lock()
            gate.acquire()
        slot.asleep = True
        gate.acquire()
        slot.asleep = False

    def notice(self) -> None:
        """Takes what has come, to its end if it has one, unless somebody reads anyway."""
        with self._mutex:
            held = self._held
            if self.lost or held is None or self._reader is not None:
                return
            self._reader = _SENDER
        try:
            while not self.lost and self._take(held.socket):
                pass
        finally:
            with self._mutex:
                self._pass_on()

    def close(self) -> None:
        """Ends the connection; who waits hears that it is lost."""
        self._lose()
        self._held = None

    def detach(self) -> socket.socket:
        """Gives up the connection, on which nothing may be under way, and returns it."""
        assert not self._slots, "no call is under way"
        assert self._held is not None, "it is open"
        self.lost = True
        return socket.socket(fileno=self._held.socket.detach())

    # -- sending ------------------------------------------------------------------------------

    def _send_all(self, connection: socket.socket, unsent: deque[bytes]) -> None:
        """Sends the frames that are there, several in a write.  Called by one at a time."""
        while unsent:
            frame = unsent.popleft()
            if unsent:
                frames, size = [frame], len(frame)
                while unsent and size < _TOGETHER_BYTES:
                    frames.append(unsent.popleft())
                    size += len(frames[-1])
                frame = b"".join(frames)
            try:
                sent = connection.send(frame, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            if sent != len(frame):
                self._send_rest(connection, memoryview(frame)[sent:])

    def _send_rest(self, connection: socket.socket, rest: memoryview) -> None:
        """Sends what there was no room for, and reads answers meanwhile.

        The server takes no more requests while its answers are not read: whoever only sends,
        and all others behind him, would wait for ever.
        """
        while rest:
            self._await_room(connection)
            with contextlib.suppress(BlockingIOError):
                rest = rest[connection.send(rest, socket.MSG_DONTWAIT) :]

    def _await_room(self, connection: socket.socket) -> None:
        """Waits until there is room, or answers were read, or perhaps somebody reads them."""
        poll = select.poll()
        poll.register(connection, select.POLLOUT)
        with self._mutex:
            reads = self._reader is None
            if reads:
                self._reader = _SENDER
                poll.modify(connection, select.POLLIN | select.POLLOUT)
        try:
            ready = poll.poll(None if reads else _OTHER_READS_MS)
            if reads and any(events & ~select.POLLOUT for _, events in ready):
                self._take(connection)
        finally:
            if reads:
                with self._mutex:
                    self._pass_on()

    # -- reading, one for all -------------------------------------------------------------------

    def _take(self, connection: socket.socket) -> bool:
        """Gives the answers that have come to who waits for them; False where there are none.

        Called by the reader.
        """
        farewell = False
        try:
            received = connection.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            with self._mutex:
                for body in self._frames.feed(received):
                    number, status, answer = framing.decode_answer(body)
                    farewell = farewell or status == framing.FAREWELL
                    slot = self._slots.get(number)
                    if slot is not None:
                        # Forgotten last: an interrupt before that wakes it in `_lose`.
                        slot.value, slot.done = (status, answer), True
                        if slot.gate is not None:
                            _open_gate(slot)
                        del self._slots[number]
        except BlockingIOError:
            return False  # A false alarm.
        except (OSError, BeaverError, TypeError, ValueError):
            received = b""  # It is no valid answer: nothing after it can be trusted.
        if farewell:
            self._lose((framing.FAREWELL, b""))
        elif not received:
            self._lose()
        return True

    def _pass_on(self) -> None:
        """Lets somebody else read who waits.  Called with the mutex held, by the reader."""
        self._reader = None
        for slot in self._slots.values():
            if slot.gate is not None:
                self._reader = slot
                _open_gate(slot)
                return

    # -- the end ----------------------------------------------------------------------------------

    def _interrupted(self, slot: PendingAnswer) -> None:
        """A thread gives up its wait, wherever it was."""
        if not slot.asleep:
            self._lose()
            return
        with self._mutex:
            self._slots.pop(slot.number, None)
            if self._reader is slot:
                self._pass_on()

    def _lose(self, value: tuple[int, Any] | None = None) -> None:
        """Ends the connection; every waiting thread gets `value`."""
        held = self._held
        if held is not None:
            with contextlib.suppress(OSError):
                held.socket.shutdown(socket.SHUT_RDWR)
        with self._mutex:
            self.lost = True
            self._unsent.clear()
            for slot in self._slots.values():
                if not slot.done:
                    slot.value, slot.done = value, True
                _open_gate(slot)
            self._slots.clear()


def _open_gate(slot: PendingAnswer) -> None:
    """Wakes who sleeps there.  Called with the mutex held; an interrupt leaves it for `_lose`."""
    gate = slot.gate
    if gate is not None:
        if gate.locked():
            gate.release()
        slot.gate = None


_SENDER: Final = PendingAnswer(0)
"""Stands for a thread that reads because it cannot send."""
