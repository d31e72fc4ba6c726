"""A proxy between HTTP clients and a server that drops, delays, duplicates and cuts.

One request a connection.  Each draws its fault from a seed; the number of connections decides the
draw, so which request meets which fault depends on the order in which they come.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from enum import Enum
from typing import Final

BYTES: Final = 1 << 16
TIMEOUT_S: Final = 70.0


class LinkFault(Enum):
    """What may happen to one request."""

    LOST = "the request is lost"
    UNANSWERED = "the answer is lost"
    CUT = "the answer is cut in its middle"
    TWICE = "the request comes twice"
    LATE = "request and answer are late"


class Proxy:
    """Listens on a port of its own; `target` may change when the server does."""

    def __init__(self, target: tuple[str, int], seed: int, share: float) -> None:
        """Begins to listen.

        Args:
            target: The server.
            seed: Of the draws.
            share: Of the requests that meet a fault, from 0 to 1.
        """
        self.target, self.share = target, share
        self.met: Counter[LinkFault] = Counter()
        self._random = random.Random(seed)  # noqa: S311 - a seed repeats it
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listens no more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            fault = None
            if self._random.random() < self.share:
                fault = self._random.choice(list(LinkFault))
                self.met[fault] += 1
            threading.Thread(target=self._pass_on, args=(client, fault), daemon=True).start()

    def _pass_on(self, client: socket.socket, fault: LinkFault | None) -> None:
        try:
            with client:
                client.settimeout(TIMEOUT_S)
                request = _request(client)
                if fault is LinkFault.LOST or not request:
                    return
                if fault is LinkFault.LATE:
                    time.sleep(0.3)
                if fault is LinkFault.TWICE:
                    other = threading.Thread(target=self._ask, args=(request,), daemon=True)
                    other.start()
                answer = self._ask(request)
                if fault is LinkFault.LATE:
                    time.sleep(0.3)
                if fault is LinkFault.UNANSWERED:
                    return
                client.sendall(answer[: len(answer) // 2] if fault is LinkFault.CUT else answer)
        except OSError:
            return  # One of the two has gone: the other hears of it by the end.

    def _ask(self, request: bytes) -> bytes:
        """Returns the server's answer; nothing where there is none."""
        try:
            with socket.create_connection(self.target, timeout=TIMEOUT_S) as server:
                server.sendall(request)
                pieces = []
                while piece := server.recv(BYTES):
                    pieces.append(piece)
                    if _is_whole(b"".join(pieces)):
                        break
                return b"".join(pieces)
        except OSError:
            return b""


def _request(client: socket.socket) -> bytes:
    request = b""
    while not _is_whole(request):
        piece = client.recv(BYTES)
        if not piece:
            return b""
        request += piece
    return request


def _is_whole(message: bytes) -> bool:
    head, found, body = message.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return True
