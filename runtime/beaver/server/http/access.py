"""Access control: the names a server answers to, pages of other origins, and tokens.

A page of a stranger in somebody's browser can send requests to this machine.  Two checks stop
it: the `Host` has to be ours (a name of the stranger's that was made to point here is not), and a
change needs an `Origin` of ours, where a browser tells one.  A browser that has signed in tells one
with every change, so there it is demanded.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import HttpVersion11, web

from beaver.access.roles import ROLES, Right
from beaver.access.sessions import Sessions
from beaver.access.tokens import Token, Tokens
from beaver.server.http.problems import Problem

TOKEN: Final = web.RequestKey("token", Token)
"""The token of a request that was let in."""
NOBODY: Final = Token("", "", "")
"""Stands for a token where none is needed."""
COOKIE_BYTES_MAX: Final = 8 << 10
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z_.-]+))(?::[0-9]{1,5})?")
_FOREIGN: Final = frozenset({"cross-site", "same-site"})


class Gate:
    """Checks requests before anything of them is carried out."""

    def __init__(
        self, tokens: Tokens, sessions: Sessions, names: Iterable[str], store: str
    ) -> None:
        """Takes who may come.

        Args:
            tokens: The tokens of the store.
            sessions: Browsers that have signed in.
            names: The address that is listened on, and other names of this server.
            store: Id of the store.
        """
        self.tokens, self.sessions = tokens, sessions
        # Browsers give all ports of a machine the same cookies: each store has its own.
        self.cookie = f"beaver_{store[:12]}"
        self._names = frozenset({"localhost", *(name.lower().strip("[]") for name in names)})

    def check_host(self, request: web.BaseRequest) -> None:
        """Refuses a request that is meant for somebody else.

        Raises:
            Problem: `Host`, or the `Origin` of a change, is not ours.
        """
        hosts = request.headers.getall("Host", [])
        if not hosts and request.version < HttpVersion11:
            return  # No browser asks so; health checks do.
        if len(hosts) != 1 or not self._is_ours(_host_of(hosts[0]), request):
            raise Problem(
                "forbidden",
                "Host: this server does not answer to that name; --http-host adds names",
            )
        if request.method in _READS:
            return
        origins = request.headers.getall("Origin", [])
        if any(_authority_of(origin) != hosts[0].lower() for origin in origins):
            raise Problem("forbidden", "Origin: pages of other origins may not change anything")
        if request.headers.get("Sec-Fetch-Site") in _FOREIGN:
            raise Problem("forbidden", "Sec-Fetch-Site: other sites may not change anything")

    def _is_ours(self, name: str, request: web.BaseRequest) -> bool:
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or name == _own_address(request)

    def admit(self, request: web.BaseRequest, right: Right) -> Token:
        """Returns the token of a request that may do this.

        Raises:
            Problem: There is none that is good, or it has not this right.
            StoreUnavailable: The tokens cannot be read.
        """
        token = self.bearer(request)
        self.require(token, right)
        return token

    def bearer(self, request: web.BaseRequest) -> Token:
        """Returns the token of a request.

        Raises:
            Problem: There is none that is good.
            StoreUnavailable: The tokens cannot be read.
        """
        told = request.headers.getall("Authorization", [])
        if not told and (secret := self.secret_of(request)) is not None:
            return self._signed_in(secret, request)
        scheme, _, secret = told[0].partition(" ") if len(told) == 1 else ("", "", "")
        token = None
        if scheme.lower() == "bearer":
            token = self.tokens.find(secret.strip())
        if token is None:
            what = (
                "this token is not known, was revoked, or has expired" if told else "none is given"
            )
            raise Problem(
                "unauthenticated",
                f"Authorization: a token is needed, and {what}; "
                "`beaver token create` makes one, and the file `token` in the data directory holds "
                "that of its owner",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return token

    def secret_of(self, request: web.BaseRequest) -> str | None:
        """Returns the secret of the session that a request belongs to; `None` without one."""
        if request.headers.get("Authorization") is not None:
            return None
        for header in request.headers.getall("Cookie", []):
            for pair in header[:COOKIE_BYTES_MAX].split(";"):
                name, _, value = pair.strip().partition("=")
                if name == self.cookie:
                    return value
        return None

    def _signed_in(self, secret: str, request: web.BaseRequest) -> Token:
        """Returns the token of a session.

        A browser sends its cookie with whatever a page asks for.  So a change also has to say
        that it comes from our own page, which no other page can.
        """
        found = self.sessions.token_of(secret)
        token = None if found is None else self.tokens.current(found)
        if token is None:
            raise Problem(
                "unauthenticated",
                "Cookie: this session is over; sign in again",
                headers={"WWW-Authenticate": "Bearer"},
            )
        # `check_host` has looked at the origin that is told.
        if (
            request.method not in _READS
            and "Origin" not in request.headers
            and request.headers.get("Sec-Fetch-Site") != "same-origin"
        ):
            raise Problem(
                "forbidden", "Origin: a change by a session has to come from a page of this server"
            )
        return token

    @staticmethod
    def require(token: Token, right: Right) -> None:
        """Refuses what a token has no right to.

        Raises:
            Problem: It has not.
        """
        if right not in ROLES.get(token.role, frozenset()):
            may = ", ".join(role for role, rights in ROLES.items() if right in rights)
            raise Problem(
                "forbidden", f"a token with the role {token.role} may not do this; {may} may"
            )

    def still_good(self, request: web.BaseRequest) -> bool:
        """True where a request that is under way would be let in now."""
        try:
            self.bearer(request)
        except Problem:
            return False
        return True

    def check_again(self, request: web.Request) -> None:
        """Refuses a request whose token has ended since it was let in.

        Raises:
            Problem: It has.
        """
        if TOKEN in request:
            self.bearer(request)


def is_loopback(request: web.BaseRequest) -> bool:
    """True for a client on this machine."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    try:
        return peer is not None and ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback
    except ValueError:
        return False


def _own_address(request: web.BaseRequest) -> str:
    """Returns the address of this machine that a client has connected to."""
    listening = request.transport.get_extra_info("socket") if request.transport else None
    try:
        return str(listening.getsockname()[0]) if listening is not None else ""
    except OSError:
        return ""


def _host_of(host: str) -> str:
    """Returns the name in a `Host`; empty where it is none, or holds anything else."""
    found = _HOST.fullmatch(host)
    return "" if found is None else (found[1] or found[2]).lower()


def _authority_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
