"""The store as a whole over HTTP: status, queues, workers, snapshots; and what is no request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.http_api.client import Http
from tests.support.program import Server, beaver


def test_status_is_what_the_command_line_says(http: Http, server: Server) -> None:
    status = http.get("/v1/status").json
    told = json.loads(beaver("status", "--data", str(server.data), "--json"))
    for name in ("pending", "completed", "running", "last_seq", "store", "epoch"):
        assert status[name] == told[name]


def test_a_queue_is_set_before_its_first_job_and_asked_for(http: Http) -> None:
    assert http.get("/v1/queues/q%2F1").type == "not_found"
    answer = http.ask("PATCH", "/v1/queues/q%2F1", {"paused": True, "weight": 3})
    assert answer.status == 200
    queue = answer.json
    assert (queue["name"], queue["paused"], queue["weight"]) == ("q/1", True, 3)
    assert http.get("/v1/queues/q%2F1").json == queue
    http.post(
        "/v1/jobs", {"id": "held", "task": "add", "queue": "q/1", "payload": {"a": 1, "b": 2}}
    )
    assert http.job("held")["waiting"] == "paused"
    http.ask("PATCH", "/v1/queues/q%2F1", {"paused": False})
    assert http.ended("held")["result"] == 3
    queues = {queue["name"]: queue for queue in http.get("/v1/queues").json["queues"]}
    assert queues["q/1"]["completed"] == 1


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({}, "nothing to set"),
        ({"pause": True}, "did you mean paused"),
        ({"weight": 0}, "weight"),
        ({"weight": 1_001}, "weight"),
        ({"weight": None}, "weight"),
        ({"bytes_max": -1}, "bytes_max"),
        ([], "object"),
    ],
)
def test_a_wrong_setting_of_a_queue_is_refused(http: Http, patch: Any, said: str) -> None:
    answer = http.ask("PATCH", "/v1/queues/wrong", patch)
    assert (answer.status, answer.type) == (400, "invalid")
    assert said in answer.json["detail"]
    assert http.get("/v1/queues/wrong").status == 404


def test_workers_are_listed(http: Http) -> None:
    workers = http.get("/v1/workers").json["workers"]
    assert len(workers) == 2
    assert all(worker["pid"] > 0 for worker in workers)


def test_a_snapshot_is_taken_on_demand(http: Http, server: Server) -> None:
    seq = http.post("/v1/jobs", {"id": "snapped", "task": "nobody"}).json["seq"]
    answer = http.post("/v1/snapshot")
    assert answer.status == 200
    assert answer.json["seq"] >= seq
    assert Path(server.data, "snapshot.json").exists()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "x", ""])
def test_a_body_of_another_type_is_415(http: Http, kind: str) -> None:
    """Else a form of a stranger's page could enqueue."""
    answer = http.post("/v1/jobs", b'{"task":"add"}', {"Content-Type": kind})
    assert (answer.status, answer.type) == (415, "unsupported_media_type")
    assert "application/json" in answer.json["detail"]


def test_a_body_without_a_type_is_json_and_a_packed_one_is_415(http: Http) -> None:
    assert http.post("/v1/jobs", b'{"id":"plain"}').status == 201
    assert (
        http.post(
            "/v1/jobs", b'{"id":"plain"}', {"Content-Type": "application/json; charset=utf-8"}
        ).status
        == 200
    )
    for packed in ("gzip", "deflate", "br"):
        answer = http.post("/v1/jobs", b"\x1f\x8b", {"Content-Encoding": packed})
        assert answer.type == "unsupported_media_type"


def test_a_client_that_takes_no_json_is_406(http: Http) -> None:
    for accept in ("text/html", "image/*", "application/json;q=0"):
        assert http.get("/v1/status", {"Accept": accept}).type == "not_acceptable"
    for accept in ("*/*", "application/*", "text/html, application/json;q=0.1", ""):
        assert http.get("/v1/status", {"Accept": accept}).status == 200


@pytest.mark.parametrize("query", ["?x=1", "?wait=1&wait=2", "?wait", "?wait=-1", "?Wait=1"])
def test_an_unknown_or_repeated_parameter_is_400(http: Http, query: str) -> None:
    answer = http.get(f"/v1/jobs/none/result{query}")
    assert (answer.status, answer.type) == (400, "invalid")
    assert http.get(f"/v1/status{query}").status == 400
