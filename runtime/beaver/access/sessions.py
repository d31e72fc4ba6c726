"""Sessions: browsers that have signed in with a token.

They live as long as the server at most, and end with their token: a session is only a shorter
way to say it.  What is kept of one is its digest.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final, NamedTuple

from beaver.ports import Clock, Entropy

SESSION_S: Final = 12 * 3_600
"""Seconds after which a browser has to sign in again."""
SESSIONS_MAX: Final = 1_000
"""Browsers signed in at once; the one that came first has to sign in again then."""
TOKEN_SESSIONS_MAX: Final = 64
"""Browsers signed in with one token at once."""
_SECRET_BYTES: Final = 32


class _Session(NamedTuple):
    token: str
    """Id of the token."""
    ends_ns: int


class Sessions:
    """The sessions of one server."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock, self._entropy = clock, entropy
        self._by_digest: dict[str, _Session] = {}
        """Those that began first come first."""

    def begin(self, token: str) -> str:
        """Returns the secret of a new session of the token with this id."""
        now_ns = self._clock.monotonic_ns()
        for digest, session in list(self._by_digest.items()):
            if session.ends_ns > now_ns:
                break
            del self._by_digest[digest]
        own = [digest for digest, one in self._by_digest.items() if one.token == token]
        if len(own) >= TOKEN_SESSIONS_MAX:
            del self._by_digest[own[0]]
        elif len(self._by_digest) >= SESSIONS_MAX:
            del self._by_digest[next(iter(self._by_digest))]
        drawn = base64.urlsafe_b64encode(self._entropy.token_bytes(_SECRET_BYTES)).rstrip(b"=")
        secret = drawn.decode()
        self._by_digest[_digest(secret)] = _Session(token, now_ns + SESSION_S * 1_000_000_000)
        return secret

    def token_of(self, secret: str) -> str | None:
        """Returns the id of the token whose session this is; `None` where it is none, or over."""
        session = self._by_digest.get(_digest(secret))
        if session is None or session.ends_ns <= self._clock.monotonic_ns():
            return None
        return session.token

    def end(self, secret: str) -> None:
        """Ends a session, if there is such a one."""
        self._by_digest.pop(_digest(secret), None)


def _digest(secret: str) -> str:
    # Looked up by its digest, a secret tells nothing of itself by the time that it takes.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
