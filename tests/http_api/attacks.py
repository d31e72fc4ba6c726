"""Raw bytes against a server that runs, and what is left of it afterwards."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path
from typing import Final, NamedTuple

from tests.http_api.client import Http
from tests.support.program import DEADLINE_S, Server, eventually

QUIET_S: Final = 0.1
"""For so long nothing more is waited for, where nothing should come."""
SPARE: Final = 6
"""Descriptors that a helper and a reader of the log may take meanwhile."""
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")

CONNECTIONS = 50
"""With 300 descriptors a server has so many for HTTP."""
LAST = "Host: localhost\r\nConnection: close\r\n"


class Heard(NamedTuple):
    """What a server has answered."""

    raw: bytes
    closed: bool
    """It has hung up."""

    @property
    def statuses(self) -> list[int]:
        return [int(found) for found in _STATUS.findall(self.raw)]


class Target:
    """A server under attack."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = Http(server.data)
        self.pid = server.process.pid
        self.http.get("/v1/jobs")  # What is loaded at the first request is there from now on.
        self.before = self.descriptors()

    def connect(self) -> socket.socket:
        return socket.create_connection((self.http.host, self.http.port), DEADLINE_S)

    def head(
        self, *lines: str, method: str = "GET", path: str = "/v1/status", last: bool = False
    ) -> bytes:
        """Returns the head of a request with a good token; the `last` one asks to hang up."""
        first = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        if last:
            first.append("Connection: close")
        all_lines = [*first, f"Authorization: Bearer {self.http.token}", *lines, "", ""]
        return "\r\n".join(all_lines).encode("latin-1")

    def ask(self, *lines: str, method: str = "GET", path: str = "/v1/status") -> Heard:
        """Sends a request with a good token, alone on its connection."""
        return self.send(self.head(*lines, method=method, path=path, last=True))

    def send(self, raw: bytes, *, answers: int = 1, half_close: bool = False) -> Heard:
        """Sends bytes; waits for so many answers, and for a moment whether more comes."""
        with self.connect() as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(raw)
                if half_close:
                    client.shutdown(socket.SHUT_WR)
            return hear(client, answers)

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def connections(self) -> int:
        """Returns how many clients HTTP has."""
        inodes = set()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == self.http.port and fields[3] != "0A":
                inodes.add(f"socket:[{fields[9]}]")
        found = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(entry.readlink()) in inodes
        return found

    def check(self) -> None:
        """The server answers, holds nobody's connection, and has the descriptors that it had."""
        assert self.http.get("/healthz").raw == b"ok\n"
        assert self.http.get("/v1/status").status == 200
        eventually(lambda: self.connections() == 0, "no connection is left")
        eventually(lambda: self.descriptors() <= self.before + SPARE, "descriptors are given back")
        assert self.server.process.poll() is None


def hear(client: socket.socket, answers: int = 1) -> Heard:
    """Reads so many answers, and what comes right behind them."""
    raw = b""
    try:
        while True:
            enough = len(_STATUS.findall(raw)) >= answers
            client.settimeout(QUIET_S if enough else DEADLINE_S)
            piece = client.recv(1 << 16)
            if not piece:
                return Heard(raw, closed=True)
            raw += piece
    except TimeoutError:
        return Heard(raw, closed=False)
    except ConnectionError:
        return Heard(raw, closed=True)
