"""The door of HTTP: it listens from the start, and loads what answers with the first client.

aiohttp and prometheus_client take a quarter of a second and 12 MB, which a server that nobody
scrapes need not have: a third of its start and of its memory.  So until somebody connects
there are only listening sockets.  The first client waits in their backlog while `pages` is
imported beside the loop; the jobs go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

from beaver.errors import InvalidInput
from beaver.server.http.served import Served
from beaver.system.descriptors import HTTP_MAX, is_pressure

if TYPE_CHECKING:
    from types import ModuleType

    from prometheus_client import CollectorRegistry

    from beaver.server.http.pages import Pages
    from beaver.server.http.tls import Certificate

log: Final = logging.getLogger("beaver")

BACKLOG: Final = 128

_PRESSURE_S: Final = 0.25
"""Where there is no descriptor to load them with, it is tried again so much later."""

_SWITCH_S: Final = 0.0005
"""While `pages` is imported the loop gets the interpreter back this soon, ten times the usual."""


class HttpServer:
    """Serves the API, health and metrics of one server."""

    def __init__(
        self,
        make_registry: Callable[[], CollectorRegistry],
        ready: Callable[[], str | None],
        served: Served,
        connections_max: int = HTTP_MAX,
        prepare: Callable[[], Awaitable[None]] | None = None,
        names: Sequence[str] = (),
        certificate: Certificate | None = None,
    ) -> None:
        """Takes what the pages are made of.

        Args:
            make_registry: Makes what `/metrics` shows, when it is first needed.
            ready: Returns why the server does not take work, or `None` where it does.
            served: What the API asks.
            connections_max: More clients than that get 503.
            prepare: Gets together what the registry is to show, while others have their turns.
            names: Names of this server beside its address.
            certificate: What TLS shows; without one, none is spoken.
        """
        self._make_registry, self._ready, self._served = make_registry, ready, served
        self._host = ""
        self._connections_max, self._prepare = connections_max, prepare
        self._names, self._certificate = names, certificate
        self._looking: asyncio.Task[None] | None = None
        self._listeners: list[socket.socket] = []
        self._opening: asyncio.Task[Pages] | None = None
        self._closed = False

    async def start(self, host: str, port: int, *, explicit: bool) -> str:
        """Listens and returns the address as `http://host:port`, with TLS `https://host:port`.

        Args:
            host: An address of this machine.
            port: Where it is taken and not `explicit`, a free one is chosen.
            explicit: The user named the address.

        Raises:
            InvalidInput: The address was named and cannot be had.
        """
        try:
            self._listeners = await _listen(host, port)
        except OSError as error:
            if explicit or error.errno != errno.EADDRINUSE:
                raise _cannot_listen(host, port, error) from error
            self._listeners = await _listen(host, 0)
        self._host = host
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener, self._knocked)
        bound = self._listeners[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        if self._certificate is None:
            return f"http://{shown}:{bound}"
        self._looking = loop.create_task(_keep_looking(self._certificate))
        return f"https://{shown}:{bound}"

    async def close(self) -> None:
        """Stops listening; open requests get a moment to end."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        if self._opening is None:
            self._let_go()
        else:
            with contextlib.suppress(Exception):  # told when it happened
                pages = await asyncio.shield(self._opening)
                await asyncio.shield(pages.close())
        for listener in self._listeners:
            listener.close()

    def _knocked(self) -> None:
        """The first client is there: from now on the pages have the sockets."""
        self._let_go()
        self._opening = asyncio.get_running_loop().create_task(self._open())
        self._opening.add_done_callback(_tell_of_failure)

    def _let_go(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)

    async def _open(self) -> Pages:
        while (module := await self._load()) is None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_PRESSURE_S)
        pages: Pages = module.Pages(
            self._make_registry(),
            self._ready,
            self._served,
            self._host,
            self._connections_max,
            self._prepare,
            self._names,
            self._certificate,
        )
        await pages.open(self._listeners)
        return pages

    async def _load(self) -> ModuleType | None:
        """Imports the pages; `None` where that takes a descriptor which is not there now."""
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        try:
            return await asyncio.to_thread(import_module, "beaver.server.http.pages")
        except Exception as error:
            if self._closed or not is_pressure(error):
                raise
            return None
        finally:
            sys.setswitchinterval(usual_s)


async def _keep_looking(certificate: Certificate) -> None:
    from beaver.server.http.tls import LOOK_S

    while True:
        await asyncio.sleep(LOOK_S)
        certificate.look()


def _tell_of_failure(opening: asyncio.Task[Pages]) -> None:
    if not opening.cancelled() and opening.exception() is not None:
        log.error(
            "the pages of HTTP cannot be opened, and nobody is answered there until a restart",
            exc_info=opening.exception(),
        )


async def check_address(host: str, port: int, *, former: str) -> None:
    """Tries whether one could listen on an address, apart from who will have left by then.

    Args:
        host: An address of this machine.
        port: As `HttpServer.start` takes it.
        former: The address of a server that leaves, as `http://host:port`, or empty.

    Raises:
        InvalidInput: It cannot be had.
    """
    if former and former.rpartition(":")[2] == str(port):
        return
    try:
        listeners = await _listen(host, port)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    for listener in listeners:
        listener.close()


def _cannot_listen(host: str, port: int, error: OSError) -> InvalidInput:
    return InvalidInput(
        f"cannot listen on {host}:{port}: {error.strerror}\n"
        "Give another address with --http, or --http off."
    )


async def _listen(host: str, port: int) -> list[socket.socket]:
    """Returns a socket that listens for each address of a host, all on one port."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            chosen = port or (listeners[0].getsockname()[1] if len(listeners) > 1 else 0)
            listener.bind((address[0], chosen, *address[2:]))
            listener.listen(BACKLOG)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners
