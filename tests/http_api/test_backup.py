"""`GET /v1/backup`: a whole store for `admin`, few at once, and nothing kept for who left."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path

import pytest

from beaver.errors import BackupDamaged
from beaver.server.http.backup import BACKUPS_MAX
from tests.backup.stores import fingerprint, restored
from tests.http_api.client import Http
from tests.support.program import Server, enqueue, eventually, serving

PADDING = "x" * 500_000
"""Payloads that fill the buffers of a connection."""


@contextmanager
def reading_nothing(http: Http) -> Iterator[socket.socket]:
    """A client that asks for a backup and takes nothing of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((http.host, http.port))
    with connection:
        connection.sendall(
            f"GET /v1/backup HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {http.token}"
            "\r\n\r\n".encode()
        )
        yield connection


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("backup") / "data"
    with serving(data, "--workers", "1", "--http", "127.0.0.1:0") as server:
        for number in range(4):
            enqueue(data, *({"id": f"{number}-{n}", "task": "nobody", "payload": PADDING}
                            for n in range(10)))  # fmt: skip
        yield server


def sending(server: Server) -> list[str]:
    """The processes that send backups."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"beaver.backup" in words and str(server.data).encode() in words:
            found.append(pid)
    return found


def test_a_backup_over_http_is_restored_to_the_same_state(large: Server, tmp_path: Path) -> None:
    answer = Http(large.data).get("/v1/backup")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-tar")
    file = tmp_path / "copy.tar"
    file.write_bytes(answer.raw)
    found = restored(file, tmp_path / "again")
    assert found.fingerprint == fingerprint(large.data)
    eventually(lambda: not sending(large), "its process has ended")


def test_a_few_are_sent_at_once_and_those_who_leave_make_room(large: Server) -> None:
    http = Http(large.data)
    with reading_nothing(http), reading_nothing(http):
        eventually(lambda: len(sending(large)) == BACKUPS_MAX, "both are sent")
        answer = http.get("/v1/backup")
        assert (answer.status, answer.type) == (429, "too_many_requests")
        assert "retry-after" in answer.headers
        # Nobody else waits for those who take nothing.
        assert http.post("/v1/jobs", {"task": "echo"}).status == 201
    eventually(lambda: not sending(large), "nobody sends to who has left")
    assert http.get("/v1/backup").status == 200


def test_a_backup_that_is_cut_is_no_backup(tmp_path: Path) -> None:
    """The server ends in the middle: the client is told, and the process goes as well."""
    data = tmp_path / "data"
    with serving(data, "--workers", "1", "--http", "127.0.0.1:0") as server:
        enqueue(data, *({"task": "nobody", "payload": PADDING} for _ in range(12)))
        http = Http(data)
        connection = HTTPConnection(http.host, http.port, timeout=60)
        connection.request("GET", "/v1/backup", headers={"Authorization": f"Bearer {http.token}"})
        answer = connection.getresponse()
        got = answer.read(4096)
        assert server.stop() == 0
        with pytest.raises((IncompleteRead, ConnectionError)):
            got += b"".join(iter(lambda: answer.read(4096), b""))
        connection.close()
        eventually(lambda: not sending(server), "its process has ended")
    file = tmp_path / "cut.tar"
    file.write_bytes(got)
    with pytest.raises(BackupDamaged):
        restored(file, tmp_path / "again")


def test_a_store_that_cannot_be_copied_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = Server(data, "--workers", "1", "--http", "127.0.0.1:0")
    try:
        server.ready()
        http = Http(data)
        (data / "archive" / f"{1:020d}.wal").write_bytes(b"nonsense")
        answer = http.get("/v1/backup")
        assert (answer.status, answer.type) == (503, "unavailable")
        assert "nonsense" not in answer.json["detail"]
        assert "0001.wal" in answer.json["detail"]
    finally:
        server.kill()
