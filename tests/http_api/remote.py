"""A worker in another language, as the contract describes it: requests, and nothing of Beaver."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from itertools import count
from typing import Any

from tests.http_api.client import Answer, Http
from tests.support.program import eventually

_TASKS = count()


class Worker:
    """One registration."""

    def __init__(
        self, http: Http, *tasks: str, capacity: int = 1, queues: list[str] | None = None
    ) -> None:
        self.http = http
        self.tasks = tasks or (f"t{next(_TASKS)}",)
        body: dict[str, Any] = {"name": "w", "tasks": list(self.tasks), "capacity": capacity}
        if queues is not None:
            body["queues"] = queues
        answer = http.post("/v1/workers", body)
        assert answer.status == 201, answer
        self.terms = answer.json
        self.number = int(self.terms["worker"])

    def ask(self, what: str, body: Any = None) -> Answer:
        return self.http.post(f"/v1/workers/{self.number}/{what}", body)

    def beat(self, *running: int) -> Any:
        answer = self.ask("heartbeat", {"running": list(running)})
        assert answer.status == 200, answer
        return answer.json

    def pull(self, most: int = 1, wait_ms: int = 0) -> list[Any]:
        answer = self.ask("pull", {"max": most, "wait_ms": wait_ms})
        assert answer.status == 200, answer
        found: list[Any] = answer.json["attempts"]
        return found

    def get(self) -> Any:
        """Returns one attempt, which comes before long."""
        return eventually(lambda: self.pull(wait_ms=5_000), "there is work")[0]

    def enqueue(self, job: str, **more: Any) -> str:
        """Enqueues a job that this worker can run."""
        answer = self.http.post("/v1/jobs", {"id": job, "task": self.tasks[0], **more})
        assert answer.status == 201, answer
        return job

    def leave(self) -> Answer:
        return self.http.ask("DELETE", f"/v1/workers/{self.number}")


def report(http: Http, token: int, kind: str, **members: Any) -> Answer:
    """Sends an outcome."""
    return http.post(f"/v1/attempts/{token}/{kind}", members)


def causes(http: Http, job: str) -> list[str]:
    """Returns what happened to a job, with causes."""
    events = http.get(f"/v1/jobs/{job}/history").json["events"]
    return [" ".join(filter(None, (e["event"], e.get("cause")))) for e in events]


def start_pull(http: Http, worker: int, wait_ms: int) -> HTTPConnection:
    """Sends a pull, and returns the connection on which the answer would come."""
    connection = HTTPConnection(http.host, http.port, timeout=60)
    headers = {"Authorization": f"Bearer {http.token}", "Content-Type": "application/json"}
    body = json.dumps({"max": 1, "wait_ms": wait_ms})
    connection.request("POST", f"/v1/workers/{worker}/pull", body, headers)
    return connection
