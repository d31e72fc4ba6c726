"""A connection that blocks: one request at a time, each with a moment by which it is over.

The standard library reads the answers (`http.client.HTTPResponse`); requests are written here in
one piece.  The limit holds for all of an exchange, however slowly its bytes come.

What may not live here: whether something is sent again.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

from beaver.client.http.address import Address, untrusted
from beaver.client.http.effort import CONNECT_S, SILENCE_S, Lost, Unreached
from beaver.client.http.messages import JSON, Answer, Ask

ANSWER_BYTES_MAX: Final = 256 << 20
"""A longer answer is none of Beaver's."""
IDLE_S: Final = 20.0
"""A connection that was idle for longer is not used again: the server is about to end it."""


class _Timed:
    """A socket that reads and writes no longer than until a moment, and closes by itself.

    Applications live as long as their process and are closed by nobody.
    """

    until_s: float = float("inf")
    silence_s: float = SILENCE_S
    """How long nothing may come."""
    settimeout: Any

    def _limit(self) -> None:
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no answer in time")
        self.settimeout(min(left_s, self.silence_s))

    def __del__(self) -> None:
        self.close()  # type: ignore[attr-defined]


class _Socket(_Timed, socket.socket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._limit()
        return socket.socket.recv_into(self, *args, **kwargs)


class _SecureSocket(_Timed, ssl.SSLSocket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._limit()
        return ssl.SSLSocket.recv_into(self, *args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._limit()
        return ssl.SSLSocket.send(self, *args, **kwargs)


def timed(context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Has a context make sockets that keep to a limit."""
    if context is not None:
        context.sslsocket_class = _SecureSocket
    return context


class Wire:
    """One connection."""

    def __init__(self, address: Address, context: ssl.SSLContext | None, until_s: float) -> None:
        """Connects.

        Raises:
            Unreached: Nobody is there, or not in time.
            StoreUnavailable: It is somebody who is not trusted.
        """
        self._address = address
        limit_s = min(CONNECT_S, until_s - time.monotonic())
        if limit_s <= 0:
            raise Unreached("no connection in time")
        try:
            plain = socket.create_connection((address.host, address.port), limit_s)
        except OSError as error:
            raise Unreached(said(error)) from None
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket: _Socket | _SecureSocket
        if context is None:
            self._socket = _Socket(fileno=plain.detach())
        else:
            self._socket = self._secured(plain, context)
        self.used_s = time.monotonic()
        self._head = f"Host: {address.host_header}\r\nAccept: application/json\r\n"

    def _secured(self, plain: socket.socket, context: ssl.SSLContext) -> _SecureSocket:
        try:
            secure = context.wrap_socket(plain, server_hostname=self._address.host)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise untrusted(self._address, error.verify_message) from None
        except (OSError, ValueError) as error:
            plain.close()
            plainly = getattr(error, "reason", "") in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")
            hint = "; it may speak plain http://" if plainly else ""
            raise Unreached(f"TLS: {said(error)}{hint}") from None
        assert isinstance(secure, _SecureSocket)
        return secure

    @property
    def usable(self) -> bool:
        """False where the server has ended it, or will soon."""
        if time.monotonic() - self.used_s > IDLE_S:
            return False
        # Nothing may come before something was asked: what does is the end.
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLIN)
            return not poll.poll(0)
        except (OSError, ValueError):
            return False

    def exchange(self, asked: Ask, token: str, until_s: float) -> tuple[Answer, bool]:
        """Sends a request; returns its answer, and whether the connection can be used again.

        Raises:
            Lost: The answer will not come.
        """
        sock = self._socket
        sock.until_s, sock.silence_s = until_s, asked.hold_s + SILENCE_S
        try:
            sock.settimeout(max(0.001, until_s - time.monotonic()))
            sock.sendall(self._request(asked, token))
            response = HTTPResponse(sock, method=asked.method)
            try:
                response.begin()
                body = response.read(ANSWER_BYTES_MAX + 1)
                if len(body) > ANSWER_BYTES_MAX:
                    raise Lost(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
                # The library takes a head or a body that is cut off for a whole one.
                if response.length or (response.length is None and not response.chunked):
                    raise Lost("the answer was cut off")
            finally:
                response.close()
        except (OSError, HTTPException, ValueError) as error:
            raise Lost(said(error)) from None
        headers = {name.lower(): value for name, value in response.getheaders()}
        self.used_s = time.monotonic()
        return Answer(response.status, headers, body), not response.will_close

    def _request(self, asked: Ask, token: str) -> bytes:
        head = f"{asked.method} {self._address.prefix}{asked.path} HTTP/1.1\r\n{self._head}"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if asked.body or asked.method != "GET":
            head += f"Content-Type: {JSON}\r\nContent-Length: {len(asked.body)}\r\n"
        return head.encode("ascii") + b"\r\n" + asked.body

    def close(self) -> None:
        """Ends the connection.  A copy in another process is not touched."""
        self._socket.close()


def said(error: Exception) -> str:
    """Returns what went wrong, in one line."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).partition("\n")[0]
