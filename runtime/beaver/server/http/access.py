"""Access control: the names a server answers to, pages of other origins, and tokens.

A page of a stranger in somebody's browser can send requests to this machine.  Two checks stop
it: the `Host` has to be ours (a name of the stranger's that was made to point here is not), and a
change needs an `Origin` of ours, where a browser tells one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import HttpVersion11, web

from beaver.access.roles import ROLES, Right
from beaver.access.tokens import Token, Tokens
from beaver.server.http.problems import Problem

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """Checks requests before anything of them is carried out."""

    def __init__(self, tokens: Tokens, names: Iterable[str]) -> None:
        """Takes who may come.

        Args:
            tokens: The tokens of the store.
            names: The address that is listened on, and other names of this server.
        """
        self._tokens = tokens
        self._names = frozenset({"localhost", *(name.lower().strip("[]") for name in names)})

    def check_host(self, request: web.BaseRequest) -> None:
        """Refuses a request that is meant for somebody else.

        Raises:
            Problem: `Host`, or the `Origin` of a change, is not ours.
        """
        hosts = request.headers.getall("Host", [])
        if not hosts and request.version < HttpVersion11:
            return  # No browser asks so; health checks do.
        if len(hosts) != 1 or not self._is_ours(_host_of(f"//{hosts[0]}"), request):
            raise Problem(
                "forbidden",
                "Host: this server does not answer to that name; --http-host adds names",
            )
        origin = request.headers.get("Origin")
        if origin is None or request.method in _READS:
            return
        if _authority_of(origin) != hosts[0].lower():
            raise Problem("forbidden", "Origin: pages of other origins may not change anything")

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
        scheme, _, secret = told[0].partition(" ") if len(told) == 1 else ("", "", "")
        token = None
        if scheme.lower() == "bearer":
            token = self._tokens.find(secret.strip())
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

    def still_good(self, request: web.BaseRequest, right: Right) -> bool:
        """True where a request that is under way would be let in now."""
        try:
            self.admit(request, right)
        except Problem:
            return False
        return True


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


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _authority_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
