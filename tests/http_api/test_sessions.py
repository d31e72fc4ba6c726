"""Browsers: signing in with a token or a link, changing only from our own page, signing out."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from html import unescape
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from beaver.access import links, tokens
from beaver.access.roles import ROLES, Right
from beaver.access.sessions import SESSION_S, SESSIONS_MAX, TOKEN_SESSIONS_MAX, Sessions
from beaver.cli import ui
from beaver.errors import InvalidInput
from beaver.server.http.api import ROUTES
from beaver.server.http.routing import Route
from beaver.system.clock import SystemEntropy
from tests.http_api.client import Answer, Http
from tests.http_api.test_access import GUARDED, path_of
from tests.support.certificates import Authority
from tests.support.program import Server, environment, eventually, run_beaver, serving
from tests.worlds.runtime import ManualClock

ENTROPY = SystemEntropy()
CHANGES = [route for route in GUARDED if route.method not in ("GET", "HEAD")]


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


@pytest.fixture
def browser(server: Server) -> Browser:
    return Browser(server.data)


def token_of(data: Path, role: str, name: str = "") -> str:
    now_ms = time.time_ns() // 1_000_000
    return tokens.create(str(data), role, now_ms=now_ms, entropy=ENTROPY, name=name)[1]


def link_of(data: Path) -> str:
    now_ms = time.time_ns() // 1_000_000
    return links.create(str(data), tokens.owner(str(data)).id, now_ms, ENTROPY)


# -- signing in ------------------------------------------------------------------------------------


def test_a_token_signs_a_browser_in_and_out(server: Server, browser: Browser) -> None:
    assert browser.get("/v1/session").status == 401
    answer = browser.sign_in(token=token_of(server.data, "operate", "ada"))
    assert answer.status == 201
    assert (answer.json["role"], answer.json["name"]) == ("operate", "ada")
    assert "token" not in answer.raw.decode()
    assert browser.get("/v1/session").json == answer.json
    assert browser.get("/v1/status").status == 200
    assert browser.ask("POST", "/v1/jobs", {"id": "by-ada", "task": "nobody"}).status == 201
    former = browser.cookie
    assert browser.ask("DELETE", "/v1/session").json == {"ended": True}
    assert browser.cookie == {}
    browser.cookie = former
    assert browser.get("/v1/status").type == "unauthenticated", "the server has forgotten it"


def test_the_cookie_is_for_our_page_alone(server: Server, browser: Browser) -> None:
    browser.sign_in(token=token_of(server.data, "read"))
    parts = {part.strip().partition("=")[0]: part for part in browser.told.split(";")[1:]}
    assert set(parts) == {"Max-Age", "HttpOnly", "SameSite"}
    assert parts["SameSite"].strip() == "SameSite=Strict"
    assert "Path" not in parts, "a proxy may have us below a path, and others beside us"
    assert browser.told.startswith("beaver_")
    answer = browser.get("/v1/status")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"token": "a", "link": "b"}, 400),
        ({"tokn": "a"}, 400),
        ({"token": 7}, 400),
        ({"token": "a"}, 401),
        ({"link": "a"}, 401),
        ({"link": "../token"}, 401),
        ({"link": "\0"}, 401),
        ({"token": "\ud800"}, 400),
        ({"token": "x" * 9_000}, 413),
    ],
)
def test_nothing_else_signs_in(browser: Browser, body: dict[str, Any], status: int) -> None:
    answer = browser.ask("POST", "/v1/session", body)
    assert answer.status == status, answer
    assert "set-cookie" not in answer.headers


def test_a_session_is_worth_as_much_as_its_token_on_every_route(server: Server) -> None:
    for role, rights in ROLES.items():
        browser = Browser(server.data)
        assert browser.sign_in(token=token_of(server.data, role)).status == 201
        for route in GUARDED:
            if route.path == "/v1/session":
                continue
            answer = browser.ask(route.method, path_of(route))
            assert (answer.status == 403) == (route.right not in rights), (role, route, answer)
            assert answer.status != 401


# -- changes come from our page --------------------------------------------------------------------


@pytest.mark.parametrize("route", CHANGES, ids=[f"{r.method} {r.path}" for r in CHANGES])
def test_a_change_by_a_session_has_to_come_from_our_own_page(server: Server, route: Route) -> None:
    browser = Browser(server.data)
    browser.sign_in(token=token_of(server.data, "admin"))
    own = browser.origin["Origin"]
    for headers in (
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": own.rpartition(":")[0]},
        {"Origin": f"{own}0"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": own, "Sec-Fetch-Site": "cross-site"},
        {"Origin": own, "Sec-Fetch-Site": "same-site"},
    ):
        answer = browser.ask(route.method, path_of(route), headers=headers)
        assert (answer.status, answer.type) == (403, "forbidden"), headers
    assert browser.get("/v1/session").status == 200, "it was not signed out either"
    if route.path != "/v1/session":
        for headers in ({"Origin": own}, {"Sec-Fetch-Site": "same-origin"}):
            assert browser.ask(route.method, path_of(route), headers=headers).status != 403


def test_signing_in_from_another_page_is_refused(server: Server, browser: Browser) -> None:
    """Else somebody could have others work in a session of theirs."""
    body = {"token": token_of(server.data, "admin")}
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = browser.ask("POST", "/v1/session", body, headers)
        assert answer.status == 403
        assert "set-cookie" not in answer.headers


def test_a_token_in_the_header_counts_and_not_the_cookie_beside_it(server: Server) -> None:
    browser = Browser(server.data)
    browser.sign_in(token=token_of(server.data, "admin"))
    weak = {"Authorization": f"Bearer {token_of(server.data, 'produce')}"}
    assert browser.ask("GET", "/v1/status", headers=weak).status == 403
    bad = {"Authorization": "Bearer x"}
    assert browser.ask("GET", "/v1/status", headers=bad).status == 401
    assert browser.ask("DELETE", "/v1/session", headers=weak).json == {"ended": False}
    assert browser.get("/v1/status").status == 200


def test_no_other_cookie_is_taken_for_ours(server: Server, browser: Browser) -> None:
    browser.sign_in(token=token_of(server.data, "read"))
    name, _, secret = browser.cookie["Cookie"].partition("=")
    for cookie, status in (
        (f"{name}={secret}", 200),
        (f"a=b; {name}={secret}; c", 200),
        (f"{name}x={secret}", 401),
        (f"{name[:-1]}={secret}", 401),
        (f"{name}={secret}x", 401),
        (f"{name}={secret[:-1]}", 401),
        (f"{name}=", 401),
        (name, 401),
        (f"{name}={server_token(server)}", 401),
        ("=;;=; ;\t", 401),
        ("x=y;" * 1_500, 401),
    ):
        browser.cookie = {"Cookie": cookie}
        assert browser.get("/v1/status").status == status, cookie[:100]


def server_token(server: Server) -> str:
    return (server.data / "token").read_text().strip()


# -- the end of a token ends what rests on it ------------------------------------------------------


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


# -- links -----------------------------------------------------------------------------------------


def test_a_link_signs_in_once(server: Server, browser: Browser) -> None:
    secret = link_of(server.data)
    answer = browser.sign_in(link=secret)
    assert (answer.status, answer.json["role"]) == (201, "admin")
    assert browser.get("/v1/status").status == 200
    again = Browser(server.data).sign_in(link=secret)
    assert (again.status, again.type) == (401, "unauthenticated")
    assert "beaver ui" in again.json["detail"]
    assert secret not in "".join(p.name for p in (server.data / "links").iterdir())


def test_of_many_who_use_a_link_at_once_one_gets_in(server: Server) -> None:
    secret = link_of(server.data)
    statuses: list[int] = []

    def use() -> None:
        statuses.append(Browser(server.data).sign_in(link=secret).status)

    crowd = [threading.Thread(target=use) for _ in range(16)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert sorted(statuses) == [201] + [401] * 15


def test_a_link_is_good_for_a_minute_and_no_longer(tmp_path: Path) -> None:
    data = str(tmp_path)
    for later_ms, good in ((0, True), (59_999, True), (60_000, False), (-1, False)):
        secret = links.create(data, "id", 1_000_000, ENTROPY)
        found = links.take(data, secret, 1_000_000 + later_ms)
        assert found == ("id" if good else None), later_ms
        assert links.take(data, secret, 1_000_000) is None, "it is used up in any case"
    forgotten = links.create(data, "id", 1_000_000, ENTROPY)
    links.create(data, "id", 1_060_000, ENTROPY)
    assert len(list((tmp_path / "links").iterdir())) == 1, "what is over goes"
    assert links.take(data, forgotten, 1_000_000) is None
    (file,) = (tmp_path / "links").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_ends_with_the_token_of_its_owner(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0"):
        secret = link_of(data)
        browser = Browser(data)
        assert browser.sign_in(link=link_of(data)).status == 201
        tokens.revoke(str(data), "local")
        eventually(lambda: browser.get("/v1/session").status == 401, "the session is over", 20)
        assert browser.sign_in(link=secret).status == 401
        told = run_beaver("ui", "--data", str(data), "--no-open")
        assert told.returncode == 3
        assert "beaver token create" in told.stderr


def test_ui_prints_a_link_that_a_browser_can_follow_and_opens_it_unseen(
    tmp_path: Path,
) -> None:
    """All users of the machine see the arguments of a browser: the secret is not among them."""
    data, seen = tmp_path / "data", tmp_path / "seen"
    fake = tmp_path / "browser"
    fake.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    fake.chmod(0o700)
    with serving(data, "--http", "127.0.0.1:0"):
        done = run_command("ui", "--data", str(data), BROWSER=f"{fake} %s")
        (link,) = done.splitlines()
        address = json.loads((data / "server.json").read_text())["http"]
        assert re.fullmatch(re.escape(address) + r"/#link=[\w-]{43}", link)
        opened = eventually(lambda: seen.exists() and seen.read_text().strip(), "it is opened")
        assert opened == (data / "ui.html").absolute().as_uri()
        assert link in unescape((data / "ui.html").read_text())
        assert (data / "ui.html").stat().st_mode & 0o777 == 0o600
        seen.unlink()
        public = run_command(
            "ui", "--data", str(data), "--no-open", "--url", "https://q.example/b",
            BROWSER=f"{fake} %s",
        )  # fmt: skip
        assert public.startswith("https://q.example/b/#link=")
        assert not seen.exists()


def run_command(*arguments: str, **env: str) -> str:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", "beaver", *arguments],
        capture_output=True, text=True, check=True, timeout=60, env=environment(**env),
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize(
    "url",
    ["q.example", "ftp://q", "https://q/?a=b", "https://q/#x", "http://", "http://a b/", "//["],
)
def test_ui_refuses_what_is_no_address_of_a_page(url: str) -> None:
    with pytest.raises(InvalidInput, match="--url: https://name/path/ is expected"):
        ui._checked(url)


def test_ui_says_where_there_is_no_page(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run_beaver("ui", "--data", str(data)).returncode == 6
    with serving(data):
        told = run_beaver("ui", "--data", str(data))
        assert (told.returncode, "without HTTP" in told.stderr) == (2, True)
    assert run_beaver("ui", "--data", str(data)).returncode == 3


def test_with_tls_the_cookie_is_sent_over_tls_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0", *authority.issue("server").flags):
        browser = Browser(data, authority.cert)
        assert browser.sign_in(link=link_of(data)).status == 201
        assert "; Secure" in browser.told
        assert browser.get("/v1/status").status == 200


def test_behind_a_proxy_with_tls_the_cookie_is_secure_as_well(server: Server) -> None:
    browser = Browser(server.data)
    browser.origin = {"Origin": "https://localhost", "Host": "localhost"}
    assert browser.sign_in(token=server_token(server)).status == 201
    assert "; Secure" in browser.told


# -- the page --------------------------------------------------------------------------------------


def test_the_page_runs_nothing_but_its_own_script_and_holds_nothing(server: Server) -> None:
    answer = Http(server.data, "").get("/")
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    for part in ("default-src 'none'", "frame-ancestors 'none'", "script-src 'self' 'sha256-"):
        assert part in policy
    assert "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    text = answer.raw.decode()
    assert not re.search(r"https?://|\son\w+=|style=", text), "nothing comes from elsewhere"
    assert not re.search(r'(src|href)="/', text), "paths are relative, for a proxy with a prefix"
    assert server_token(server) not in text
    assert Http(server.data, "").get("/", {"Host": "evil.example"}).status == 403


# -- bounds ----------------------------------------------------------------------------------------


def test_sessions_are_bounded_for_a_token_and_for_all_and_end(tmp_path: Path) -> None:
    clock = ManualClock()
    sessions = Sessions(str(tmp_path), clock, ENTROPY)
    own = [sessions.begin("a") for _ in range(TOKEN_SESSIONS_MAX)]
    assert all(sessions.token_of(secret) == "a" for secret in own)
    sessions.begin("a")
    assert [sessions.token_of(secret) for secret in own[:2]] == [None, "a"]
    others = [sessions.begin(str(n)) for n in range(SESSIONS_MAX - TOKEN_SESSIONS_MAX)]
    assert sessions.token_of(own[1]) == "a"
    sessions.begin("last")
    assert sessions.token_of(own[1]) is None, "the oldest of all has gone"
    assert sessions.token_of(others[0]) == "0"
    clock.pass_ms(SESSION_S * 1_000 - 1)
    assert sessions.token_of(others[0]) == "0"
    clock.pass_ms(1)
    assert sessions.token_of(others[0]) is None
    assert Right.ANYONE in {route.right for route in ROUTES}


# -- restarts --------------------------------------------------------------------------------------


def test_a_restart_signs_nobody_out_and_brings_nobody_back(tmp_path: Path) -> None:
    """Nor does a kill; whoever signed out before stays so, and so does whose token was revoked."""
    data, http_on = tmp_path / "data", ("--http", "127.0.0.1:0")
    with serving(data, *http_on) as server:
        secret = token_of(data, "read", "gone")
        stays, left, revoked = Browser(data), Browser(data), Browser(data)
        assert stays.sign_in(token=server_token(server)).status == 201
        assert left.sign_in(token=server_token(server)).status == 201
        assert revoked.sign_in(token=secret).status == 201
        kept = dict(left.cookie)
        assert left.ask("DELETE", "/v1/session").status == 200
        left.cookie = kept
        assert (data / "sessions.json").stat().st_mode & 0o777 == 0o600
        server.kill()
    tokens.revoke(str(data), "gone")
    with serving(data, *http_on):
        for browser, status in ((stays, 200), (left, 401), (revoked, 401)):
            again = Browser(data)
            again.cookie = browser.cookie
            assert again.get("/v1/session").status == status


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "\udcff", "{" * 100_000])
def test_a_spoilt_file_of_sessions_signs_all_out(tmp_path: Path, text: str) -> None:
    """And says so, rather than keep the server from its work."""
    path = tmp_path / "sessions.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    sessions = Sessions(str(tmp_path), ManualClock(), ENTROPY)
    secret = sessions.begin("a")
    assert Sessions(str(tmp_path), ManualClock(), ENTROPY).token_of(secret) == "a"
