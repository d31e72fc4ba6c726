"""Tokens: who may use HTTP, in one file of the store that holds no token itself.

`tokens.json` (0600) has the SHA-256 of each, which says enough since a token is 32 random bytes.
The first start of a server makes one with the role `admin` and leaves it in `token` (0600), where
the store's own user finds it.

Whoever changes the file replaces it as a whole, under a lock, and syncs it:
what was revoked stays so after a power cut.  A running server looks whether it was replaced
(`Tokens.find`), so a change needs no server, and acts within `STALE_S`.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from beaver.access.roles import ROLES
from beaver.errors import InvalidInput, NotFound, StoreUnavailable
from beaver.limits import LIMITS, hint
from beaver.ports import Clock, Entropy
from beaver.system.regular import open_regular, read_regular
from beaver.text.names import check_name
from beaver.text.near import unknown_name

FILE_NAME: Final = "tokens.json"
ADMIN_NAME: Final = "token"
LOCK_NAME: Final = "tokens.lock"
ADMIN: Final = "local"
"""Name of the token in `token`."""
PREFIX: Final = "beaver_"
"""Lets secret scanners recognise a token."""
SECRET_BYTES: Final = 32
STALE_S: Final = 0.5
"""Seconds for which a server trusts its copy of the file."""
TOKENS_MAX: Final = LIMITS["tokens"].value
FILE_BYTES_MAX: Final = 16 << 20
QUEUES_MAX: Final = 100
"""Queues that one token may name."""


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a token."""

    id: str
    role: str
    digest: str
    """SHA-256 of the token, in hex."""
    name: str = ""
    queues: tuple[str, ...] = ()
    """With the role `produce`: the only ones that it may use."""
    created_ms: int = 0
    expires_ms: int = 0
    """0 for never."""

    @property
    def by(self) -> str:
        """How the log names its bearer; see `beaver_model.events.By`."""
        return f"token:{self.id}:{self.name}" if self.name else f"token:{self.id}"


class _File(msgspec.Struct):
    tokens: list[Token] = []


_decode: Final = msgspec.json.Decoder(_File).decode


# -- changing them ---------------------------------------------------------------------------------


def create(
    data: str,
    role: str,
    *,
    now_ms: int,
    entropy: Entropy,
    name: str = "",
    expires_ms: int = 0,
    queues: tuple[str, ...] = (),
) -> tuple[Token, str]:
    """Makes a token; returns what is kept of it, and the token itself, which is shown once.

    Args:
        data: The data directory.
        role: One of `ROLES`.
        now_ms: The time, in ms since the epoch.
        entropy: Where the token is drawn from.
        name: What people call it; no two have one name.
        expires_ms: When it ends, in ms since the epoch; 0 for never.
        queues: With the role `produce`: the only ones it may use.

    Raises:
        InvalidInput: A value is wrong, or there are too many tokens.
        StoreUnavailable: The file cannot be used.
    """
    if role not in ROLES:
        hint_ = unknown_name(role, tuple(ROLES))
        raise InvalidInput(f"no role {role!r:.80}; the roles are {', '.join(ROLES)}{hint_}")
    if name:
        check_name(name, "name")
    if queues and role != "produce":
        raise InvalidInput("queues: only a token with the role produce can be bound to queues")
    if len(queues) > QUEUES_MAX:
        raise InvalidInput(f"queues: at most {QUEUES_MAX} can be named, found {len(queues)}")
    for queue in queues:
        check_name(queue, "queue")
    token, secret = _draw(entropy, role, now_ms, name, expires_ms, tuple(dict.fromkeys(queues)))
    with _changing(data) as tokens:
        # Who has expired makes room, and gives back the name.
        tokens[:] = [old for old in tokens if not _is_over(old, now_ms)]
        if name and any(old.name == name for old in tokens):
            raise InvalidInput(f"there is a token named {name}; revoke it, or choose another name")
        if len(tokens) >= TOKENS_MAX:
            raise InvalidInput(
                f"a store has at most {TOKENS_MAX} tokens, revoke some; {hint('tokens')}"
            )
        tokens.append(token)
    return token, secret


def _draw(
    entropy: Entropy,
    role: str,
    now_ms: int,
    name: str = "",
    expires_ms: int = 0,
    queues: tuple[str, ...] = (),
) -> tuple[Token, str]:
    drawn = base64.urlsafe_b64encode(entropy.token_bytes(SECRET_BYTES)).rstrip(b"=")
    secret = PREFIX + drawn.decode()
    token = Token(
        entropy.token_bytes(4).hex(), role, _digest(secret), name, queues, now_ms, expires_ms
    )
    return token, secret


def revoke(data: str, which: str) -> Token:
    """Revokes the token with this id or name.

    Raises:
        NotFound: There is none.
        StoreUnavailable: The file cannot be used.
    """
    with _changing(data) as tokens:
        found = [token for token in tokens if which in (token.id, token.name)]
        if not found:
            known = tuple(token.name or token.id for token in tokens)
            raise NotFound(f"no token {which!r:.80}{unknown_name(which, known)}")
        tokens.remove(found[0])
    return found[0]


