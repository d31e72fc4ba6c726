"""Who asked for a change stands in its event, wherever the event is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from beaver_model.rows import Spec, encode_spec, spec_of
from tests.http_api.client import Http
from tests.http_api.test_access import make
from tests.support.program import Server, beaver, enqueue, events

CHANGES = {"CANCEL", "CANCEL_REQUESTED", "REQUEUE", "DISCARD", "QUEUE"}


@pytest.fixture(scope="module")
def ops(server: Server) -> Http:
    """Somebody on duty."""
    return Http(server.data, make(server.data, "--role", "operate", "--name", "ops: é\N{BEAVER}"))


def told_by(http: Http) -> str:
    """Returns how the log names a user of HTTP."""
    listed = (json.loads(line) for line in beaver_tokens(http))
    return next(f"token:{one['id']}:{one['name']}" for one in listed if one["name"].startswith("o"))


def beaver_tokens(http: Http) -> list[str]:
    return beaver("token", "list", "--json", "--data", str(http.data)).splitlines()


def of_job(data: Path, job: str) -> list[dict[str, Any]]:
    return [event for event in events(data) if event["job"] == job]


def test_each_change_over_http_tells_its_token(server: Server, ops: Http, http: Http) -> None:
    """In history, explain, the event stream and replay, as JSON and as text."""
    assert ops.ask("PATCH", "/v1/queues/audited", {"paused": True, "weight": 7}).status == 200
    ops.post("/v1/jobs", {"id": "a1", "task": "wait", "queue": "audited"})
    assert ops.post("/v1/jobs/a1/cancel").status == 200
    assert ops.post("/v1/jobs/a1/retry").status == 200
    assert ops.post("/v1/jobs/a1/discard").status == 200
    by = told_by(ops)
    expected = [by.rpartition(":ops")[0], by, by, by]
    assert len(set(expected)) == 2, "an ENQUEUE has the id alone"
    assert [event["by"] for event in of_job(server.data, "a1")] == expected
    for part in ("history", "explain"):
        told = http.get(f"/v1/jobs/a1/{part}").json["events"]
        assert [event["by"] for event in told] == expected
    queue = next(e for e in events(server.data) if (e.get("details") or {}).get("weight") == 7)
    assert queue["by"] == by
    text = beaver("explain", "a1", "--data", str(server.data))
    assert text.count("by=") == 4
    assert "\N{BEAVER}" in text


def test_a_running_job_is_cancelled_by_who_asked(server: Server, ops: Http) -> None:
    """The request tells; the end of the attempt is the worker's."""
    ops.post("/v1/jobs", {"id": "a2", "task": "wait"})
    assert ops.post("/v1/jobs/a2/cancel").status == 200
    assert ops.ended("a2")["state"] == "cancelled"
    by = {event["event"]: event.get("by") for event in of_job(server.data, "a2")}
    # It may not have started yet.
    asked = by.get("CANCEL_REQUESTED", by["CANCEL"])
    assert asked == told_by(ops)


def test_a_change_on_this_machine_tells_its_user(server: Server, tmp_path: Path) -> None:
    """Over the socket, and without a server."""
    for data in (server.data, tmp_path / "alone"):
        enqueue(data, {"id": "a0", "queue": "held", "delay": "1h"})
        beaver("pause", "held", "--data", str(data))
        enqueue(data, {"id": "a3", "queue": "held"})
        for command in ("cancel", "retry", "discard"):
            beaver(command, "a3", "--data", str(data))
        beaver("resume", "held", "--data", str(data))
        user = f"uid:{os.getuid()}"
        told = [event.get("by") for event in of_job(data, "a3")]
        assert told == [None, user, user, user]
        paused = [e for e in events(data) if e["event"] == "QUEUE"][-2:]
        assert [event["by"] for event in paused] == [user, user]


def test_no_change_in_the_log_is_nobodys(server: Server, ops: Http) -> None:
    """Whatever the tests of this module did; ends of attempts aside."""
    for event in events(server.data):
        if event["event"] in CHANGES and not event.get("token"):
            assert event["by"], event


def test_a_job_that_came_otherwise_takes_no_more_room() -> None:
    """Its options are those that they were, byte by byte; with `by` they are longer."""
    plain = encode_spec(Spec("t", origin=1))
    assert plain[0] == 0x9A, "an array of ten"
    assert spec_of(plain).by == ""
    named = encode_spec(Spec("t", origin=1, by="token:0a1b2c3d"))
    assert (named[0], len(named)) == (0x9B, len(plain) + 15)
    assert spec_of(named).by == "token:0a1b2c3d"


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "\x00", "a\u0085b"])
def test_a_token_has_no_name_that_ends_a_line(server: Server, name: str) -> None:
    """So none can forge an entry of a log."""
    from beaver.access import tokens
    from beaver.errors import InvalidInput
    from beaver.system.clock import SystemEntropy

    with pytest.raises(InvalidInput, match=r"name: .* control character"):
        tokens.create(str(server.data), "read", now_ms=1, entropy=SystemEntropy(), name=name)
