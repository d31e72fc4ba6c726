"""The writer process itself: see `writer`.  It ends when its socket is closed."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import sys
import time

from beaver.journal.wal.writer_wire import ANSWER, FILE, HEADER
from beaver.system.disk import SystemFile


def serve(channel: socket.socket) -> None:
    """Writes what comes until the other side is gone."""
    file: SystemFile | None = None
    while True:
        head, descriptors, _, _ = socket.recv_fds(channel, HEADER.size, 1)
        if not head:
            return
        head += _receive(channel, HEADER.size - len(head))
        kind, offset, length = HEADER.unpack(head)
        if kind == FILE:
            if file is not None:
                file.close()
            file = SystemFile(descriptors[0])
            continue
        frame = _receive(channel, length)
        started_ns = time.monotonic_ns()
        number = 0
        try:
            assert file is not None, "a file comes before its frames"
            file.pwrite_durable(frame, offset)
        except OSError as error:
            number = error.errno or errno.EIO
        channel.sendall(ANSWER.pack(number, time.monotonic_ns() - started_ns))


def _receive(channel: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        received = channel.recv_into(view)
        if not received:
            # The server died while it handed a frame over: nothing of it is written.
            sys.exit(0)
        view = view[received:]
    return bytes(data)


if __name__ == "__main__":
    # These are for the server; this process ends when the server does.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # A server that was killed resets the connection: that is an end like any other.
    with contextlib.suppress(ConnectionError):
        serve(socket.socket(fileno=0))
