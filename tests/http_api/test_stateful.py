"""Requests one after the other, along the links of the description: no surprise, no lost change."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from beaver.server.http.api import ROUTES
from beaver.server.http.describing import document
from tests.http_api.client import Http
from tests.support.program import Server, events

EXCLUDED = [positive_data_acceptance, negative_data_rejection]
"""What a schema cannot say is tried by `test_description`; this is about sequences."""
EVENT_OF = {"cancel": "CANCEL", "retry": "REQUEUE", "discard": "DISCARD"}


def test_sequences_along_the_links_bring_no_surprise_and_no_change_without_its_event(
    http: Http, server: Server
) -> None:
    """No 5xx and no undocumented answer; every change that was told stands in the log."""
    told: list[tuple[str, str, int, Any]] = []
    api: Any = schemathesis.openapi.from_dict(json.loads(document(ROUTES)))
    # A stream does not end by itself, and copies of the store take long.
    api = api.exclude(path="/v1/events").exclude(path="/v1/backup")
    api.config.update(base_url=f"http://{http.host}:{http.port}")
    base: Any = api.as_state_machine()

    class Client(base):  # type: ignore[misc]
        steps: ClassVar[int] = 0

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": {"Authorization": f"Bearer {http.token}"}}

        def before_call(self, case: Any) -> None:
            for where, name in ((case.query, "wait"), (case.body, "wait_ms")):
                if isinstance(where, dict) and isinstance(where.get(name), int):
                    where[name] = min(where[name], 1)

        def validate_response(self, response: Any, case: Any, *args: Any, **kwargs: Any) -> None:
            type(self).steps += 1
            case.validate_response(response, excluded_checks=EXCLUDED)
            if case.method != "GET" and response.status_code < 300:
                path = case.operation.path
                told.append((case.method, path, response.status_code, body_of(response)))

    base_run = Client.run
    base_run(
        settings=settings(
            max_examples=25,
            stateful_step_count=8,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
    )
    assert Client.steps > 50
    log = {event["seq"]: event for event in events(server.data)}
    without = [entry for entry in told if not has_event(log, *entry)]
    assert without == []
    assert any(path == "/v1/jobs" for _, path, _, _ in told)


def body_of(response: Any) -> Any:
    try:
        return json.loads(response.content)
    except ValueError:
        return None


def has_event(log: dict[int, Any], method: str, path: str, status: int, body: Any) -> bool:
    """True where the log has what an answer says, or where it says no change of the log."""
    if path == "/v1/jobs" and isinstance(body, dict) and "seq" in body:
        found = log.get(body["seq"], {})
        return (found.get("event"), found.get("job")) == ("ENQUEUE", body["id"])
    if path == "/v1/jobs" and isinstance(body, dict) and "jobs" in body:
        return all(has_event(log, method, path, status, one) for one in body["jobs"])
    action = path.rpartition("/")[2]
    if path.startswith("/v1/jobs/{id}/") and action in EVENT_OF:
        return log[body["seq"]]["event"] in (EVENT_OF[action], "CANCEL_REQUESTED")
    return True
