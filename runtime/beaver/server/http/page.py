"""`GET /`: the page, which anybody may load, since it holds nothing.

All that it shows it asks of the API, once somebody has signed in.  It runs no script but its own,
and nobody may frame it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Final

from aiohttp import web

PATH: Final = "/"
_PART: Final = r"<{0}>(.*?)</{0}>"


async def page(request: web.Request) -> web.Response:
    """Answers with the page."""
    text = _text()
    return web.Response(
        text=text,
        content_type="text/html",
        headers={
            "Content-Security-Policy": _policy(text),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cache-Control": "no-cache",
        },
    )


@cache
def _text() -> str:
    return Path(__file__).with_name("page.html").read_text("utf-8")


@cache
def _policy(text: str) -> str:
    """Returns what the page may do: run and look as it was written, and ask this server."""
    return (
        "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; script-src {_hash(text, 'script')}; "
        f"style-src {_hash(text, 'style')}"
    )


def _hash(text: str, tag: str) -> str:
    (part,) = re.findall(_PART.format(tag), text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
    return f"'sha256-{digest}'"
