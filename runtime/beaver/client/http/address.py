"""Where a server is by URL, and how one proves to it who one is: the token, and whom TLS trusts.

What may not live here: connections.
"""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from beaver.errors import InvalidInput, StoreUnavailable

if TYPE_CHECKING:
    import ssl

SCHEMES: Final = ("http", "https")
TOKEN_VARIABLE: Final = "BEAVER_TOKEN"  # noqa: S105 - its name, and no token
CA_VARIABLE: Final = "BEAVER_CA_FILE"
TOKEN_CHARS_MAX: Final = 4_096
DATA_DEFAULT: Final = "data"


def is_url(store: str) -> bool:
    """True for what names a server by HTTP, and not a directory or a socket."""
    return store.partition("://")[0].lower() in SCHEMES and "://" in store


class Address(NamedTuple):
    """A server's place."""

    url: str
    """As it is told to people; without a slash at its end."""
    secure: bool
    host: str
    port: int
    prefix: str
    """What stands before `/v1` in every path: empty, unless a proxy has the server below one."""

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    @property
    def host_header(self) -> str:
        """What `Host` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _port_of(self.secure) else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True where the server is on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_address(url: str) -> Address:
    """Returns what a URL names.

    Raises:
        InvalidInput: It is none, or holds what does not belong into it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"{url!r:.200} is no URL of a server: {error}") from None
    if parts.scheme not in SCHEMES or not host or not _is_plain(url):
        raise InvalidInput(
            f"{url!r:.200} is no URL of a server; it looks like http://127.0.0.1:9090"
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            f"{parts.scheme}://…@{host}: a URL ends up in logs, so no token stands in it; give it "
            f"as token=… or in {TOKEN_VARIABLE}"
        )
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise InvalidInput(f"{url!r:.200}: a server's URL has no query and no fragment")
    if port == 0:
        raise InvalidInput(f"{url!r:.200}: 0 is no port that can be connected to")
    secure = parts.scheme == "https"
    return Address(
        url.rstrip("/"),
        secure,
        host,
        port or _port_of(secure),
        parts.path.rstrip("/"),
    )


def _port_of(secure: bool) -> int:
    return 443 if secure else 80


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


class Credentials:
    """The token of a client: as given, from the environment, or this machine's own."""

    def __init__(self, address: Address, token: str | None) -> None:
        """Notes where to look; nothing is read before it is needed.

        Raises:
            InvalidInput: The token is none.
        """
        self._address = address
        self._given = token if token is not None else os.environ.get(TOKEN_VARIABLE) or None
        self._found: str | None = None
        if self._given is not None:
            self._given = _checked(self._given)

    def token(self) -> str:
        """Returns the token; empty where none is known."""
        if self._given is not None:
            return self._given
        if self._found is None:
            self._found = self._own()
        return self._found

    def renewed(self) -> bool:
        """Looks again after a refusal; true where there is another token now."""
        if self._given is not None:
            return False
        before, self._found = self._found, self._own()
        return bool(self._found) and self._found != before

    def _own(self) -> str:
        """Returns the token that the server of this machine has left for its user."""
        if not self._address.is_loopback:
            return ""
        from beaver.access.tokens import ADMIN_NAME
        from beaver.system.regular import read_regular
        from beaver.transport import endpoint

        data = os.environ.get("BEAVER_DATA") or DATA_DEFAULT
        info = endpoint.read(data)
        # A token is for the server that made it, and for nobody else who listens here.
        if info is None or not info.http.endswith(f":{self._address.port}"):
            return ""
        try:
            text = read_regular(os.path.join(data, ADMIN_NAME), TOKEN_CHARS_MAX, trusted=True)  # noqa: PTH118
            return _checked(text.decode("ascii").strip())
        except (OSError, UnicodeDecodeError, InvalidInput):
            return ""


def _checked(token: str) -> str:
    """Returns a token that may stand in a header.

    Raises:
        InvalidInput: It may not; it is not repeated, since it may be a secret all the same.
    """
    token = token.strip()
    if not token or len(token) > TOKEN_CHARS_MAX or not _is_plain(token):
        raise InvalidInput(
            "token: one line of printable ASCII is expected, as `beaver token create` shows it"
        )
    return token


def trust(address: Address, ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext | None:
    """Returns whom TLS trusts: the machine's authorities, or those in a file.

    Args:
        address: The server's place; without TLS nothing is trusted.
        ca_file: PEM of certificates; by default `$BEAVER_CA_FILE`, else the machine's.

    Raises:
        InvalidInput: The file cannot be used, or TLS is not spoken at all.
    """
    path = ca_file if ca_file is not None else os.environ.get(CA_VARIABLE) or None
    if not address.secure:
        if ca_file is not None:
            raise InvalidInput(f"ca_file: {address.url} does not use TLS; https://… would")
        return None
    import ssl

    try:
        context = ssl.create_default_context(cafile=None if path is None else os.fspath(path))
    except (OSError, ssl.SSLError) as error:
        what = getattr(error, "strerror", None) or error
        raise InvalidInput(
            f"ca_file: {path}: no certificates can be read from it: {what}"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def untrusted(address: Address, why: object) -> StoreUnavailable:
    """Returns the error of a server whose certificate is not trusted."""
    return StoreUnavailable(
        f"{address.url}: the server's certificate is not trusted: {why}\n"
        f"Where its authority is your own, name its certificate as ca_file=…, or in {CA_VARIABLE}; "
        "the host in the URL must be one that the certificate names."
    )
