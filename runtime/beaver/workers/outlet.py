"""Sending a stream without waiting: what the socket does not take now is sent later."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
from collections import deque
from typing import Final, NamedTuple

RETRY_S: Final = 0.001
FULL: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)


class Item(NamedTuple):
    """Something to be sent, with descriptors that are closed once they are on their way."""

    data: bytes
    fds: tuple[int, ...] = ()


class Outlet:
    """The sending side of a non-blocking socket.  Order is kept; nothing is ever dropped.

    The queue is bounded by its users: a worker has a bounded number of attempts, and a
    zygote a bounded number of workers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._socket = sock
        self._waiting: deque[Item] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def send(self, item: Item) -> None:
        """Sends, now or as soon as the socket takes it."""
        if self._closed:
            _close(item)
        elif self._waiting:
            self._waiting.append(item)
        else:
            rest = self._try(item)
            if rest is not None:
                self._waiting.append(rest)
                self._loop.add_writer(self._socket, self._flush)

    def close(self) -> None:
        for item in self._waiting:
            _close(item)
        self._waiting.clear()
        self._stop_waiting()
        self._closed = True

    def _try(self, item: Item) -> Item | None:
        """Returns what is left to be sent."""
        try:
            if item.fds:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", item.fds))
                sent = self._socket.sendmsg([item.data], [rights])
            else:
                sent = self._socket.send(item.data)
        except OSError as error:
            if error.errno in FULL:
                return item
            if error.errno in (errno.EPIPE, errno.ECONNRESET):
                _close(item)  # the other side is gone, and its end is reported elsewhere
                return None
            raise
        _close(item)
        if sent < len(item.data):
            return Item(item.data[sent:])
        return None

    def _flush(self) -> None:
        while self._waiting:
            rest = self._try(self._waiting[0])
            if rest is not None:
                self._waiting[0] = rest
                # macOS reports a full buffer of the *receiver* as an error while the socket
                # counts as writable: try again a little later instead of at once.
                self._stop_waiting()
                self._timer = self._loop.call_later(RETRY_S, self._resume)
                return
            self._waiting.popleft()
        self._stop_waiting()

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_writer(self._socket, self._flush)

    def _stop_waiting(self) -> None:
        self._loop.remove_writer(self._socket)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _close(item: Item) -> None:
    for fd in item.fds:
        os.close(fd)
