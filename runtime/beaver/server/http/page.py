"""The page at `/`: files that stand in the package, the same for everybody, so without a token.

What it shows comes from the API, where whoever looks has to sign in.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from aiohttp import web

TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
"""What is served, by the end of a file's name."""

_IMPORT_MAP: Final = re.compile(rb'<script type="importmap">(.*?)</script>', re.DOTALL)


class Asset(NamedTuple):
    """A file, as it is answered."""

    body: bytes
    headers: dict[str, str]


PATHS: Final = ("/", "/page/{name}")
"""The routes, as aiohttp names them."""


def add_page(app: web.Application) -> None:
    """Adds the page and its files to an application."""
    for path in ("/", "/page/{name:.+}"):
        app.router.add_get(path, _answer)


def is_page(request: web.Request) -> bool:
    """True for what anybody may load."""
    return request.method in ("GET", "HEAD") and request.path in assets()


async def _answer(request: web.Request) -> web.Response:
    asset = assets().get(request.path)
    if asset is None:
        raise web.HTTPNotFound
    if asset.headers["ETag"] in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=asset.headers)
    return web.Response(body=asset.body, headers=asset.headers)


@cache
def assets() -> dict[str, Asset]:
    """Returns every file, by its path."""
    root = files("beaver.page")
    index = root.joinpath("index.html").read_bytes()
    policy = _policy(index)
    found = {"/": _asset(index, "html", policy)}
    for file in _walk(root):
        name = "/".join(file)
        ending = name.rpartition(".")[2]
        if ending in TYPES and name != "index.html":
            found[f"/page/{name}"] = _asset(root.joinpath(*file).read_bytes(), ending, policy)
    return found


def _walk(folder: Traversable, *above: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for entry in folder.iterdir():
        path = (*above, entry.name)
        found += _walk(entry, *path) if entry.is_dir() else [path]
    return found


def _asset(body: bytes, ending: str, policy: str) -> Asset:
    tag = hashlib.sha256(body).hexdigest()[:32]
    return Asset(
        body,
        {
            "Content-Type": TYPES[ending],
            "Content-Security-Policy": policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            # Asked for again each time, so that a new server never meets an old page.
            "Cache-Control": "no-cache",
            "ETag": f'"{tag}"',
        },
    )


def _policy(index: bytes) -> str:
    """Returns what the page may load: files of this server, and its one inline import map."""
    found = _IMPORT_MAP.search(index)
    assert found is not None, "the page tells its modules by an import map"
    digest = b64encode(hashlib.sha256(found[1]).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )
