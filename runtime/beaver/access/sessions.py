"""Sessions: browsers that have signed in with a token.

They end with their token: a session is only a shorter way to say it.  What is kept of one is its
digest, in `sessions.json` (0600), so that a restart of the server signs nobody out.  The file
is not synced: after a power cut somebody may have to sign in again.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from pathlib import Path
from typing import Final

import msgspec

from beaver.ports import Clock, Entropy
from beaver.system.regular import create_regular, read_regular

FILE_NAME: Final = "sessions.json"
FILE_BYTES_MAX: Final = 1 << 20
SESSION_S: Final = 12 * 3_600
"""Seconds after which a browser has to sign in again."""
SESSIONS_MAX: Final = 1_000
"""Browsers signed in at once; the one that came first has to sign in again then."""
TOKEN_SESSIONS_MAX: Final = 64
"""Browsers signed in with one token at once."""
_SECRET_BYTES: Final = 32

log: Final = logging.getLogger("beaver.http")


class _Session(msgspec.Struct, frozen=True):
    token: str
    """Id of the token."""
    ends_ms: int


_decode: Final = msgspec.json.Decoder(dict[str, _Session]).decode


class Sessions:
    """The sessions of one server."""

    def __init__(self, data: str, clock: Clock, entropy: Entropy) -> None:
        self._path = Path(data, FILE_NAME)
        self._clock, self._entropy = clock, entropy
        self._by_digest = self._read()
        """Those that began first come first."""

    def begin(self, token: str) -> str:
        """Returns the secret of a new session of the token with this id."""
        now_ms = self._clock.wall_ms()
        for digest, session in list(self._by_digest.items()):
            if session.ends_ms > now_ms:
                break
            del self._by_digest[digest]
        own = [digest for digest, one in self._by_digest.items() if one.token == token]
        if len(own) >= TOKEN_SESSIONS_MAX:
            del self._by_digest[own[0]]
        elif len(self._by_digest) >= SESSIONS_MAX:
            del self._by_digest[next(iter(self._by_digest))]
        drawn = base64.urlsafe_b64encode(self._entropy.token_bytes(_SECRET_BYTES)).rstrip(b"=")
        secret = drawn.decode()
        self._by_digest[_digest(secret)] = _Session(token, now_ms + SESSION_S * 1_000)
        self._write()
        return secret

    def token_of(self, secret: str) -> str | None:
        """Returns the id of the token whose session this is; `None` where it is none, or over."""
        session = self._by_digest.get(_digest(secret))
        if session is None or session.ends_ms <= self._clock.wall_ms():
            return None
        return session.token

    def end(self, secret: str) -> None:
        """Ends a session, if there is such a one."""
        if self._by_digest.pop(_digest(secret), None) is not None:
            self._write()

    def _read(self) -> dict[str, _Session]:
        try:
            return _decode(read_regular(str(self._path), FILE_BYTES_MAX, trusted=True))
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("%s cannot be read, so all browsers sign in again: %s", self._path, error)
            return {}

    def _write(self) -> None:
        fresh = f"{self._path}.new"
        try:
            with create_regular(fresh) as file:
                file.write(msgspec.json.encode(self._by_digest))
            os.replace(fresh, self._path)  # noqa: PTH105
        except OSError as error:
            log.warning("%s: sessions will not outlive the server: %s", self._path, error.strerror)


def _digest(secret: str) -> str:
    # Looked up by its digest, a secret tells nothing of itself by the time that it takes.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
