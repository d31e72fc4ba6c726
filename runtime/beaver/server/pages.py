"""The pages of HTTP: `/metrics`, `/healthz` and `/readyz`, on the stack the service will extend.

These three are open on loopback.  Everything else answers 404 until the service exists.
Imported by `http` when the first client connects, and by nobody else.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final

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
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEPALIVE_S)

    async def open(self, listeners: Sequence[socket.socket]) -> None:
        """Takes over the sockets, and who waits at them."""
        await self._runner.setup()
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
