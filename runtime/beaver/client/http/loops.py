"""The client by URL for event loops: calls over aiohttp, which keeps the connections of each loop.

A session belongs to one loop.  `asyncio.run` cancels the task that guards it when it ends, which
closes what nobody closed.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from io import BytesIO
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from beaver.client.calls import Call
from beaver.client.http.address import Address, untrusted
from beaver.client.http.effort import (
    CONNECT_S,
    CROWD_S,
    SILENCE_S,
    Effort,
    Later,
    Lost,
    Unreached,
)
from beaver.client.http.messages import JSON, Answer, Ask
from beaver.client.http.pool import CONNECTIONS_MAX, POLLS_MAX, HttpClient
from beaver.client.http.wire import ANSWER_BYTES_MAX, IDLE_S, said

T = TypeVar("T")

LARGE_BYTES: Final = 256 << 10

_inherited: Final[list[object]] = []
"""What a forked child has got from its parent, and may neither use nor end."""


class Sessions:
    """What asks the server of a blocking client from event loops."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Session] = (
            weakref.WeakKeyDictionary()
        )

    async def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        client, session = self._client, self._session()
        credentials = client.credentials
        effort = Effort(call, client.address.url, time.monotonic(), client.timeout_s)
        renewed = False
        while True:
            poll = effort.waits and session.polls < POLLS_MAX
            session.polls += poll
            token = credentials.token()
            pause_s = 0.0
            try:
                asked, until_s = effort.next(time.monotonic(), poll=poll)
                answer = await session.exchange(asked, token, until_s)
            except Unreached as error:
                pause_s = effort.unreached(error, time.monotonic())
            except Lost as error:
                pause_s = effort.lost(error, time.monotonic())
            else:
                if answer.status == 401 and not renewed and credentials.renewed():
                    renewed = True
                    continue
                try:
                    return effort.answered(answer, time.monotonic(), authorised=bool(token))
                except Later as later:
                    pause_s = later.pause_s if poll or not effort.waits else CROWD_S
            finally:
                session.polls -= poll
            await asyncio.sleep(pause_s)

    def _session(self) -> _Session:
        loop = asyncio.get_running_loop()
        session = self._of_loop.get(loop)
        if session is None or session.closed:
            session = self._of_loop[loop] = _Session(self._client.address, self._client.context)
        return session

    def abandon(self) -> None:
        """Lets go of every session in a forked child."""
        for session in self._of_loop.values():
            session.abandon()
        self._of_loop = weakref.WeakKeyDictionary()

    async def close(self) -> None:
        """Ends the connections of this loop; a later call opens new ones."""
        session = self._of_loop.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()


class _Session:
    """The connections of one loop."""

    def __init__(self, address: Address, context: object) -> None:
        self._address = address
        self.polls = 0
        """Long polls under way."""
        connector = aiohttp.TCPConnector(
            limit=CONNECTIONS_MAX,
            keepalive_timeout=IDLE_S,
            ssl=context if context is not None else True,  # type: ignore[arg-type]
        )
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )
        self._guard = asyncio.get_running_loop().create_task(self._end_with_loop())

    async def _end_with_loop(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self._session.close()

    @property
    def closed(self) -> bool:
        return self._session.closed

    async def close(self) -> None:
        self._guard.cancel()
        await asyncio.wait((self._guard,))

    def abandon(self) -> None:
        """Lets go of it in a forked child: the connections are the parent's."""
        _inherited.append(self._session.connector)
        self._session.detach()

    async def exchange(self, asked: Ask, token: str, until_s: float) -> Answer:
        """Sends one request, once; returns its answer, whatever that says.

        Raises:
            Unreached: Nothing was sent.
            Lost: The answer will not come.
            StoreUnavailable: TLS does not trust who answers.
        """
        address = self._address
        whole = URL(f"{address.origin}{address.prefix}{asked.path}", encoded=True)
        headers = {"Accept": JSON, "Host": address.host_header}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        body: bytes | BytesIO | None = None
        if asked.body or asked.method != "GET":
            # A large one is written in pieces, so that the loop serves others meanwhile.
            body = asked.body if len(asked.body) < LARGE_BYTES else BytesIO(asked.body)
            headers["Content-Type"] = JSON
        timeout = aiohttp.ClientTimeout(
            total=max(0.001, until_s - time.monotonic()),
            sock_connect=CONNECT_S,
            sock_read=asked.hold_s + SILENCE_S,
        )
        try:
            async with self._session.request(
                asked.method,
                whole,
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                content = bytearray()
                async for piece in response.content.iter_any():
                    content += piece
                    if len(content) > ANSWER_BYTES_MAX:
                        raise Lost(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
                told = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, told, bytes(content))
        except aiohttp.ClientConnectorCertificateError as error:
            raise untrusted(address, _verify_message(error)) from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreached(said(getattr(error, "os_error", None) or error)) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Lost(said(error)) from None


def _verify_message(error: aiohttp.ClientConnectorCertificateError) -> object:
    inner = error.certificate_error
    return getattr(inner, "verify_message", None) or inner
