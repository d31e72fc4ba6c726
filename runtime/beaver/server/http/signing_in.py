"""Sessions over HTTP: how a browser signs in and out.

A page holds no token: it gives it once, or the secret of a link, and gets a cookie that scripts
cannot read and that no other site's requests carry.  The cookie is bound to the path of the API
that the browser sees, also where a proxy has it below a prefix.

What may not live here: who is let in (`access`).
"""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import urlsplit

import msgspec

from beaver.access import links
from beaver.access.roles import Right
from beaver.access.sessions import SESSION_S
from beaver.access.tokens import Token
from beaver.server.http.problems import Problem
from beaver.server.http.routing import Body, HttpCall, NoBody, Reply, Route
from beaver.text.foreign import printable

BODY_BYTES_MAX: Final = 8 << 10
SECRET_CHARS_MAX: Final = 1_024

log: Final = logging.getLogger("beaver.http")


class SignIn(Body):
    """What a browser signs in with: one of both."""

    token: str = ""
    link: str = ""
    """The secret behind `#link=` in what `beaver ui` prints."""


class Bearer(msgspec.Struct, omit_defaults=True):
    """Who one is."""

    id: str
    """Of the token."""
    role: str
    name: str = ""
    queues: tuple[str, ...] = ()
    """The only ones that it may use; empty for all."""
    expires_ms: int = 0
    """0 for never."""


class SignedOut(msgspec.Struct):
    """What has become of a session."""

    ended: bool
    """False where the request came with a token and not with a session."""


def _bearer(token: Token) -> Bearer:
    return Bearer(token.id, token.role, token.name, token.queues, token.expires_ms)


async def _sign_in(call: HttpCall) -> Reply:
    asked = await call.body(SignIn, BODY_BYTES_MAX)
    if bool(asked.token) == bool(asked.link):
        raise Problem("invalid", "token, link: exactly one of them is expected")
    gate, served = call.site.gate, call.site.served
    token = None
    if asked.token:
        token = gate.tokens.find(asked.token)
        what = "token: it is not known, was revoked, or has expired"
    else:
        found = links.take(served.data, asked.link, served.clock.wall_ms())
        token = None if found is None else gate.tokens.current(found)
        what = (
            f"link: it is not known, was used, or is older than {links.LINK_S} s; "
            "`beaver ui` makes another one"
        )
    if token is None:
        raise Problem("unauthenticated", what, headers={"WWW-Authenticate": "Bearer"})
    secret = gate.sessions.begin(token.id)
    log.info("%s has signed in from %s", printable(token.by), call.request.remote)
    secure = call.request.secure or _scheme_of(call.request.headers.get("Origin", "")) == "https"
    cookie = _cookie(f"{gate.cookie}={secret}", SESSION_S, secure=secure)
    seq = call.site.engine.durable_seq
    return Reply(_bearer(token), seq, 201, {"Set-Cookie": cookie, "Cache-Control": "no-store"})


async def _who(call: HttpCall) -> Reply:
    return Reply(_bearer(call.token), call.site.engine.durable_seq)


async def _sign_out(call: HttpCall) -> Reply:
    await call.body(NoBody, BODY_BYTES_MAX)
    gate, seq = call.site.gate, call.site.engine.durable_seq
    secret = gate.secret_of(call.request)
    if secret is None:
        return Reply(SignedOut(ended=False), seq)
    gate.sessions.end(secret)
    return Reply(SignedOut(ended=True), seq, 200, {"Set-Cookie": _cookie(f"{gate.cookie}=", 0)})


def _cookie(pair: str, seconds: int, *, secure: bool = False) -> str:
    # No path: a browser then takes that of the API, as it sees it.
    secured = "; Secure" if secure else ""
    return f"{pair}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secured}"


def _scheme_of(origin: str) -> str:
    """Returns the scheme of a page; behind a proxy that speaks TLS it is not ours."""
    try:
        return urlsplit(origin).scheme.lower()
    except ValueError:
        return ""


_CHANGE: Final = ("unsupported_media_type", "too_large")

ROUTES: Final = (
    Route(
        "POST", "/v1/session", Right.ANYONE, _sign_in,
        "Sign in a browser with a token or a link; answers with a cookie", {201: Bearer},
        body=SignIn, problems=_CHANGE,
    ),
    Route(
        "GET", "/v1/session", Right.SELF, _who, "Who one is: role and queues of the token",
        {200: Bearer},
    ),
    Route(
        "DELETE", "/v1/session", Right.SELF, _sign_out, "Sign out a browser", {200: SignedOut},
        body=NoBody, problems=_CHANGE,
    ),
)  # fmt: skip
