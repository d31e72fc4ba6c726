"""Browsers: signing in with a token, changing only from our own page, signing out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from beaver.access import tokens
from beaver.access.roles import ROLES, Right
from beaver.access.sessions import SESSION_S, SESSIONS_MAX, TOKEN_SESSIONS_MAX, Sessions
from beaver.server.http.api import ROUTES
from beaver.server.http.routing import Route
from tests.http_api.browser import ENTROPY, Browser, server_token, token_of
from tests.http_api.client import Http
from tests.http_api.test_access import GUARDED, path_of
from tests.support.program import Server, serving
from tests.worlds.runtime import ManualClock

CHANGES = [route for route in GUARDED if route.method not in ("GET", "HEAD")]


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
