"""Jobs over HTTP: they come in, are asked for, and changed, as `HTTP` in docs/reference says."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.http_api.client import Http, path_of
from tests.support.program import Server, events_of, eventually, serving


def lines_of(*jobs: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(job).encode() + b"\n" for job in jobs)


NDJSON = {"Content-Type": "application/x-ndjson"}


def test_a_job_comes_in_runs_and_tells_its_result(http: Http) -> None:
    answer = http.post("/v1/jobs", {"task": "add", "payload": {"a": 1, "b": 2}, "id": "one"})
    assert answer.status == 201
    assert answer.json == {"id": "one", "seq": answer.json["seq"], "created": True}
    assert answer.headers["location"] == "/v1/jobs/one"
    assert int(answer.headers["beaver-seq"]) == answer.json["seq"]
    assert http.ended("one") == {"state": "completed", "result": 3}
    job = http.job("one")
    assert job["task"] == "add"
    assert job["payload"] == {"a": 1, "b": 2}
    assert job["state"] == "completed"
    assert job["result"] == 3
    assert job["enqueued_ms"] <= job["ended_ms"]


def test_the_same_job_again_is_200_and_another_content_is_409(http: Http) -> None:
    job = {"task": "add", "payload": {"a": 1, "b": 2}, "id": "again"}
    first = http.post("/v1/jobs", job)
    same = http.post("/v1/jobs", job)
    assert (same.status, same.json["created"], same.json["seq"]) == (200, False, first.json["seq"])
    other = http.post("/v1/jobs", {**job, "payload": {"a": 1, "b": 3}})
    assert (other.status, other.type) == (409, "conflict")
    assert other.json["job"] == "again"
    assert other.json["seq"] == first.json["seq"]


def test_an_array_comes_in_whole_or_not_at_all(http: Http) -> None:
    jobs = [{"id": f"many{n}", "task": "add", "payload": {"a": n, "b": 1}} for n in range(20)]
    answer = http.post("/v1/jobs", jobs)
    assert answer.status == 200
    assert [job["id"] for job in answer.json["jobs"]] == [job["id"] for job in jobs]
    seqs = [job["seq"] for job in answer.json["jobs"]]
    assert seqs == list(range(seqs[0], seqs[0] + 20)), "one commit"
    wrong = [{"id": "whole0"}, {"id": "whole1", "priority": 11}]
    answer = http.post("/v1/jobs", wrong)
    assert (answer.status, answer.type, answer.json["index"]) == (400, "invalid", 1)
    assert "priority" in answer.json["detail"]
    answer = http.post("/v1/jobs", [{"id": "whole0"}, {"id": "many3", "payload": 7}])
    assert (answer.status, answer.type, answer.json["index"]) == (409, "conflict", 1)
    assert http.get("/v1/jobs/whole0").status == 404
    assert http.post("/v1/jobs", []).json == {"jobs": []}


def test_an_array_of_ten_thousand_is_taken_and_one_more_is_not(http: Http) -> None:
    jobs = [{"id": f"bulk{n}", "task": "nobody", "queue": "bulk"} for n in range(10_001)]
    answer = http.post("/v1/jobs", jobs)
    assert (answer.status, answer.type) == (413, "too_large")
    assert http.get("/v1/jobs/bulk0").status == 404
    answer = http.post("/v1/jobs", jobs[:-1])
    assert answer.status == 200
    assert len(answer.json["jobs"]) == 10_000


def test_a_body_of_eight_mib_is_read_and_one_more_byte_is_not(http: Http) -> None:
    most = 8 << 20
    text = b'{"id": "large"}'
    assert http.post("/v1/jobs", text.ljust(most)).status == 201
    answer = http.post("/v1/jobs", text.ljust(most + 1))
    assert (answer.status, answer.type) == (413, "too_large")


def test_integers_beyond_64_bits_and_the_very_bytes_of_a_payload_survive(http: Http) -> None:
    raw = b'{"id":"exact","task":"nobody","payload":{"z":123456789012345678901234567890,"a":1.50}}'
    assert http.post("/v1/jobs", raw).status == 201
    assert (
        b'"payload":{"z":123456789012345678901234567890,"a":1.50}' in http.get("/v1/jobs/exact").raw
    )


@pytest.mark.parametrize(
    "job", ["a/b", "a b", "ä%2F", "a?b#c", "{x}", "50%", "..x", "+", '"', "\\"]
)
def test_every_id_works_in_a_path(http: Http, job: str) -> None:
    assert (
        http.post("/v1/jobs", {"id": job, "task": "add", "payload": {"a": 1, "b": 2}}).status == 201
    )
    http.ended(job)
    assert http.job(job)["id"] == job
    assert http.get(f"{path_of(job)}/history").status == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"7", "object"),
        (b'{"id":"x","id":"x"}', "repeated"),
        (b'{"id":"x","tsak":"add"}', "did you mean task"),
        (b'{"id":7}', "id"),
        (b'{"id":""}', "id"),
        (b'{"priority":-1}', "priority"),
        (b'{"run_at":1,"delay":1}', "delay"),
        (b'{"payload":NaN}', "NaN"),
        (b'[{"id":"x"},7]', "index 1"),
        (b'[{"id":"x"},{"id":"x"}]', "twice"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_job_is_400_and_says_what_and_where(http: Http, body: bytes, said: str) -> None:
    answer = http.post("/v1/jobs", body)
    assert (answer.status, answer.type) == (400, "invalid")
    assert said in answer.json["detail"]


def test_exec_is_for_the_local_socket_only(http: Http) -> None:
    for body in ({"task": "exec", "payload": ["true"]}, [{"task": "add"}, {"task": "exec"}]):
        answer = http.post("/v1/jobs", body)
        assert (answer.status, answer.type) == (403, "forbidden")
        assert "local socket" in answer.json["detail"]


def test_a_task_that_nobody_knows_is_told(http: Http) -> None:
    answer = http.post("/v1/jobs", {"id": "slip", "task": "ad"})
    assert answer.status == 201
    assert "did you mean add" in answer.json["warning"]
    job = http.job("slip")
    assert (job["state"], job["waiting"]) == ("pending", "unknown_task")
    story = http.get("/v1/jobs/slip/explain").json
    assert story["waiting"] == "unknown_task"
    assert "Similar tasks: add" in story["because"]
    assert story["blocked_by"] == []


# -- lines -----------------------------------------------------------------------------------------


def test_lines_come_in_chunk_by_chunk_and_may_be_sent_again(http: Http) -> None:
    jobs = [{"id": f"line{n}", "task": "nobody", "queue": "lines"} for n in range(5_000)]
    for created in (True, False):
        answer = http.post("/v1/jobs", lines_of(*jobs), NDJSON)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        told = [json.loads(line) for line in answer.raw.splitlines()]
        assert [one["id"] for one in told] == [job["id"] for job in jobs]
        assert {one["created"] for one in told} == {created}


def test_a_wrong_line_ends_them_and_what_was_taken_in_before_stays(http: Http) -> None:
    good = [{"id": f"good{n}", "task": "nobody"} for n in range(2_500)]
    for wrong, name in (({"task": "add"}, "invalid"), ({"id": "good0", "payload": 1}, "conflict")):
        answer = http.post("/v1/jobs", lines_of(*good, wrong, {"id": "behind"}), NDJSON)
        *told, last = [json.loads(line) for line in answer.raw.splitlines()]
        assert last["error"]["type"] == f"urn:beaver:{name}"
        assert last["error"]["index"] == 2_500
        assert [one["id"] for one in told] == [job["id"] for job in good[: len(told)]]
        assert len(told) >= 2_000, "whole chunks before it are in"
        assert http.get("/v1/jobs/behind").status == 404


def test_lines_are_answered_while_the_body_still_comes(http: Http) -> None:
    """A producer that sends for hours is told of each line soon after it."""
    with socket.create_connection((http.host, http.port), timeout=30) as connection:
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {http.token}\r\n"
            "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode())
        reader = connection.makefile("rb")
        for number in range(3):
            line = lines_of({"id": f"slow{number}", "task": "nobody"})
            connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            while f'"slow{number}"'.encode() not in reader.readline():
                pass
        connection.sendall(b"0\r\n\r\n")


# -- waiting ---------------------------------------------------------------------------------------


def test_a_wait_that_is_too_short_is_202_and_one_that_is_too_long_is_refused(http: Http) -> None:
    http.post("/v1/jobs", {"id": "never", "task": "nobody"})
    for wait in ("", "?wait=0", "?wait=30", "?wait=30ms"):
        answer = http.get(f"/v1/jobs/never/result{wait}")
        assert (answer.status, answer.json) == (202, {"state": "pending"})
    assert http.get("/v1/jobs/never/result?wait=60001").type == "invalid"
    assert http.get("/v1/jobs/never/result?wait=long").type == "invalid"
    assert http.get("/v1/jobs/nothing/result").type == "not_found"


def test_a_wait_ends_with_the_job(http: Http) -> None:
    job = {"id": "later", "task": "add", "payload": {"a": 1, "b": 1}, "delay": "300ms"}
    http.post("/v1/jobs", job)
    answer = http.get("/v1/jobs/later/result?wait=60s")
    assert (answer.status, answer.json) == (200, {"state": "completed", "result": 2})


def test_a_dead_job_tells_cause_and_error(http: Http) -> None:
    http.post("/v1/jobs", {"id": "dead", "task": "fail", "payload": {"text": "a reason"}})
    ended = http.ended("dead")
    assert (ended["state"], ended["cause"]) == ("dead", "failed")
    assert "a reason" in ended["error"]
    assert http.job("dead")["ended_ms"] > 0


def test_those_who_leave_while_they_wait_hold_nothing(http: Http, server: Server) -> None:
    """Waits of clients that hung up are dropped: the bound of one token is not used up by them."""
    http.post("/v1/jobs", {"id": "awaited", "task": "nobody"})
    head = (
        "GET /v1/jobs/awaited/result?wait=60s HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {http.token}\r\n\r\n"
    )
    for _ in range(3):
        connections = [socket.create_connection((http.host, http.port)) for _ in range(40)]
        for connection in connections:
            connection.sendall(head.encode())
        for connection in connections:
            connection.close()
    eventually(
        lambda: http.get("/v1/jobs/awaited/result?wait=10ms").status == 202, "there is room again"
    )


def test_more_long_polls_than_a_token_may_hold_are_429(http: Http) -> None:
    http.post("/v1/jobs", {"id": "crowd", "task": "nobody"})

    def wait(_: int) -> int:
        answer = http.get("/v1/jobs/crowd/result?wait=4s")
        if answer.status == 429:
            assert answer.type == "too_many_requests"
            assert answer.headers["retry-after"]
        return answer.status

    with ThreadPoolExecutor(80) as pool:
        statuses = sorted(pool.map(wait, range(80)))
    assert set(statuses) == {202, 429}
    assert statuses.count(202) >= 64


# -- changes ---------------------------------------------------------------------------------------


def test_cancel_discard_and_retry_tell_state_and_seq(http: Http, server: Server) -> None:
    http.post("/v1/jobs", {"id": "life", "task": "nobody"})
    first = http.post("/v1/jobs/life/cancel")
    assert (first.status, first.json["state"]) == (200, "cancelled")
    again = http.post("/v1/jobs/life/cancel", {})
    assert (again.status, again.json) == (200, first.json), "it is so already"
    retried = http.post("/v1/jobs/life/retry", {"payload": {"x": 1}})
    assert (retried.status, retried.json["state"]) == (200, "pending")
    assert http.job("life")["payload"] == {"x": 1}
    refused = http.post("/v1/jobs/life/retry")
    assert (refused.status, refused.type) == (409, "conflict")
    gone = http.post("/v1/jobs/life/discard")
    assert (gone.status, gone.json["state"]) == (200, "discarded")
    assert http.post("/v1/jobs/life/discard").json == gone.json
    assert http.post("/v1/jobs/life/cancel").type == "conflict"
    names = events_of(server.data, "life")
    assert names == ["ENQUEUE", "CANCEL", "REQUEUE", "DISCARD"]
    story = http.get("/v1/jobs/life/history").json
    assert [event["event"] for event in story["events"]] == names
    assert story["history_from"] == 1


def test_a_running_job_is_cancelled_by_asking_it(http: Http) -> None:
    http.post("/v1/jobs", {"id": "running", "task": "wait"})
    running = eventually(
        lambda: job if (job := http.job("running"))["state"] == "in_flight" else {}, "it runs"
    )
    assert running["worker"] > 0
    assert running["token"] > 0
    assert running["started_ms"] >= running["enqueued_ms"]
    answer = http.post("/v1/jobs/running/cancel")
    assert (answer.status, answer.json["state"]) == (200, "in_flight")
    assert http.ended("running")["state"] == "cancelled"


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("cancel", b'{"force":true}', "invalid"),
        ("cancel", b"[]", "invalid"),
        ("retry", b'{"payload":1,"payload":2}', "invalid"),
        ("retry", b'{"payload":[NaN]}', "invalid"),
        ("discard", b"x", "invalid"),
    ],
)
def test_a_change_with_a_wrong_body_changes_nothing(
    http: Http, path: str, body: bytes, name: str
) -> None:
    http.post("/v1/jobs", {"id": "kept", "task": "nobody"})
    before = http.job("kept")
    assert http.post(f"/v1/jobs/kept/{path}", body).type == name
    assert http.job("kept") == before
    for action in ("cancel", "retry", "discard"):
        assert http.post(f"/v1/jobs/nobody-knows/{action}").type == "not_found"


# -- the server goes -------------------------------------------------------------------------------


def test_a_wait_is_told_that_the_server_ends(tmp_path: Any) -> None:
    data = tmp_path / "data"
    answers: list[int] = []
    with serving(data, "--http", "127.0.0.1:0") as server:
        http = Http(data)
        http.post("/v1/jobs", {"id": "w", "task": "nobody"})
        waiting = threading.Thread(
            target=lambda: answers.append(http.get("/v1/jobs/w/result?wait=60s").status)
        )
        waiting.start()
        time.sleep(0.2)
        began_s = time.monotonic()
        assert server.stop() == 0
        waiting.join(30)
        assert answers == [503]
        assert time.monotonic() - began_s < 30, "not for as long as the client would wait"


def test_what_was_answered_survives_a_kill(tmp_path: Any) -> None:
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0") as server:
        http = Http(data)
        with ThreadPoolExecutor(8) as pool:
            ids = [f"k{n}" for n in range(200)]
            done = list(pool.map(lambda n: http.post("/v1/jobs", {"id": n, "task": "x"}), ids))
        server.kill()
    assert {answer.status for answer in done} == {201}
    with serving(data, "--http", "127.0.0.1:0"):
        http = Http(data)
        assert all(
            http.job(job)["seq"] == answer.json["seq"]
            for job, answer in zip(ids, done, strict=True)
        )
