"""A client of the API that knows nothing of Beaver: requests, and JSON."""

from __future__ import annotations

import json
import ssl
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.support.program import eventually


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def type(self) -> str:
        """The name of the problem."""
        assert self.headers["content-type"] == "application/problem+json"
        problem = self.json
        assert problem["status"] == self.status
        assert problem["title"]
        assert problem["detail"]
        name = problem["type"]
        assert name.startswith("urn:beaver:")
        return str(name.removeprefix("urn:beaver:"))


class Http:
    """One user of a server."""

    def __init__(self, data: Path, token: str | None = None, ca: Path | None = None) -> None:
        """Takes who asks; with TLS, `ca` is whom they trust."""
        info = json.loads((data / "server.json").read_text())
        self.context = None if ca is None else ssl.create_default_context(cafile=ca)
        scheme = "http://" if ca is None else "https://"
        assert info["http"].startswith(scheme)
        self.host, _, port = info["http"].removeprefix(scheme).rpartition(":")
        self.port = int(port)
        self.data = data
        self.token = (data / "token").read_text().strip() if token is None else token

    def connect(self) -> HTTPConnection:
        """Returns a new connection."""
        if self.context is None:
            return HTTPConnection(self.host, self.port, timeout=60)
        return HTTPSConnection(self.host, self.port, timeout=60, context=self.context)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Sends a request; a body that is no bytes is sent as JSON."""
        connection = self.connect()
        sent: dict[str, str] = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body, {**sent, **(headers or {})})
            answer: HTTPResponse = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            # A stream does not end by itself.
            body = b"" if told.get("content-type") == "text/event-stream" else answer.read()
            return Answer(answer.status, told, body)
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("POST", path, body, headers)

    def job(self, job: str) -> Any:
        """Returns a job."""
        answer = self.get(path_of(job))
        assert answer.status == 200, answer
        return answer.json

    def ended(self, job: str) -> Any:
        """Waits for the end of a job; returns how it ended."""

        def ask() -> Any:
            answer = self.get(f"{path_of(job)}/result?wait=5s")
            assert answer.status in (200, 202), answer
            return answer.json if answer.status == 200 else None

        return eventually(ask, f"job {job} has ended")


def path_of(job: str) -> str:
    return f"/v1/jobs/{quote(job, safe='')}"
