"""The connection of an application to its store, across restarts of whatever serves it.

Each call goes to the server or the keeper that runs now or, with none, to the files
(`embedded`).  A server that dies before it answers is looked for again for a while, and what
may be sent twice is sent again; what it says it has not taken up is sent again in any case:
requests carry ids drawn before the first sending, so nothing is enqueued twice.

The builders of calls stand once (`calls`, `api`); `blocking` and `awaited` make
the two methods of each from it.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar

from beaver.client.blocking import Client, find, no_server, socket_of_url
from beaver.client.calls import Call
from beaver.client.connection import Connection
from beaver.errors import NoServer, NotFound, ServerGone, ServerLeft, WaitTimeout
from beaver.request.operations import WAIT, Wait

if TYPE_CHECKING:
    import asyncio

    from beaver.client.asynchronous import AsyncClient
    from beaver.client.embedded import EmbeddedClient

T = TypeVar("T")
P = ParamSpec("P")

RESTART_S: Final = 10.0
"""How long a client looks for a server that went away."""
_POLL_S: Final = 0.05


class ReconnectingClient(Connection):
    """Carries out calls on the store of an application, from any thread or event loop."""

    def __init__(self, store: str) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._embedded: tuple[int, EmbeddedClient | None] = (0, None)
        """The client without a server, and the process that it belongs to."""
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopConnection] = (
            weakref.WeakKeyDictionary()
        )
        self._last_loop: tuple[weakref.ref[asyncio.AbstractEventLoop], _LoopConnection] | None = (
            None
        )
        """The last loop looked up: mostly there is only one."""
        socket_of_url(store)  # Refuses a URL that cannot be reached at all.

    def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        if self.instead is not None:
            return self.instead.call(call)
        started_s = time.monotonic()
        client = self._client
        if client is None or client.closed or client.process != os.getpid():
            return self._persist(_Effort(call, started_s))
        try:
            return client.call(call)
        except (ServerGone, NoServer) as error:
            return self._persist(_Effort(call, started_s), error)

    def _persist(self, effort: _Effort[T], error: ServerGone | NoServer | None = None) -> T:
        """Carries out a call without an open connection, or after the first try lost it."""
        while True:
            if error is not None:
                effort.lost(error)
            if isinstance(error, NoServer):
                while not _runs_jobs(self._find()) and not effort.overdue:
                    time.sleep(_POLL_S)
                effort.overdue_for(error)
            try:
                found = self._find()
                if found is not None:
                    return found.call(effort.remaining())
                return _within(effort.left_s, self._without, effort.remaining())
            except TimeoutError:
                raise effort.too_late() from None
            except (ServerGone, NoServer) as again:
                error = again

    async def acall(self, call: Call[T]) -> T:
        """Carries out one call without holding up the event loop."""
        if self.instead is not None:
            return self.instead.call(call)
        connection = self._of_this_loop()
        started_s = time.monotonic()
        client = connection.client
        if client is None or client.closed:
            return await self._apersist(connection, _Effort(call, started_s))
        try:
            return await client.call(call)
        except (ServerGone, NoServer) as error:
            return await self._apersist(connection, _Effort(call, started_s), error)

    async def _apersist(
        self,
        connection: _LoopConnection,
        effort: _Effort[T],
        error: ServerGone | NoServer | None = None,
    ) -> T:
        """The same as `_persist`."""
        import asyncio

        while True:
            if error is not None:
                effort.lost(error)
            if isinstance(error, NoServer):
                # A server is another process: nothing but looking tells that it is there.
                while not _runs_jobs(await connection.find()) and not effort.overdue:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
                effort.overdue_for(error)
            try:
                found = await connection.find()
                if found is not None:
                    return await found.call(effort.remaining())
                reading = asyncio.to_thread(self._without, effort.remaining())
                return await asyncio.wait_for(reading, effort.left_s)
            except TimeoutError:
                raise effort.too_late() from None
            except (ServerGone, NoServer) as again:
                error = again

    def close(self) -> None:
        """Ends the connection of the blocking calls; the next call opens a new one."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    async def aclose(self) -> None:
        """Ends the connection of this event loop as well."""
        connection = self._of_this_loop()
        if connection.client is not None:
            await connection.client.aclose()
        self.close()

    def begin_anew(self) -> None:
        """Replaces the lock in a forked child, where the thread that held it does not exist."""
        self._lock = threading.Lock()

    def _find(self) -> Client | None:
        """Returns the connection to the server; a lost or inherited one is replaced."""
        with self._lock:
            found = self._client
            if found is not None and found.greeting.keeper and found.process == os.getpid():
                found.notice()  # It ends when it has not been needed for a while.
            if found is None or found.closed or found.process != os.getpid():
                if found is not None and found.process == os.getpid():
                    found.close()
                try:
                    found = self._client = find(self.store)
                except NotFound:
                    found = self._client = None
            return found

    def _without(self, call: Call[T]) -> T:
        """Carries out a call on the files, since nobody served the store a moment ago."""
        from beaver.client.embedded import EmbeddedClient

        if socket_of_url(self.store) is not None:
            raise no_server(self.store)
        process, embedded = self._embedded
        if embedded is None or process != os.getpid():
            embedded = EmbeddedClient(self.store)
            self._embedded = (os.getpid(), embedded)
        try:
            return embedded.call(call)
        finally:
            # A server or keeper found meanwhile gets the next call directly.
            kept = embedded.detach()
            if kept is not None:
                with self._lock:
                    self._client = kept

    def _of_this_loop(self) -> _LoopConnection:
        from asyncio import get_running_loop

        loop = get_running_loop()
        last = self._last_loop
        if last is not None and last[0]() is loop:
            return last[1]
        connection = self._loops.get(loop)
        if connection is None:
            connection = self._loops[loop] = _LoopConnection(self.store)
        self._last_loop = weakref.ref(loop), connection
        return connection


