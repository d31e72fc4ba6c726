"""The client without a socket: it gets what a socket gives, and sees a server that misbehaves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings

from beaver.server.http.pages import Pages
from tests.fuzz.mutations import inputs
from tests.fuzz.targets import HTTP
from tests.fuzz.test_http import HALF_A_REQUEST_S, Site
from tests.fuzz.visitor import HEALTHZ, REGISTRY, answers, visit

DATE = re.compile(rb"\r\nDate: [^\r]+\r\n")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site(lambda: REGISTRY)
    try:
        yield site
    finally:
        site.close()


def agree(site: Site, raw: bytes) -> None:
    """Sends the same bytes both ways; the answers are the same but for the time of day."""
    found = visit(raw)
    moment_s = 10.0 if found.hung_up else HALF_A_REQUEST_S
    through_a_socket, hung_up = site.talk(raw, len(found.sent), moment_s)
    assert DATE.sub(b"\r\n", through_a_socket) == DATE.sub(b"\r\n", found.sent)
    assert hung_up == found.hung_up


@pytest.mark.parametrize("what", HTTP)
def test_the_same_bytes_get_the_same_answers_through_a_socket(site: Site, what: str) -> None:
    agree(site, HTTP[what])


@pytest.mark.invariants
@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(raw=inputs(list(HTTP.values())))
def test_damaged_requests_do_so_as_well(site: Site, raw: bytes) -> None:
    agree(site, raw)


def test_answers_are_read_whole_and_one_by_one() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    assert [a.body for a in answers(head + b"ok\n" + head + head + b"ok\n")] == [
        b"ok\n",
        b"",
        b"ok\n",
    ]
    assert [answer.body for answer in answers(head + b"o", cut=True)] == [b"o"]
    for broken in (head + b"o", head + b"ok\n!", b"ok\n", b"HTTP/1.1 200 OK\r\nX: a\nb\r\n\r\n"):
        with pytest.raises(AssertionError, match="no answer"):
            list(answers(broken))


# -- a server that misbehaves is seen ------------------------------------------------------------


READYZ = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_page_that_breaks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(self: Pages, request: web.Request) -> web.Response:
        raise ZeroDivisionError

    monkeypatch.setattr(Pages, "_readyz", breaks)
    with pytest.raises(AssertionError, match="500 Internal Server Error"):
        visit(READYZ)


def test_a_page_that_never_answers_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(self: Pages, request: web.Request) -> web.Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    monkeypatch.setattr(Pages, "_readyz", hangs)
    with pytest.raises(AssertionError, match="is not kept"):
        visit(READYZ)


def test_a_page_that_spins_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spins(self: Pages, request: web.Request) -> web.Response:
        while True:  # noqa: ASYNC110 - a bug, on purpose
            await asyncio.sleep(0)

    monkeypatch.setattr(Pages, "_readyz", spins)
    with pytest.raises(AssertionError, match="steps"):
        visit(READYZ)


def test_a_bug_behind_the_answer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where aiohttp unpacks a body of which nobody wants to know."""
    build = web.AppRunner.__init__

    def unpacking(self: web.AppRunner, *args: Any, **options: Any) -> None:
        build(self, *args, **{**options, "auto_decompress": True})

    head = (
        b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: deflate\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    body = b"5\r\nabcde\r\n0\r\n\r\n"
    assert [answer.status for answer in visit(head, body).answers] == [405]
    monkeypatch.setattr(web.AppRunner, "__init__", unpacking)
    with pytest.raises(AssertionError, match="Unhandled exception"):
        visit(head, body)


def test_a_server_that_one_request_spoils_for_the_next_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def spoils(self: Pages, request: web.Request) -> web.Response:
        server = self._runner.server
        assert server is not None

        async def refuse(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=503)

        server.request_handler = refuse
        return web.Response()

    monkeypatch.setattr(Pages, "_readyz", spoils)
    with pytest.raises(AssertionError, match="the server lives"):
        visit(READYZ)


def test_a_slow_client_holds_the_server_back_until_it_reads() -> None:
    """It gets all the same answers in the end."""
    quick, slow = visit(HEALTHZ * 20), visit(HEALTHZ * 20, reads=False)
    assert len(quick.answers) == len(slow.answers) == 20
