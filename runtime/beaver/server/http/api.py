"""The API as one: every route, and what is checked before any of them is carried out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from beaver.access.roles import Right
from beaver.errors import BeaverError
from beaver.server.http import (
    backup,
    bulk,
    enqueueing,
    events,
    jobs,
    listing,
    outcomes,
    signing_in,
    throughput,
    whole,
    workers,
)
from beaver.server.http.access import NOBODY, TOKEN, is_loopback
from beaver.server.http.describing import document
from beaver.server.http.page import add_page, is_page
from beaver.server.http.problems import Problem, problem_of, problem_of_status
from beaver.server.http.routing import (
    STREAMS,
    HttpCall,
    Reply,
    Route,
    accepts,
    check_type,
    read_query,
)
from beaver.server.http.site import Site

log: Final = logging.getLogger("beaver.http")


async def _openapi(call: HttpCall) -> Reply:
    return Reply(_description(), call.site.engine.durable_seq)


@cache
def _description() -> bytes:
    return document(ROUTES)


ROUTES: Final[tuple[Route, ...]] = (
    *enqueueing.ROUTES,
    *listing.ROUTES,
    *jobs.ROUTES,
    *bulk.ROUTES,
    *whole.ROUTES,
    *workers.ROUTES,
    *outcomes.ROUTES,
    *events.ROUTES,
    *backup.ROUTES,
    *signing_in.ROUTES,
    *throughput.ROUTES,
    Route(
        "GET", "/v1/openapi.json", Right.READ, _openapi, "This description", {200: dict[str, Any]}
    ),
)
_FOR_ANYONE: Final = frozenset(
    (route.method, route.path) for route in ROUTES if route.right is Right.ANYONE
)
"""What needs no token, beside the page: signing in."""
_FOR_BROWSERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
OPEN: Final = frozenset({"/metrics", "/healthz", "/readyz"})
"""Paths that need no token on this machine."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_routes(app: web.Application, site: Site) -> None:
    """Adds every route to an application."""
    add_page(app)
    for route in ROUTES:
        if route.method == "GET":
            # A stream has no end that a HEAD could be answered with.
            allow_head = not STREAMS.issuperset(route.gives)
            app.router.add_get(route.pattern, _handler(route, site), allow_head=allow_head)
        else:
            app.router.add_route(route.method, route.pattern, _handler(route, site))


def _handler(route: Route, site: Site) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        token = request.get(TOKEN, NOBODY)
        if route.right is not Right.ANYONE:
            site.gate.require(token, route.right)
        if not accepts(request, route.gives):
            raise Problem("not_acceptable", f"Accept: {' or '.join(route.gives)} is what there is")
        if route.body is not None:
            check_type(request, route.takes)
        found = await route.handle(HttpCall(site, request, token, read_query(request, route.query)))
        return found.response() if isinstance(found, Reply) else found

    return handle


def guard(site: Site) -> Middleware:
    """Returns what stands before every handler: who may come, and the form of problems."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await _let_in(site, request, handler)
        except Problem as problem:
            response = problem.response()
        except BeaverError as error:
            response = problem_of(error).response()
        except web.HTTPException as error:
            if error.status < 400:
                raise
            response = problem_of_status(error).response()
        if not response.prepared and request.path.startswith("/v1"):
            response.headers.setdefault("Beaver-Seq", str(site.engine.durable_seq))
            if "Cookie" in request.headers:
                response.headers.update(_FOR_BROWSERS)
        return response

    return guarded


async def _let_in(site: Site, request: web.Request, handler: Handler) -> web.StreamResponse:
    site.gate.check_host(request)
    if is_page(request) or (request.method, request.path) in _FOR_ANYONE:
        return await handler(request)
    if request.path not in OPEN:
        request[TOKEN] = site.gate.bearer(request)
    elif not is_loopback(request):
        site.gate.admit(request, Right.READ)
    return await handler(request)
