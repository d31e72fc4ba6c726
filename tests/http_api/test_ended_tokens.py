"""The end of a token or a session ends what rests on it: streams, polls and bodies."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from beaver.access import tokens
from tests.http_api.browser import Browser, token_of
from tests.http_api.client import Answer, Http
from tests.support.program import Server, eventually


class Stream:
    """An open event stream."""

    def __init__(self, http: Http, headers: dict[str, str]) -> None:
        self._connection = socket.create_connection((http.host, http.port), 60)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{head}\r\n"
        self._connection.sendall(request.encode())
        assert b" 200 " in self._connection.recv(1_000)

    def ended(self) -> bool:
        """Reads on until the server hangs up."""
        try:
            while self._connection.recv(65_536):
                pass
        except ConnectionError:
            pass
        self._connection.close()
        return True


def revoke(server: Server, browser: Browser) -> None:
    tokens.revoke(str(server.data), "ending")


def sign_out(server: Server, browser: Browser) -> None:
    assert browser.ask("DELETE", "/v1/session").json == {"ended": True}


@pytest.mark.parametrize("end", [revoke, sign_out])
def test_the_end_of_a_session_ends_its_streams_too(
    server: Server, browser: Browser, end: Callable[[Server, Browser], None]
) -> None:
    secret = token_of(server.data, "admin", "ending")
    browser.sign_in(token=secret)
    streams = [Stream(browser.http, browser.cookie)]
    if end is revoke:
        streams.append(Stream(browser.http, {"Authorization": f"Bearer {secret}"}))
    cookie = browser.cookie
    end(server, browser)
    began_s = time.monotonic()
    assert all(stream.ended() for stream in streams)
    browser.cookie = cookie
    eventually(lambda: browser.get("/v1/status").status == 401, "the session is over", 20)
    assert time.monotonic() - began_s < 20
    if end is sign_out:
        tokens.revoke(str(server.data), "ending")


def test_a_long_poll_ends_with_its_token_and_tells_no_result(server: Server, http: Http) -> None:
    http.post("/v1/jobs", {"id": "waited", "task": "nobody"})
    secret = token_of(server.data, "produce", "waiting")
    answers: list[Answer] = []
    user = Http(server.data, secret)
    path = "/v1/jobs/waited/result?wait=60s"
    waiting = threading.Thread(target=lambda: answers.append(user.get(path)))
    waiting.start()
    time.sleep(0.2)  # It may be asked before or while it waits: both have to end.
    tokens.revoke(str(server.data), "waiting")
    waiting.join(30)
    assert [answer.type for answer in answers] == ["unauthenticated"]


def test_lines_that_come_after_the_end_of_a_token_are_not_taken_in(
    server: Server, http: Http
) -> None:
    secret = token_of(server.data, "produce", "sending")
    with socket.create_connection((http.host, http.port), 60) as client:
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n"
            "Content-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n"
        )
        client.sendall(head.encode() + b'{"id": "before", "task": "nobody"}\n')
        received = b""
        while b'"created":true' not in received:
            received += client.recv(65_536)
        tokens.revoke(str(server.data), "sending")
        user = Http(server.data, secret)
        eventually(lambda: user.get("/v1/session").status == 401, "it is revoked", 20)
        client.sendall(b'{"id": "after", "task": "nobody"}\n')
        while piece := client.recv(65_536):
            received += piece
    assert b"urn:beaver:unauthenticated" in received
    assert http.get("/v1/jobs/before").status == 200
    assert http.get("/v1/jobs/after").status == 404


def test_a_body_that_ends_after_its_token_is_not_carried_out(server: Server, http: Http) -> None:
    secret = token_of(server.data, "produce", "slow")
    body = b'{"id": "too-late", "task": "nobody"}'
    with socket.create_connection((http.host, http.port), 60) as client:
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        client.sendall(head.encode() + body[:5])
        tokens.revoke(str(server.data), "slow")
        user = Http(server.data, secret)
        eventually(lambda: user.get("/v1/session").status == 401, "it is revoked", 20)
        client.sendall(body[5:])
        assert b" 401 " in client.recv(65_536)
    assert http.get("/v1/jobs/too-late").status == 404
