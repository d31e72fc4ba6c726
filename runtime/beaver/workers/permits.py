"""Attempts on their way to one worker: their bodies, and the permits to start them.

Bodies travel on the *jobs* socket, several in a message.  Permits travel in a pipe, a token
of 8 bytes each, in the order of the bodies and after them.  A worker reads one permit when it
is ready to start one attempt, and looks for the body then.  The server holds both ends of
both and never waits on either.

What is recalled never starts, and what has started is never recalled, because:

1. To start an attempt a worker must read its permit, and to recall it the server must.  Both
   read the same pipe, and the kernel gives each byte to one reader.
2. Only whole permits are in the pipe: a write has 512 bytes at most, of which a pipe takes
   all or none.  So a reader of 8 bytes gets one permit, and nobody's death leaves half of one.
3. A body without its permit means nothing.  The worker may hold it, or drop it, or get it
   twice: bodies are looked up by token, and a token never means another attempt.

No attempt is lost, and nobody waits for ever, because:

4. The worker takes one attempt at a time.  So at most one permit is read whose body is not
   received yet; call it h.  It is the last that has left the pipe.
5. `take_back` empties the pipe, then the socket.  What it finds in the socket is recalled, or
   h, or was dropped or found already: tokens up to h.  It sends the highest of these again,
   and that is h if h was there.  A worker that waits for h may receive what came behind it
   just before the server does: it drops that, and finds h next.
6. If the server dies in the middle of that, so does the worker: it reads the end of the socket.
   What it had not marked in its slot counts as never started.
7. Permits wait for their own bodies alone, and bodies for room in the socket.  A worker that
   goes from permit to permit makes room, unless it found the bodies in what it had received
   before a recall.  So where the socket is full while no permit is left, all of it is of no
   use but h, and the server empties it as in 5 (`_make_room`).

`tests/workers/test_permits_model.py` tries every interleaving of a small case.

User code reaches the worker's ends, and may close them, shut them down, fill the pipe or make
it blocking.  So the server reads through an open file of its own, reads no more than a pipe
can hold, and believes only what it has written: what lies in the pipe must be the last of it,
in order.  Where it is not, or a write fails, the channel is broken: nothing of it is taken
back any more, and `on_broken` ends the worker.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from beaver.structs.messages import Attempt
from beaver.workers import wire
from beaver.workers.outlet import FULL, RETRY_S

_READ_BYTES: Final = 64 << 10
_pack_permit: Final = wire.PERMIT.pack
_pack_permits: Final = struct.pack
_AT_ONCE: Final = wire.PERMITS_AT_ONCE
_FULL: Final = (*FULL, errno.ENOMEM, errno.ETOOMANYREFS)
"""The last two pass as well: too many descriptors of this user are on their way, say."""
_GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED)
"""The worker has closed its end, or shut it down."""
_PIPE_BYTES: Final = 64 << 10
PIPE_PERMITS_MAX: Final = _PIPE_BYTES // wire.PERMIT.size
"""Permits that a pipe holds, at most.  A worker may make its pipe larger; that changes nothing."""
_LOOK_S: Final = 0.05
"""How often a full socket is looked at, where the kernel does not say that it has room."""


class Permits:
    """The server's side of the jobs socket and the permits of one worker.

    What the kernel does not take waits here; it is bounded by what a worker may hold.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_broken: Callable[[str], None] | None = None
    ) -> None:
        """Opens all ends.

        Args:
            loop: The server's.
            on_broken: Told once, with the reason, that this worker cannot be spoken with.
        """
        self._loop = loop
        self._on_broken = on_broken
        self._jobs, self._jobs_theirs = wire.jobs_pair()
        self._pipe_theirs, self._pipe = wire.permits_pipe()
        self._reader = wire.own_reader(self._pipe_theirs)
        self._written: deque[int] = deque(maxlen=PIPE_PERMITS_MAX)
        """The last permits that went into the pipe, in order: more never lie in it."""
        self.highest = 0
        """Highest token whose permit went into the pipe, and was not taken back."""
        self._bodies: deque[wire.Message] = deque()
        """Not sent yet, in order."""
        self._owed: wire.Message | None = None
        """The body of a permit that the worker has read: to be sent ahead of all others."""
        self._tokens: list[int] = []
        """Permits that are not written yet; their bodies are sent."""
        self._ended = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def hand_over(self) -> tuple[int, int]:
        """Returns the worker's ends of socket and pipe, to be closed by the caller."""
        jobs = os.dup(self._jobs_theirs.fileno())
        try:
            return jobs, os.dup(self._pipe_theirs)
        except OSError:
            os.close(jobs)
            raise

    def give(self, attempts: Sequence[Attempt]) -> None:
        """Sends attempts and permits, now or as soon as there is room."""
        if not self._closed:
            self._bodies.extend(wire.messages(attempts))
            self._push()

    def end(self) -> None:
        """Lets the worker end once it has started what it was given."""
        if not self._ended and not self._closed:
            self._ended = True
            self._send_end()

    def _send_end(self) -> None:
        if self._bodies:
            self._bodies.append(wire.Message(b"", (wire.END,)))
        else:
            self._tokens.append(wire.END)
        self._push()

    def take_back(self) -> list[int]:
        """Takes back what the worker has no permit for: the tokens, in order."""
        if self._closed:
            return []
        found = self._read_permits()
        if found is None:
            return []
        tokens = found + self._tokens
        self._tokens.clear()
        for message in self._bodies:
            tokens += message.tokens
            message.close()
        self._bodies.clear()
        tokens = [token for token in tokens if token != wire.END]
        self._read_bodies(set(tokens))
        if self._ended:
            self._send_end()
        else:
            self._push()
        return tokens

    def close(self) -> None:
        """Closes all ends; what was not sent never will be."""
        if self._closed:
            return
        self._closed = True
        self._stop_waiting()
        os.close(self._reader)
        for message in self._bodies:
            message.close()
        self._bodies.clear()
        self._owe(None)
        self._tokens.clear()
        self._jobs.close()
        self._jobs_theirs.close()
        os.close(self._pipe)
        os.close(self._pipe_theirs)

    # -- out --------------------------------------------------------------------------------

    def _push(self) -> None:
        """Sends what there is room for; a worker that cannot be sent to any more is given up."""
        try:
            self._push_all()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self._break(f"it cannot be sent to any more ({error.strerror})")

    def _break(self, why: str) -> None:
        """Gives the worker up: what it has been sent is told by its slot, once it is dead."""
        self.close()
        if self._on_broken is not None:
            self._on_broken(why)

    def _push_all(self) -> None:
        """Sends bodies, then the permits of those that have left."""
        if self._owed is not None and self._send(self._owed):
            self._owe(None)
        if self._owed is None:
            bodies = self._bodies
            while bodies:
                message = bodies[0]
                if message.data:
                    try:
                        if not self._send(message):
                            break
                    except OSError as error:
                        if error.errno != errno.EMSGSIZE:
                            raise
                        parts = wire.smaller(message)
                        bodies.popleft()
                        bodies.extendleft(reversed(parts))
                        continue
                bodies.popleft()
                if message.fds:
                    message.close()
                self._tokens += message.tokens
        if self._tokens:
            self._write_permits()
        if self._bodies or self._tokens or self._owed is not None:
            self._wait()

    def _send(self, message: wire.Message) -> bool:
        """False where there is no room now."""
        try:
            if message.fds:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", message.fds))
                self._jobs.sendmsg([message.data], [rights])
            else:
                self._jobs.send(message.data)
        except OSError as error:
            if error.errno in _FULL:
                return False
            raise
        return True

    def _write_permits(self) -> None:
        tokens = self._tokens
        try:
            while tokens:
                if len(tokens) == 1:
                    os.write(self._pipe, _pack_permit(tokens[0]))
                    self._written.append(tokens[0])
                else:
                    piece = tokens[:_AT_ONCE]
                    os.write(self._pipe, _pack_permits(f"={len(piece)}Q", *piece))
                    self._written += piece
                self.highest = self._written[-1] or self.highest
                del tokens[:_AT_ONCE]
        except BlockingIOError:
            pass  # The rest waits.

    # -- back -------------------------------------------------------------------------------

    def _read_permits(self) -> list[int] | None:
        """Reads the pipe until it is empty: what was in it can no longer start.

        `None` where something else was in it than was written, and the worker is given up.
        """
        found = b""
        with contextlib.suppress(BlockingIOError):
            while len(found) <= _PIPE_BYTES:
                found += os.read(self._reader, _READ_BYTES)
        if not found:
            return []
        tokens = array.array("Q")
        tokens.frombytes(found[: len(found) - len(found) % wire.PERMIT.size])
        taken = tokens.tolist()
        written = self._written
        known = [written.pop() for _ in range(min(len(taken), len(written)))]
        known.reverse()
        if len(found) % wire.PERMIT.size or taken != known:
            self._break("its permits are not those that it was given")
            return None
        self.highest = next((token for token in reversed(written) if token), 0)
        return taken

    def _read_bodies(self, recalled: set[int]) -> None:
        """Empties the socket, and owes the worker the one body of it that it may need."""
        while (message := wire.read_back(self._jobs_theirs)) is not None:
            permitted = [token for token in message.tokens if token not in recalled]
            if permitted:
                self._owe(wire.only(message, permitted[-1]))
            else:
                message.close()

    def _owe(self, message: wire.Message | None) -> None:
        if self._owed is not None:
            self._owed.close()
        self._owed = message

    # -- waiting ----------------------------------------------------------------------------

    def _wait(self) -> None:
        """Pushes again once there is room, and looks every now and then."""
        if self._timer is None:
            if self._owed is not None or self._bodies:
                self._loop.add_writer(self._jobs, self._writable)
            if self._tokens:
                self._loop.add_writer(self._pipe, self._writable)
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _writable(self) -> None:
        """Pushes, and pauses before it listens again.

        macOS reports a full buffer of the *receiver* as an error while the socket counts as
        writable, and a pipe counts as writable while it has no room for all of a write.
        """
        self._stop_waiting()
        self._timer = self._loop.call_later(RETRY_S, self._look)
        self._push()

    def _look(self) -> None:
        self._stop_waiting()
        self._push()
        if self._bodies and self._make_room():
            self._push()

    def _make_room(self) -> bool:
        """Empties a full socket of which the worker needs one body at most."""
        if self._owed is not None or self._tokens or self._holds_permits():
            return False
        self._read_bodies(set())
        return True

    def _holds_permits(self) -> bool:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        return bool(poll.poll(0))

    def _stop_waiting(self) -> None:
        self._loop.remove_writer(self._jobs)
        self._loop.remove_writer(self._pipe)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
