"""Which connection a store gets, by what names it: a directory, a socket, a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beaver.client.connection import Connection
from beaver.errors import InvalidInput


def connection_to(store: str, network: Mapping[str, Any]) -> Connection:
    """Returns a connection to a store; nothing is opened.

    Args:
        store: Path of the data directory, or a URL.
        network: What only a server reached by `http://` is asked with; `None` is nothing.

    Raises:
        InvalidInput: The URL is none, or another kind of store is given what is for HTTP.
    """
    given = {name: value for name, value in network.items() if value is not None}
    if "://" in store:
        from beaver.client.http.address import is_url

        if is_url(store):
            from beaver.client.http.connection import HttpConnection

            return HttpConnection(store, **given)
    if given:
        raise InvalidInput(
            f"{', '.join(given)}: only a server at a URL (http://host:9090) is asked so, and "
            f"{store} is none"
        )
    from beaver.client.reconnecting import ReconnectingClient

    return ReconnectingClient(store)