def listed(data: str) -> list[Token]:
    """Returns all tokens, oldest first.

    Raises:
        StoreUnavailable: The file cannot be used.
    """
    return _read(data)


def ensure_admin(data: str, now_ms: int, entropy: Entropy) -> None:
    """Makes the token of the store's own user, unless it was made before.

    Raises:
        StoreUnavailable: The files cannot be used.
    """
    if Path(data, ADMIN_NAME).exists():
        return
    token, secret = _draw(entropy, "admin", now_ms, ADMIN)
    with _changing(data) as tokens:
        # One that is there was never told to anybody.
        tokens[:] = [*(old for old in tokens if old.name != ADMIN), token]
    with _told(data, ADMIN_NAME):
        _replace(data, ADMIN_NAME, f"{secret}\n".encode())


def own_token(data: str) -> str:
    """Returns the token that the store's own user finds in the data directory; empty for none."""
    try:
        text = read_regular(os.path.join(data, ADMIN_NAME), 1_024, trusted=True)  # noqa: PTH118
    except OSError:
        return ""
    return text.decode("ascii", "replace").strip()


def owner(data: str) -> Token:
    """Returns what is kept of the token of the store's own user.

    Raises:
        StoreUnavailable: It was revoked, or the files cannot be used.
    """
    digest = _digest(own_token(data))
    found = next((token for token in _read(data) if token.digest == digest), None)
    if found is None:
        raise StoreUnavailable(
            f"{os.path.join(data, ADMIN_NAME)} holds no token that is good; "  # noqa: PTH118
            "make one with `beaver token create`, and sign in with it"
        )
    return found


# -- asking ----------------------------------------------------------------------------------------


class Tokens:
    """The tokens of a store, as a server asks for them."""

    def __init__(self, data: str, clock: Clock) -> None:
        self._data, self._clock = data, clock
        self._by_digest: dict[str, Token] = {}
        self._by_id: dict[str, Token] = {}
        self._seen: tuple[int, ...] = ()
        self._looked_ns = 0

    def find(self, secret: str) -> Token | None:
        """Returns the token that this is; `None` where it is none, was revoked or has expired.

        Raises:
            StoreUnavailable: The file cannot be used.
        """
        self._keep_fresh()
        digest = _digest(secret)
        # A lookup by the digest tells nothing of a token by the time that it takes.
        token = self._by_digest.get(digest)
        if token is None:
            self._look()  # It may have been made just now.
            token = self._by_digest.get(digest)
        return self._unless_over(token)

    def current(self, token: str) -> Token | None:
        """Returns the token with this id; `None` where it was revoked or has expired.

        Raises:
            StoreUnavailable: The file cannot be used.
        """
        self._keep_fresh()
        return self._unless_over(self._by_id.get(token))

    def _unless_over(self, token: Token | None) -> Token | None:
        return None if token is None or _is_over(token, self._clock.wall_ms()) else token

    def _keep_fresh(self) -> None:
        now_ns = self._clock.monotonic_ns()
        if not self._looked_ns or now_ns - self._looked_ns >= STALE_S * 1e9:
            self._look()
            self._looked_ns = now_ns

    def _look(self) -> None:
        """Reads the file where it was replaced."""
        try:
            found = Path(self._data, FILE_NAME).stat()
            seen: tuple[int, ...] = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            seen = ()
        if seen != self._seen or not seen:
            tokens = _read(self._data)
            self._by_digest = {token.digest: token for token in tokens}
            self._by_id = {token.id: token for token in tokens}
            self._seen = seen


def _is_over(token: Token, now_ms: int) -> bool:
    return bool(token.expires_ms) and token.expires_ms <= now_ms


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


# -- the file --------------------------------------------------------------------------------------


def _read(data: str) -> list[Token]:
    with _told(data, FILE_NAME):
        path = os.path.join(data, FILE_NAME)  # noqa: PTH118
        try:
            text = read_regular(path, FILE_BYTES_MAX, trusted=True)
        except FileNotFoundError:
            return []
        try:
            return _decode(text).tokens
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StoreUnavailable(
                f"{path} cannot be read, so nobody may use HTTP: {error}\n"
                "Remove it, and the next start of a server makes a token anew."
            ) from error


@contextlib.contextmanager
def _changing(data: str) -> Iterator[list[Token]]:
    """Yields the tokens, and writes them as they then are; one process at a time."""
    with _told(data, FILE_NAME):
        lock = open_regular(os.path.join(data, LOCK_NAME), os.O_RDWR | os.O_CREAT)  # noqa: PTH118
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tokens = _read(data)
        yield tokens
        text = msgspec.json.format(msgspec.json.encode(_File(tokens)), indent=1) + b"\n"
        with _told(data, FILE_NAME):
            _replace(data, FILE_NAME, text)
    finally:
        os.close(lock)


def _replace(data: str, name: str, text: bytes) -> None:
    """Writes a file (0600), whole or not at all, and durably."""
    path = Path(data, name)
    fresh = path.with_name(f"{name}.new")
    fresh.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    directory = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def _told(data: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = os.path.join(data, name)  # noqa: PTH118
        raise StoreUnavailable(f"cannot use {where}: {error.strerror or error}") from error
