"""HTTP as it is served: the API, and beside it `/metrics`, `/healthz` and `/readyz`.

Imported by `listener` when the first client connects, and by nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from beaver.access.sessions import Sessions
from beaver.access.tokens import PREFIX, Tokens
from beaver.server.http.access import Gate
from beaver.server.http.api import add_routes, guard
from beaver.server.http.doors import KEEPALIVE_S, Doors
from beaver.server.http.served import Served
from beaver.server.http.site import Site
from beaver.server.http.tls import Certificate
from beaver.server.http.vestibule import Vestibule
from beaver.system.descriptors import HTTP_MAX

BODY_BYTES_MAX: Final = 16 << 20
BACKLOG: Final = 128
SHUTDOWN_S: Final = 2.0
"""Time for requests under way when the server ends; waits and streams are told."""
_TOKEN: Final = re.compile(rf"{PREFIX}[\w-]+")
"""A token, wherever it stands: none may be told in the log."""
MALFORMED_CHARS_MAX: Final = 200
"""So much of what a client sent is told in the log."""


class Pages:
    """Answers on sockets that listen already."""

    def __init__(
        self,
        registry: CollectorRegistry,
        ready: Callable[[], str | None],
        served: Served,
        host: str,
        connections_max: int = HTTP_MAX,
        prepare: Callable[[], Awaitable[None]] | None = None,
        names: Sequence[str] = (),
        certificate: Certificate | None = None,
    ) -> None:
        """See `listener.HttpServer`; `host` is what it listens on."""
        self._ready, self._certificate = ready, certificate
        tokens = Tokens(served.data, served.clock)
        sessions = Sessions(served.data, served.clock, served.entropy)
        gate = Gate(tokens, sessions, (host, *names), served.store)
        self._site = site = Site(served, gate)
        self._page = MetricsPage(registry, prepare)
        self._connections_max = connections_max
        self._servers: list[asyncio.Server] = []
        self._doors: Doors | None = None
        self._vestibule: Vestibule | None = None
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[guard(site)])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        add_routes(app, site)
        # No body is unpacked: `check_type` refuses what is packed.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            # A door looks after that.
            keepalive_timeout=2 * KEEPALIVE_S,
            auto_decompress=False,
            # Whoever leaves frees what was held for the answer.
            handler_cancellation=True,
            shutdown_timeout=SHUTDOWN_S,
            logger=_log,
        )

    async def open(self, listeners: Sequence[socket.socket]) -> None:
        """Takes over the sockets, and who waits at them."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None, "set-up makes it"
        self._doors = doors = Doors(server, self._connections_max)
        server.request_factory = _noted(_without_host(server.request_factory), doors)
        server.request_handler = _answering(server.request_handler, doors)
        certificate = self._certificate
        if certificate is not None:
            self._vestibule = Vestibule(doors.admit, lambda: certificate.context)
            for listener in listeners:
                self._vestibule.listen(listener)
            return
        loop = asyncio.get_running_loop()
        for listener in listeners:
            self._servers.append(await loop.create_server(doors, sock=listener, backlog=BACKLOG))

    async def close(self) -> None:
        """Stops listening; open requests get a moment to end, and waits are ended."""
        self._site.close()
        for server in self._servers:
            server.close()
        if self._vestibule is not None:
            self._vestibule.close()
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        body = await self._page.get()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = self._ready()
        if reason is None:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"{reason}\n")


class MetricsPage:
    """What `/metrics` shows.

    Whoever asks while it is made gets the same; and it stays good for `REST` times as long as
    it took, so that no number of scrapes takes more than a small share of the loop.
    """

    REST: Final = 10

    def __init__(
        self, registry: CollectorRegistry, prepare: Callable[[], Awaitable[None]] | None
    ) -> None:
        self._registry, self._prepare = registry, prepare
        self._making: asyncio.Task[bytes] | None = None
        self._good_until_s = 0.0

    async def get(self) -> bytes:
        """Returns the page, made anew if need be."""
        loop = asyncio.get_running_loop()
        making = self._making
        if making is None or (making.done() and loop.time() >= self._good_until_s):
            making = self._making = loop.create_task(self._make())
        # Whoever leaves does not stop it for the others.
        return await asyncio.shield(making)

    async def _make(self) -> bytes:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._good_until_s = began_s  # A page that could not be made is made again.
        if self._prepare is not None:
            await self._prepare()
        body = generate_latest(self._registry)
        ended_s = loop.time()
        self._good_until_s = ended_s + self.REST * (ended_s - began_s)
        return body


class _OneLine(logging.Filter):
    """Makes one line at debug of a traceback that only says that a client sent nonsense."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        what = _TOKEN.sub("...", str(error.message)).partition("\n\n")[0]
        what = " ".join(what.split())[:MALFORMED_CHARS_MAX]
        _told.debug("malformed HTTP request%s: %s", _peer(record), ascii(what)[1:-1])
        return False


def _peer(record: logging.LogRecord) -> str:
    return f" from {record.args[0]}" if isinstance(record.args, tuple) and record.args else ""


_told: Final = logging.getLogger("beaver.http")
_log: Final = logging.getLogger("beaver.http.server")
"""What aiohttp has to say."""
_log.addFilter(_OneLine())


def _noted(make_request: Callable[..., web.BaseRequest], doors: Doors) -> Callable[..., Any]:
    """Returns what makes requests, and tells the door of its client."""

    def make(message: Any, body: Any, handler: Any, *rest: Any) -> web.BaseRequest:
        doors.has_asked(handler, body)
        return make_request(message, body, handler, *rest)

    return make


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


def _answering(
    handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], doors: Doors
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Returns a handler that answers 400 where aiohttp cannot repeat what it was sent.

    It puts an `Expect` that it does not know into its answer, and answers 500 where that is no
    UTF-8.  The door of the client is told when there is an answer.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except UnicodeError:
            return web.Response(status=400, text="400: Bad Request")
        finally:
            doors.is_answered(request.protocol)

    return answer
