"""`beaver ui`."""

from __future__ import annotations

import os
import sys
from html import escape
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from beaver.cli import output
from beaver.cli.store import Store, on_directory
from beaver.errors import InvalidInput

REDIRECT: Final = "ui.html"
"""A file in the data directory that leads a browser to the page."""
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what to show for it


@on_directory
def ui_command(
    store: Store,
    address: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="Where the page is for the browser, if a proxy or a name leads to it.",
        ),
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the link in a browser, if there is one.")
    ] = True,
) -> None:
    """Print and open a link that signs a browser in as the owner of the queue.

    The link is good once, for a minute. Others sign in on the page with a token.

    Examples:
      beaver ui
      beaver ui --no-open
      beaver ui --url https://queue.example.org/beaver/
    """
    from beaver.access import links, tokens
    from beaver.system.clock import SystemClock, SystemEntropy

    place = _place(store.data, address)
    token = tokens.owner(store.data)
    secret = links.create(store.data, token.id, SystemClock().wall_ms(), SystemEntropy())
    link = f"{place}#link={secret}"
    if store.as_json:
        output.json_line({"url": link, "seconds": links.LINK_S})
    else:
        output.line(link)
        output.note(f"This link is good once, for {links.LINK_S} s.")
    if open_ and _has_browser():
        _open(store.data, link)


def _place(data: str, url: str | None) -> str:
    """Returns the address of the page; a server has to be there.

    Raises:
        InvalidInput: There is no page, or the URL is none.
        BeaverError: No server runs.
    """
    from beaver.client import blocking
    from beaver.transport import endpoint

    endpoint.require_directory(data)
    with blocking.connect(data) as server:
        if server.greeting.keeper:
            raise blocking.no_server(data)
    if url is not None:
        return _checked(url)
    info = endpoint.read(data)
    if info is None or not info.http:
        raise InvalidInput(
            "the server runs without HTTP, so there is no page; start it without --http off"
        )
    parts = urlsplit(info.http)
    host, _, port = parts.netloc.rpartition(":")
    return f"{parts.scheme}://{_EVERYWHERE.get(host, host)}:{port}/"


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise InvalidInput(f"--url: https://name/path/ is expected, found {url!r:.200}")
    return url if url.endswith("/") else f"{url}/"


def _has_browser() -> bool:
    """True where a browser can open beside this terminal, and not in its place."""
    return sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )


def _open(data: str, link: str) -> None:
    """Opens a link, but through a file: all users of the machine see the arguments of a browser."""
    import webbrowser

    from beaver.system.regular import create_regular

    path = Path(data, REDIRECT).absolute()
    try:
        path.unlink(missing_ok=True)
        with create_regular(str(path)) as file:
            file.write(
                f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" '
                f'content="0; url={escape(link)}"><title>Beaver</title>\n'.encode()
            )
        opened = webbrowser.open(path.as_uri())
    except (OSError, webbrowser.Error):
        opened = False
    if not opened:
        output.note("No browser could be opened; open the link in one.")