class _LoopConnection:
    """The connection of one event loop."""

    def __init__(self, store: str) -> None:
        import asyncio

        self._store = store
        self._lock = asyncio.Lock()
        self.client: AsyncClient | None = None

    async def find(self) -> AsyncClient | None:
        from beaver.client import asynchronous

        if self.client is not None and not self.client.closed:
            return self.client
        async with self._lock:
            if self.client is None or self.client.closed:
                try:
                    self.client = await asynchronous.find(self._store)
                except NotFound:
                    self.client = None
            return self.client


def _runs_jobs(found: Client | AsyncClient | None) -> bool:
    """True of a connection to a server, and not to a keeper."""
    return found is not None and not found.greeting.keeper


def _within(limit_s: float | None, work: Callable[[Call[T]], T], call: Call[T]) -> T:
    """Returns what `work` does, unless that takes longer: then a `TimeoutError` is raised.

    Reading a large store takes seconds, and a wait may have less.
    """
    if limit_s is None:
        return work(call)
    from concurrent.futures import Future

    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work(call))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)

    threading.Thread(target=run, name="beaver-reading", daemon=True).start()
    return done.result(limit_s)


class _Effort(Generic[T]):
    """One call, carried through restarts of the server: what to send, and until when."""

    def __init__(self, call: Call[T], started_s: float) -> None:
        """`started_s` is when the call was made, and was sent first."""
        self._call = call
        self._sent_s = self._started_s = started_s
        self._limit_s: float | None = None
        """Length of a `wait` that has one."""
        if call.operation is WAIT and call.body.timeout_ms >= 0:
            self._limit_s = call.body.timeout_ms / 1000
        self._until_s = float("inf")
        self._may_wait = call.operation is WAIT
        """True where the call waits for a server that is not there yet; it always waits for one
        that was."""

    @property
    def overdue(self) -> bool:
        return time.monotonic() >= self._until_s

    def remaining(self) -> Call[T]:
        """Returns the call to send now, with what is left of its time."""
        self._sent_s = time.monotonic()
        if self._limit_s is None:
            return self._call
        call, left_s = self._call, self._started_s + self._limit_s - self._sent_s
        body = Wait(call.body.job, max(0, round(left_s * 1000)))
        return Call(call.operation, body, call.finish)

    @property
    def left_s(self) -> float | None:
        """The remaining time of a `wait` with a limit."""
        if self._limit_s is None:
            return None
        return max(0.0, self._started_s + self._limit_s - time.monotonic())

    def too_late(self) -> WaitTimeout:
        """Returns the error of a wait whose time is over."""
        job, waited_s = self._call.body.job, self._limit_s or 0.0
        return WaitTimeout(
            f"job {job} has not ended after {waited_s:g} s, and no server runs that could run it"
        )

    def overdue_for(self, error: NoServer) -> None:
        """Raises once no server has come up for long enough."""
        if self.overdue:
            raise error if self._limit_s is None else self.too_late() from error

    def lost(self, error: ServerGone | NoServer) -> None:
        """Notes that no server answered; raises where the call is not to be tried again."""
        now_s = time.monotonic()
        self._may_wait = self._may_wait or isinstance(error, ServerGone)
        if self.left_s == 0.0:
            raise self.too_late() from error
        may_resend = self._call.operation.resend or isinstance(error, ServerLeft)
        if not may_resend or not self._may_wait or now_s >= self._until_s:
            raise error
        if self._until_s == float("inf") or now_s - self._sent_s > RESTART_S:
            # The first loss, or one after a long time of being served.
            self._until_s = now_s + RESTART_S
        if self._limit_s is not None:
            self._until_s = min(self._until_s, self._started_s + self._limit_s)


