"""Links: one sign-in of the store's own user, without a token to type.

A link is a file in the data directory, named by the digest of its secret, so that whoever can read
the directory later learns nothing.  The server takes it by removing it: so it is good once, even
where two ask at once, or the server is killed meanwhile.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec

from beaver.errors import StoreUnavailable
from beaver.ports import Entropy
from beaver.system.regular import create_regular, read_regular

FOLDER: Final = "links"
LINK_S: Final = 60
"""Seconds for which a link is good."""
_SECRET_BYTES: Final = 32
_FILE_BYTES_MAX: Final = 1_024


class _Link(msgspec.Struct):
    token: str
    """Id of the token whose session it begins."""
    expires_ms: int


_decode: Final = msgspec.json.Decoder(_Link).decode


def create(data: str, token: str, now_ms: int, entropy: Entropy) -> str:
    """Makes a link of the token with this id; returns its secret.  Links that are over go.

    Raises:
        StoreUnavailable: The data directory cannot be used.
    """
    secret = base64.urlsafe_b64encode(entropy.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode()
    folder = Path(data, FOLDER)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for path in folder.iterdir():
            if _read(path, now_ms) is None:
                path.unlink(missing_ok=True)
        with create_regular(str(_path(data, secret))) as file:
            file.write(msgspec.json.encode(_Link(token, now_ms + LINK_S * 1_000)))
    except OSError as error:
        raise StoreUnavailable(f"cannot use {folder}: {error.strerror or error}") from error
    return secret


def take(data: str, secret: str, now_ms: int) -> str | None:
    """Uses a link up; returns the id of its token, or `None` where it is none, or was used."""
    path = _path(data, secret)
    link = _read(path, now_ms)
    try:
        path.unlink()
    except OSError:
        return None  # Somebody else was first; or it cannot be made sure that nobody will follow.
    return None if link is None else link.token


def _path(data: str, secret: str) -> Path:
    return Path(data, FOLDER, hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest())


def _read(path: Path, now_ms: int) -> _Link | None:
    """Returns a link that is good."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        link = _decode(read_regular(os.fspath(path), _FILE_BYTES_MAX, trusted=True))
        if now_ms < link.expires_ms <= now_ms + LINK_S * 1_000:
            return link
    return None
