"""The description of the API is valid, checked in, and served; every route answers as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from openapi_spec_validator import validate
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from beaver.server.http.api import ROUTES
from beaver.server.http.describing import document
from beaver.server.http.workers import WAIT_MS_MAX
from tests.http_api.client import Http
from tests.support.program import Server, events

CHECKED_IN = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
API = schemathesis.openapi.from_dict(json.loads(document(ROUTES))).exclude(path="/v1/events")
"""A stream does not end by itself; `test_events` reads it."""


@schemathesis.serializer("application/x-ndjson")
def lines(context: schemathesis.SerializationContext, value: Any) -> Any:
    """Sends lines as they were drawn, and anything else as one line."""
    return value if isinstance(value, str | bytes) else json.dumps(value)


def test_the_description_is_valid_openapi_and_what_the_server_gives(http: Http) -> None:
    served = http.get("/v1/openapi.json").json
    validate(served)
    assert served == json.loads(CHECKED_IN.read_text())
    described = {
        (method.upper(), path) for path, methods in served["paths"].items() for method in methods
    }
    assert described == {(route.method, route.path) for route in ROUTES}


LISTING = ("GET", "/v1/jobs")


@pytest.fixture(scope="module")
def known(http: Http) -> list[str]:
    """Jobs in several states."""
    http.post("/v1/jobs", [{"id": f"known{n}", "task": "nobody"} for n in range(8)])
    http.post("/v1/jobs/known1/cancel")
    http.post("/v1/jobs/known2/discard")
    http.post("/v1/jobs", {"id": "known-done", "task": "add", "payload": {"a": 1, "b": 1}})
    http.ended("known-done")
    return [*(f"known{n}" for n in range(8)), "known-done", "unknown"]


@pytest.fixture(scope="module")
def worker(http: Http) -> str:
    """A remote worker, which may be seen off by a request that is tried."""
    body = {"name": "w", "tasks": ["remote"], "capacity": 1_000}
    return str(http.post("/v1/workers", body).json["worker"])


@API.parametrize()
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_every_route_answers_as_it_is_described(
    case: schemathesis.Case[Any], http: Http, known: list[str], worker: str
) -> None:
    """Whatever is sent: no 5xx, and no status, type or body that is not described."""
    if "id" in case.path_parameters and len(case.path_parameters["id"]) % 2:
        case.path_parameters["id"] = known[len(case.path_parameters["id"]) % len(known)]
    if isinstance((case.query or {}).get("wait"), int):
        case.query["wait"] = min(case.query["wait"], 1)
    if "worker" in case.path_parameters and len(case.path_parameters["worker"]) % 2:
        case.path_parameters["worker"] = worker
    if isinstance(case.body, dict) and case.body.get("wait_ms") in range(1, WAIT_MS_MAX + 1):
        case.body["wait_ms"] = 1  # One beyond the limit stays what it is: refused.
    excluded: list[CheckFunction] = [positive_data_acceptance]
    if case.media_type == "application/x-ndjson" or (case.method, case.path) == LISTING:
        # A wrong line is told in the body; an unknown key without a value is lost on the way.
        excluded.append(negative_data_rejection)
    case.call_and_validate(
        base_url=f"http://{http.host}:{http.port}",
        headers={"Authorization": f"Bearer {http.token}"},
        # Bytes of an id, words for times, and a time beside a delay are no matter of a schema.
        excluded_checks=excluded,
    )


def test_no_accepted_change_is_without_its_event(http: Http, server: Server) -> None:
    """Every 201 has its ENQUEUE, and every change its event, under the seq that was told."""
    told = {}
    for number in range(30):
        job = f"change{number}"
        told[http.post("/v1/jobs", {"id": job, "task": "nobody"}).json["seq"]] = ("ENQUEUE", job)
        told[http.post(f"/v1/jobs/{job}/cancel").json["seq"]] = ("CANCEL", job)
        told[http.post(f"/v1/jobs/{job}/retry").json["seq"]] = ("REQUEUE", job)
        told[http.post(f"/v1/jobs/{job}/discard").json["seq"]] = ("DISCARD", job)
    log = {event["seq"]: (event["event"], event["job"]) for event in events(server.data)}
    assert len(told) == 120
    assert {seq: log[seq] for seq in told} == told