# -- two methods from one builder ------------------------------------------------------------


class HasConnection:
    """An object with a connection, for the methods made below."""

    __slots__ = ()

    connection: Connection


L = TypeVar("L", bound=HasConnection)


def blocking(
    build: Callable[Concatenate[L, P], Call[T]],
) -> Callable[Concatenate[L, P], T]:
    """Makes a method that blocks until the call of `build` is carried out."""

    def method(self: L, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.connection.call(build(self, *args, **kwargs))

    return _shown_as(method, build, "")


def awaited(
    build: Callable[Concatenate[L, P], Call[T]],
) -> Callable[Concatenate[L, P], Coroutine[Any, Any, T]]:
    """Makes a method that is awaited; otherwise as `blocking`."""

    async def method(self: L, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.connection.acall(build(self, *args, **kwargs))

    return _shown_as(method, build, "a")


F = TypeVar("F", bound=Callable[..., Any])


def _shown_as(method: F, build: Callable[..., Any], prefix: str) -> F:
    """Gives a method the name, the text and the signature of its builder.

    The signature that `inspect` and editors show is found by `__wrapped__`: a copy of the
    builder that returns what the method does, and not a `Call` of it.
    """
    assert isinstance(build, FunctionType)
    assert isinstance(method, FunctionType)
    shown = FunctionType(
        build.__code__, build.__globals__, build.__name__, build.__defaults__, build.__closure__
    )
    returned = build.__annotations__.get("return", "Any")
    shown.__kwdefaults__ = build.__kwdefaults__
    shown.__annotations__ = {
        **build.__annotations__,
        "return": returned.removeprefix("Call[").removesuffix("]"),
    }
    method.__name__ = prefix + build.__name__.removeprefix("_")
    scope, dot, _ = build.__qualname__.rpartition(".")
    method.__qualname__ = scope + dot + method.__name__
    method.__module__, method.__doc__ = build.__module__, build.__doc__
    method.__wrapped__ = shown  # type: ignore[attr-defined]
    if "__signature__" in vars(build):
        signature = vars(build)["__signature__"]
        returned = shown.__annotations__["return"]
        shown.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
    return method
