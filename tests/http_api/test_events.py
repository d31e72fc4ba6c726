"""The event stream: history first, then live, in order, once each, and for as long as one may."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.http_api.client import Http
from tests.support.program import Server, beaver, events, eventually, serving


class Sent(NamedTuple):
    """One event as it came."""

    id: int
    event: str
    data: Any


class Reader:
    """A reader of the stream."""

    def __init__(self, http: Http, query: str = "", **headers: str) -> None:
        self._connection = HTTPConnection(http.host, http.port, timeout=60)
        sent = {"Authorization": f"Bearer {http.token}", **headers}
        self._connection.request("GET", f"/v1/events{query}", headers=sent)
        self.answer = self._connection.getresponse()
        self.status = self.answer.status

    def __iter__(self) -> Iterator[Sent]:
        """Yields what comes, to the end of the stream."""
        found: dict[str, str] = {}
        while line := self.answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                found[name] = value
            elif "data" in found:
                yield Sent(int(found["id"]), found["event"], json.loads(found["data"]))
                found = {}

    def take(self, count: int) -> list[Sent]:
        """Returns the next so many."""
        stream = iter(self)
        return [next(stream) for _ in range(count)]

    def close(self) -> None:
        self._connection.close()


@contextmanager
def reading(http: Http, query: str = "", **headers: str) -> Iterator[Reader]:
    reader = Reader(http, query, **headers)
    assert reader.status == 200
    assert reader.answer.headers["Content-Type"] == "text/event-stream"
    try:
        yield reader
    finally:
        reader.close()


def test_history_comes_first_and_then_what_happens_as_replay_tells_it(
    http: Http, server: Server
) -> None:
    for number in range(5):
        job = {"id": f"h{number}", "task": "add", "payload": {"a": 1, "b": number}}
        http.post("/v1/jobs", job)
        http.ended(f"h{number}")
    before = len(events(server.data))
    with reading(http, "?from=1") as reader:
        told = reader.take(before)
        http.post("/v1/jobs", {"id": "h-live", "task": "fail"})
        http.ended("h-live")
        told += reader.take(3)
    log = events(server.data)[: len(told)]
    assert [one.data for one in told] == log
    assert [one.id for one in told] == [event["seq"] for event in log]
    assert [one.event for one in told] == [event["event"] for event in log]


def test_a_reader_goes_on_behind_the_last_event_that_it_has(http: Http) -> None:
    seq = http.post("/v1/jobs", {"id": "resume", "task": "nobody"}).json["seq"]
    http.post("/v1/jobs/resume/cancel")
    with reading(http, "?from=1", **{"Last-Event-ID": str(seq)}) as reader:
        (one,) = reader.take(1)
    assert (one.id, one.event, one.data["job"]) == (seq + 1, "CANCEL", "resume")
    with reading(http, f"?from={seq}") as reader:
        (one,) = reader.take(1)
    assert (one.id, one.event) == (seq, "ENQUEUE"), "from is inclusive"


def test_without_a_place_the_stream_begins_with_what_comes_next(http: Http) -> None:
    http.post("/v1/jobs", {"id": "old", "task": "nobody"})
    with reading(http) as reader:
        http.post("/v1/jobs", {"id": "new", "task": "nobody"})
        (one,) = reader.take(1)
    assert one.data["job"] == "new"


def test_a_job_a_queue_and_a_name_can_be_followed(http: Http) -> None:
    http.post("/v1/jobs", {"id": "f0", "task": "nobody", "queue": "followed"})
    queries = ("?from=1&job=f1", "?from=1&queue=followed", "?from=1&event=DISCARD&queue=followed")
    readers = [Reader(http, query) for query in queries]
    for number in range(1, 4):
        http.post("/v1/jobs", {"id": f"f{number}", "task": "nobody", "queue": "followed"})
        http.post("/v1/jobs", {"id": f"g{number}", "task": "nobody", "queue": "not followed"})
        http.post(f"/v1/jobs/f{number}/discard")
        http.post(f"/v1/jobs/g{number}/discard")
    by_job, by_queue, by_name = readers
    assert [one.event for one in by_job.take(2)] == ["ENQUEUE", "DISCARD"]
    assert [one.data["job"] for one in by_queue.take(7)] == [
        "f0",
        "f1",
        "f1",
        "f2",
        "f2",
        "f3",
        "f3",
    ]
    assert [one.data["job"] for one in by_name.take(3)] == ["f1", "f2", "f3"]
    for reader in readers:
        reader.close()


@pytest.mark.parametrize(
    "query", ["?from=x", "?from=-1", "?event=ENQEUE", "?form=1", "?from=1&from=2"]
)
def test_a_wrong_parameter_is_400(http: Http, query: str) -> None:
    answer = http.get(f"/v1/events{query}")
    assert (answer.status, answer.type) == (400, "invalid")


def test_a_wrong_last_event_id_is_400(http: Http) -> None:
    for wrong in ("x", "-1", "9" * 30, ""):
        assert http.get("/v1/events", {"Last-Event-ID": wrong}).type == "invalid"


def test_every_reader_sees_every_event_once_while_many_producers_enqueue(
    http: Http, server: Server
) -> None:
    seq = http.post("/v1/jobs", {"id": "crowd-begin", "task": "nobody"}).json["seq"]
    readers = [Reader(http, f"?from={seq + 1}") for _ in range(20)]

    def produce(who: int) -> None:
        for number in range(10):
            jobs = [{"id": f"c{who}-{number}-{n}", "task": "nobody"} for n in range(20)]
            assert http.post("/v1/jobs", jobs).status == 200

    producers = [threading.Thread(target=produce, args=(who,)) for who in range(4)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    for reader in readers:
        told = reader.take(800)
        assert [one.id for one in told] == list(range(seq + 1, seq + 801))
        reader.close()


def test_a_revoked_token_ends_its_streams(http: Http, server: Server) -> None:
    made = beaver(
        "token",
        "create",
        "--role",
        "read",
        "--name",
        "stream",
        "--data",
        str(server.data),
        "--json",
    )
    with reading(Http(server.data, json.loads(made)["token"])) as reader:
        beaver("token", "revoke", "stream", "--data", str(server.data))
        assert not list(reader), "the stream ends by itself"


def test_a_reader_that_takes_nothing_is_cut_off_and_slows_nobody(http: Http) -> None:
    payload = {"text": "x" * 100_000}
    with socket.create_connection((http.host, http.port), timeout=60) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.sendall(
            b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n"
            % http.token.encode()
        )
        assert stuck.recv(10)
        for number in range(100):
            answer = http.post(
                "/v1/jobs", {"id": f"stuck{number}", "task": "nobody", "payload": payload}
            )
            assert answer.status == 201

        def hung_up() -> bool:
            stuck.settimeout(0.05)
            try:
                stuck.send(b"\n")
            except TimeoutError:
                return False
            except OSError:
                return True
            return False

        eventually(hung_up, "the server has hung up")
    assert http.get("/v1/status").status == 200


@pytest.mark.nightly
def test_where_the_log_was_pruned_a_gap_is_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    config = tmp_path / "beaver.yaml"
    config.write_text(
        "segment_size: 16MiB\nretention_size: 1\nsnapshot: 100ms\nretention_age: 1s\n"
    )
    with serving(data, "--http", "127.0.0.1:0", "--config", str(config)):
        http = Http(data)
        job = {"task": "nobody", "payload": "x" * 900_000}

        for _ in range(6):
            assert http.post("/v1/jobs", [job] * 8).status == 200

        def pruned() -> bool:
            assert http.post("/v1/jobs", {"task": "nobody"}).status == 201
            http.post("/v1/snapshot")
            # The active segment begins later, and the first one is not kept.
            begins = int.from_bytes((data / "wal.log").read_bytes()[32:40], "little")
            return begins > 1 and not (data / "archive" / "00000000000000000001.wal").exists()

        eventually(pruned, "the first segment is gone")
        with reading(http, "?from=1") as reader:
            gap, first = reader.take(2)
        assert gap.event == "gap"
        assert gap.data == {"first_seq": first.id}
        assert gap.id == first.id - 1


def test_a_stream_ends_when_the_server_does(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0") as server:
        reader = Reader(Http(data))
        assert server.stop() == 0
        assert not list(reader)
        reader.close()
