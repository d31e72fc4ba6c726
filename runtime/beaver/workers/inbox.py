"""What a worker reads and writes, as the worker sees it, and its recycling.

Taking an attempt and writing its token into the slot belong together: what was taken and
is not in the slot has not started, and the server gives it back.  Attempts that this worker
never takes stay in the pipe, where the server finds their permits.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn

from beaver.structs.messages import Attempt, Outcome
from beaver.transport.framing import FrameReader
from beaver.workers import wire
from beaver.workers.slots import SlotWriter

_READ_BYTES: Final = 64 << 10
_unpack_permit: Final = wire.PERMIT.unpack
_PERMIT_BYTES: Final = wire.PERMIT.size
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_HAS_PROC: Final[bool] = sys.platform == "linux"


class Inbox:
    """Where a worker takes its attempts from, until it ends or has done enough."""

    def __init__(
        self,
        jobs: socket.socket,
        permits: int,
        slot: SlotWriter,
        max_jobs: int,
        max_rss_bytes: int,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._jobs = jobs
        self._permits = permits
        self._permits_poll = select.poll()
        self._permits_poll.register(permits, select.POLLIN)
        self._bodies: deque[Attempt] = deque()
        """Received, and not permitted so far."""
        self._slot = slot
        self._left = max_jobs or -1
        self._max_rss_bytes = max_rss_bytes
        self._now_ns = now_ns
        self.closed = False
        """No attempt is taken any more: the server said so, or the worker has done enough."""
        self.started = 0
        """Highest token taken."""

    def fileno(self) -> int:
        return self._permits

    def take(self, *, wait: bool = True) -> Attempt | None:
        """Takes the next attempt and says in the slot that it starts; `None` at the end.

        One caller at a time.  The caller runs the attempt at once.

        Raises:
            BlockingIOError: There is none now, and the caller does not wait.
        """
        if self.has_enough():
            return None
        token = self._permit(wait)
        if token == wire.END:
            self.closed = True
            return None
        attempt = self._body(token)
        self._begin(token)
        return attempt

    def _begin(self, token: int) -> None:
        """Says in the slot that user code is about to run, from now on."""
        self._slot.start(token, self._now_ns())
        self.started = token
        self._left -= 1

    def has_enough(self) -> bool:
        """Closes once this worker has done as many attempts as it may; true if it takes no more."""
        if self._left == 0 or self._too_large():
            self.closed = True
        return self.closed

    def _permit(self, wait: bool) -> int:
        """Reads one permit: from here on nobody can take that attempt back."""
        while True:
            try:
                data = os.read(self._permits, _PERMIT_BYTES)
            except BlockingIOError:
                if not wait:
                    raise
                self._permits_poll.poll()
            else:
                if not data:
                    self._server_is_gone()
                return int(_unpack_permit(data)[0])

    def _body(self, token: int) -> Attempt:
        """Finds the attempt of a permit; whatever else comes before it has been recalled.

        It was sent before its permit.  Where the server has read it back with others, it is
        on its way again, so to wait for it is no wait for another attempt.
        """
        bodies = self._bodies
        while True:
            while bodies:
                attempt = bodies.popleft()
                if attempt.token == token:
                    return attempt
            received = self._receive()
            if not received:
                self._server_is_gone()
            bodies.extend(received)

    def _receive(self) -> list[Attempt]:
        return wire.receive(self._jobs)

    def _server_is_gone(self) -> NoReturn:
        die_with_group()

    def _too_large(self) -> bool:
        # Only after a job: a bound below what an idle worker takes must not stop all work.
        started = self.started > 0
        return started and self._max_rss_bytes > 0 and _rss_bytes() > self._max_rss_bytes


class OutcomeSender:
    """Where a worker's outcomes go, and where soft cancels come from."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._frames = FrameReader()
        self._lock = threading.Lock()
        self._is_worker = True

    def forked(self) -> None:
        """Called in a copy of the worker's process."""
        self._is_worker = False

    def fileno(self) -> int:
        return self._stream.fileno()

    def announce(self) -> None:
        """Says that this worker takes attempts."""
        self._write(wire.frame(os.getpid()))

    def send(self, outcome: Outcome) -> None:
        """Hands an outcome to the kernel: from here on this worker's death cannot lose it.

        A job may fork, and its child may return from the job's code into ours.  The child
        is no worker: it ends here, before it can answer or take an attempt.
        """
        if not self._is_worker:
            os._exit(0)
        self._write(wire.frame(outcome))

    def _write(self, data: bytes) -> None:
        try:
            with self._lock:
                self._stream.sendall(data)
        except OSError:
            self._server_is_gone()

    def cancelled_tokens(self) -> list[int]:
        """Returns the tokens that are to be stopped softly, without waiting for any."""
        tokens: list[int] = []
        while True:
            try:
                data = self._stream.recv(_READ_BYTES, wire.DONTWAIT)
            except BlockingIOError:
                return tokens
            except OSError:
                self._server_is_gone()
            if not data:
                self._server_is_gone()
            tokens += map(wire.decode_int, self._frames.feed(data))

    def _server_is_gone(self) -> NoReturn:
        die_with_group()


def die_with_group() -> NoReturn:
    """Ends this worker and its subprocesses, since the server is gone."""
    if os.getpgrp() == os.getpid():
        with contextlib.suppress(OSError):
            os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _rss_bytes() -> int:
    if _HAS_PROC:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 -- once a job, so quickly
            return int(file.read().split()[1]) * _PAGE_BYTES
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
