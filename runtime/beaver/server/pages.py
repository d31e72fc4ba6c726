"""The pages of HTTP: `/metrics`, `/healthz` and `/readyz`, on the stack the service will extend.

These three are open on loopback.  Everything else answers 404 until the service exists.
Imported by `http` when the first client connects, and by nobody else.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

BODY_BYTES_MAX: Final = 16 << 20
KEEPALIVE_S: Final = 30.0


class Pages:
    """Answers on sockets that listen already."""

    def __init__(self, registry: CollectorRegistry, ready: Callable[[], str | None]) -> None:
        """Args beyond the obvious.

        Args:
            registry: What `/metrics` shows.
            ready: Returns why the server does not take work, or `None` where it does.
        """
        self._registry, self._ready = registry, ready
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        # No body is read, so none is unpacked: one that cannot be would be logged as a bug.
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=KEEPALIVE_S, auto_decompress=False
        )

    async def open(self, listeners: Sequence[socket.socket]) -> None:
        """Takes over the sockets, and who waits at them."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None, "set-up makes it"
        server.request_factory = _without_host(server.request_factory)
        server.request_handler = _refusing_what_is_no_text(server.request_handler)
        for listener in listeners:
            await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Stops listening; open requests get a moment to end."""
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = self._ready()
        if reason is None:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"{reason}\n")


def _without_host(make_request: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """Returns what makes requests, deaf to the host of `GET http://host/path`.

    aiohttp (3.14) decodes that host where no error of it is caught: one that is no name, as
    `xn--a`, ends the task of its connection, which is then never answered nor closed.
    """

    def make(message: Any, *rest: Any) -> web.BaseRequest:
        if message.url.is_absolute():
            message = message._replace(url=message.url.relative())
        return make_request(message, *rest)

    return make


def _refusing_what_is_no_text(
    handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Returns a handler that answers 400 where aiohttp cannot repeat what it was sent.

    It puts an `Expect` that it does not know into its answer, and answers 500 where that is no
    UTF-8.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except UnicodeError:
            return web.Response(status=400, text="400: Bad Request")

    return answer
