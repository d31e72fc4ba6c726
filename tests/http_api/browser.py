"""A browser that has our page open, and what signs it in."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

from beaver.access import links, tokens
from beaver.system.clock import SystemEntropy
from tests.http_api.client import Answer, Http
from tests.support.program import Server

ENTROPY = SystemEntropy()


class Browser:
    """A browser that has our page open, and keeps its cookie."""

    def __init__(self, data: Path, ca: Path | None = None) -> None:
        self.http = Http(data, "", ca)
        scheme = "http" if ca is None else "https"
        self.origin = {"Origin": f"{scheme}://{self.http.host}:{self.http.port}"}
        self.cookie: dict[str, str] = {}
        self.told = ""
        """The last `Set-Cookie`."""

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Sends a request with the cookie, by default from our page."""
        more = self.origin if headers is None else headers
        answer = self.http.ask(method, path, body, {**self.cookie, **more})
        self._keep(answer)
        return answer

    def get(self, path: str) -> Answer:
        return self.ask("GET", path, headers={})

    def sign_in(self, **body: str) -> Answer:
        return self.ask("POST", "/v1/session", body)

    def _keep(self, answer: Answer) -> None:
        if "set-cookie" not in answer.headers:
            return
        self.told = answer.headers["set-cookie"]
        ((name, found),) = SimpleCookie(self.told).items()
        gone = found["max-age"] == "0"
        self.cookie = {} if gone else {"Cookie": f"{name}={found.value}"}


def token_of(data: Path, role: str, name: str = "") -> str:
    now_ms = time.time_ns() // 1_000_000
    return tokens.create(str(data), role, now_ms=now_ms, entropy=ENTROPY, name=name)[1]


def link_of(data: Path) -> str:
    now_ms = time.time_ns() // 1_000_000
    return links.create(str(data), tokens.owner(str(data)).id, now_ms, ENTROPY)


def server_token(server: Server) -> str:
    return (server.data / "token").read_text().strip()
