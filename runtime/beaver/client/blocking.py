"""The blocking client: calls over the local socket, from any number of threads.

Threads share one connection (`channel`): there is no thread in the background, and a long
`wait` holds up nobody.

A client belongs to the process that made it.  What may not live here: asyncio, which the
command line must not import (`client.asynchronous` is the same over asyncio).
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from beaver.client import calls
from beaver.client.calls import Call, Operations, Synchronous
from beaver.client.channel import Channel, PendingAnswer
from beaver.errors import InvalidInput, NoServer, ServerGone, ServerLeft
from beaver.limits import LIMITS, hint
from beaver.request.operations import ENQUEUE, WAIT, Operation
from beaver.structs.messages import Request
from beaver.structs.views import Accepted
from beaver.transport import endpoint, framing
from beaver.transport.endpoint import Greeting, ServerInfo
from beaver_model.bounds import BATCH_JOBS_MAX

T = TypeVar("T")

PIPELINE_MAX: Final = 64
"""Calls of one `call_each` that are under way at once."""

BATCHES_MAX: Final = 16
"""Batches of one `enqueue_each` that are under way at once: the server commits several together."""

BATCHES_MIN: Final = 2
"""How many batches may be sent before the first is answered, whatever their size."""


def gone(operation: Operation[Any]) -> ServerGone:
    """Returns the error of a call whose answer will not come."""
    if operation.changes:
        return ServerGone(
            f"the server went away before it answered {operation.name!r}; the outcome is unknown\n"
            + (
                "Sending the same again is safe."
                if operation is ENQUEUE
                else "`beaver show` or `beaver status` tells what became of it."
            )
        )
    if operation is WAIT:
        return ServerGone(
            "the server went away while its answer was awaited\n"
            "What was enqueued stays so, and runs once a server does; waiting again is safe."
        )
    return ServerGone(f"the server went away before it answered {operation.name!r}")


def left(operation: Operation[Any]) -> ServerLeft:
    """Returns the error of a call that a server which ends has not taken up."""
    return ServerLeft(
        f"the server ended before it took {operation.name!r} up; nothing of it was carried out"
    )


class Client(Operations, Synchronous):
    """A connection to a server.  Get one from `connect`."""

    def __init__(
        self, connection: socket.socket, greeting: Greeting, info: ServerInfo | None = None
    ) -> None:
        self.greeting = greeting
        """The server's greeting."""
        self.info = info
        """The content of `server.json`, if the server was found by its directory."""
        self.process = os.getpid()
        """The process that may use this client: a forked child must open its own connection."""
        self._channel = Channel(connection)

    @property
    def runs_jobs(self) -> bool:
        """A server answers, and not a keeper."""
        return not self.greeting.keeper

    @property
    def closed(self) -> bool:
        """The connection is lost or closed; open a new one."""
        return self._channel.lost

    def notice(self) -> None:
        """Reads what arrived while no call was waiting: the server's farewell."""
        self._channel.notice()

    def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the error that answers it, or `ServerGone`."""
        return self._answer(call, self._channel.ask(call.operation.name, call.body))

    def call_each(self, calls: Iterable[Call[T]], under_way: int = PIPELINE_MAX) -> Iterator[T]:
        """Carries out calls, of which several are under way at once; yields in their order.

        Those are `under_way` at most, and no more jobs, in more than `BATCHES_MIN` batches, than
        a commit may have.

        It raises the first error that answers one; calls that were sent by then are carried out
        all the same.  An error that `calls` itself raises follows the answers to the calls sent.
        """
        sent: deque[tuple[Call[T], PendingAnswer]] = deque()
        jobs = 0
        failure: Exception | None = None
        source = iter(calls)
        while failure is None:
            try:
                call = next(source)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error
                break
            jobs += call.jobs
            while len(sent) >= under_way or (len(sent) >= BATCHES_MIN and jobs > BATCH_JOBS_MAX):
                first, slot = sent.popleft()
                jobs -= first.jobs
                yield self._answer(first, slot)
            sent.append((call, self._channel.ask(call.operation.name, call.body)))
        for first, slot in sent:
            yield self._answer(first, slot)
        if failure is not None:
            raise failure

    def enqueue_each(self, batches: Iterable[Sequence[Request]]) -> Iterator[list[Accepted]]:
        """See `Synchronous`: several batches are under way at once."""
        return self.call_each(map(calls.enqueue, batches), BATCHES_MAX)

    def close(self) -> None:
        """Ends the connection; calls under way get `ServerGone`."""
        self._channel.close()

    def detach(self) -> socket.socket:
        """Gives up the connection, on which nothing may be under way, and returns it."""
        return self._channel.detach()

    def _answer(self, call: Call[T], slot: PendingAnswer) -> T:
        self._channel.wait_for(slot)
        if slot.value is None:
            raise gone(call.operation)
        status, body = slot.value
        if status == framing.FAREWELL:
            raise left(call.operation)
        if status:
            raise framing.decode_error(body)
        return call.finish(call.operation.parse(body))


def connect(data: str | os.PathLike[str]) -> Client:
    """Connects to the server that holds a data directory, or to a `unix:` URL.

    One that starts is waited for.

    Raises:
        NotFound: There is no such directory.
        StoreUnavailable: No server holds it, or it cannot be used.
    """
    path = os.fspath(data)
    client = find(path)
    if client is None and socket_of_url(path) is None:
        client = _find_once_started(path)
    if client is None:
        raise no_server(path)
    return client


def _find_once_started(data: str) -> Client | None:
    from beaver.journal.wal.lock import Patience, phase_of

    patience = Patience(data, endpoint.CONNECT_S)
    while True:
        # Read first: a server that has finished starting can be found.
        starts = phase_of(data) == "starting"
        client = find(data)
        if client is not None or not starts:
            return client
        patience.wait()


def no_server(data: str, then: str = "") -> NoServer:
    """Returns the error that says that no server runs on `data`, or that it is silent.

    Args:
        data: The data directory, or a `unix:` URL.
        then: The consequence, for the message.
    """
    path, then = socket_of_url(data), then and f", {then}"
    if path is not None:
        return NoServer(f"no server listens on {path}{then}")
    from beaver.journal.wal.lock import silent_server

    if pid := silent_server(data):
        return NoServer(
            f"a server (process {pid}) holds {data} but does not answer{then}\n"
            f"Where it was stopped, `kill -CONT {pid}` lets it go on."
        )
    return NoServer(f"no server runs on {data}{then}\n`beaver run --data {data}` starts one.")


def find(data: str | os.PathLike[str]) -> Client | None:
    """Connects as `connect` does; `None` where no server holds the directory."""
    data = os.fspath(data)
    if (path := socket_of_url(data)) is not None:
        found = endpoint.reach_socket(path)
        return None if found is None else Client(*found)
    endpoint.require_directory(data)
    reached = endpoint.reach(data)
    return None if reached is None else Client(*reached)


def socket_of_url(url: str) -> str | None:
    """Returns the path in a `unix:` URL; `None` for a data directory.

    Raises:
        InvalidInput: It is a URL of another kind.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or "/" in scheme or Path(url).exists():
        return None
    if scheme == "unix":
        path = "/" + rest.lstrip("/") if rest.startswith("//") else rest
        size, most = len(os.fsencode(path)), LIMITS["socket_path"].value
        if size > most:
            raise InvalidInput(
                f"{url}: the path of a socket has at most {most} bytes, found {size}; "
                f"{hint('socket_path')}"
            )
        return path
    if scheme in ("http", "https", "nats", "tcp"):
        raise InvalidInput(
            f"{url}: a data directory, a unix: URL, or http://host:port (in Python, or as --url) "
            "is expected"
        )
    return None
