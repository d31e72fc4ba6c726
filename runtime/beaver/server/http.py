"""HTTP: `/metrics`, `/healthz` and `/readyz`, on the stack that the service will extend.

These three are open on loopback.  Everything else answers 404 until the service exists.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from beaver.errors import InvalidInput

BODY_BYTES_MAX: Final = 16 << 20
KEEPALIVE_S: Final = 30.0


class HttpServer:
    """Serves the health and metrics pages of one server."""

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

    async def start(self, host: str, port: int, *, explicit: bool) -> str:
        """Listens and returns the address as `http://host:port`.

        Args:
            host: An address of this machine.
            port: Where it is taken and not `explicit`, a free one is chosen.
            explicit: The user named the address.

        Raises:
            InvalidInput: The address was named and cannot be had.
        """
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, host, port)
            await site.start()
        except OSError as error:
            if explicit or error.errno != errno.EADDRINUSE:
                await self._runner.cleanup()
                raise InvalidInput(
                    f"cannot listen on {host}:{port}: {error.strerror}\n"
                    "Give another address with --http, or --http off."
                ) from error
            site = web.TCPSite(self._runner, host, 0)
            await site.start()
        bound = self._runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{bound}"

    async def close(self) -> None:
        """Stops listening; open requests get a moment to end."""
        await asyncio.shield(self._runner.cleanup())

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
