"""beanstalkd with `-b DIR -f 0`: its log is synced before each acknowledgement."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beaver.bench.peers.base import BlockingPeer, find_program, load
from beaver.bench.records import payload, write_record
from beaver.bench.subject import Sender
from beaver.errors import BeaverError


class _One:
    """One job in a call, through the client library."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._client.put(_body(number))

    def close(self) -> None:
        self._client.close()


class _Pipelined:
    """Puts that are sent together and answered one by one: the protocol has no batches."""

    def __init__(self, address: str, tube: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address)
        self._answers = self._socket.makefile("rb")
        self._socket.sendall(f"use {tube}\r\n".encode())
        self._expect(b"USING")

    def send(self, numbers: Sequence[int]) -> None:
        bodies = [_body(number).encode() for number in numbers]
        self._socket.sendall(b"".join(b"put 1 0 60 %d\r\n%b\r\n" % (len(b), b) for b in bodies))
        for _ in bodies:
            self._expect(b"INSERTED")

    def _expect(self, word: bytes) -> None:
        answer = self._answers.readline()
        if not answer.startswith(word):
            raise BeaverError(f"beanstalkd answered {answer!r}")

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


def _body(number: int) -> str:
    return json.dumps(payload(number), separators=(",", ":"))


class Beanstalkd(BlockingPeer):
    name = "beanstalkd"
    packages = ("greenstalk",)
    batches = True
    setup = "`-b DIR -f 0`; greenstalk; a batch is 100 pipelined puts"

    def start(self) -> None:
        """See `Peer`."""
        self.preload()
        log = self._directory / "binlog"
        log.mkdir()
        self.address = str(self._directory / "socket")
        program = find_program("beanstalkd")
        daemon = self.daemon(program, "-l", f"unix:{self.address}", "-b", str(log), "-f", "0")
        daemon.wait_for(Path(self.address).exists)

    @classmethod
    def preload(cls) -> None:
        """See `Peer`."""
        load("greenstalk")

    def connect(self, queue: str) -> Sender:
        """See `BlockingPeer`."""
        return _One(load("greenstalk").Client(self.address, use=queue))

    def connect_for_batches(self, queue: str) -> Sender:
        """See `BlockingPeer`."""
        return _Pipelined(self.address, queue)

    @staticmethod
    def work(address: str, queue: str) -> None:
        """See `Peer`: reserves, runs, deletes."""
        client = load("greenstalk").Client(address, watch=queue)
        while True:
            job = client.reserve()
            write_record(json.loads(job.body)["n"])
            client.delete(job)
