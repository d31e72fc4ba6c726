"""Problems: what HTTP answers where something is wrong, as `application/problem+json`.

What lives here: which status and which type an error has.  The words are the error's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from beaver.errors import (
    BeaverError,
    Conflict,
    DiskFull,
    InvalidInput,
    NotFound,
    QueueFull,
    TooManyWorkers,
)
from beaver.server.http.doors import RETRY_AFTER_S
from beaver.transport.framing import class_name

TYPE: Final = "application/problem+json"
URN: Final = "urn:beaver:"
_RETRY: Final = {"Retry-After": str(RETRY_AFTER_S)}

TITLES: Final = {
    "invalid": (400, "Invalid request"),
    "unauthenticated": (401, "A token is needed"),
    "forbidden": (403, "Not allowed"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "not_acceptable": (406, "Not acceptable"),
    "request_timeout": (408, "Request timeout"),
    "conflict": (409, "Conflict"),
    "stale_token": (409, "Not the attempt in flight"),
    "expired": (410, "No longer kept"),
    "too_large": (413, "Too large"),
    "unsupported_media_type": (415, "Unsupported media type"),
    "queue_full": (429, "Queue full"),
    "too_many_requests": (429, "Too many requests"),
    "headers_too_large": (431, "Headers too large"),
    "unavailable": (503, "Unavailable"),
}
"""Status and title of each type."""


class Problem(Exception):
    """An answer that says what is wrong."""

    def __init__(
        self,
        name: str,
        detail: str,
        facts: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Makes one.

        Args:
            name: One of `TITLES`.
            detail: What, where, and what to do.
            facts: More members: `job`, `index`, `seq`.
            headers: Of the answer.
        """
        super().__init__(detail)
        self.name, self.detail = name, detail
        self.facts, self.headers = dict(facts or {}), dict(headers or {})
        self.status, self.title = TITLES[name]
        if self.status in (429, 503):
            self.headers = {**_RETRY, **self.headers}

    def members(self) -> dict[str, Any]:
        """Returns the members of the JSON object."""
        return {
            "type": URN + self.name,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.facts,
        }

    def response(self) -> web.Response:
        """Returns the answer."""
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(self.members()),
            headers={"Content-Type": TYPE, **self.headers},
        )


_NAMES: Final[tuple[tuple[type[BeaverError], str], ...]] = (
    (NotFound, "not_found"),
    (Conflict, "conflict"),
    (InvalidInput, "invalid"),
    (QueueFull, "queue_full"),
    (TooManyWorkers, "too_many_requests"),
    (DiskFull, "unavailable"),
)
"""The first class that fits gives the name; whatever else goes wrong is `unavailable`."""


def problem_of(error: BeaverError) -> Problem:
    """Returns what an error of Beaver's is to a client."""
    name = next((name for kind, name in _NAMES if isinstance(error, kind)), "unavailable")
    facts = {key: value for key, value in error.facts.items() if key in _FACTS}
    facts["error"] = class_name(error)
    return Problem(name, str(error), facts)


_FACTS: Final = frozenset({"job", "index", "seq", "queue"})

_OF_STATUS: Final = {
    404: ("not_found", "there is nothing at this path; GET /v1/openapi.json lists what there is"),
    405: ("method_not_allowed", "this path has other methods; see the header Allow"),
    413: ("too_large", "the body is longer than is taken"),
}


def problem_of_status(error: web.HTTPException) -> Problem:
    """Returns what aiohttp's refusal is to a client."""
    name, detail = _OF_STATUS.get(error.status, ("invalid", error.reason))
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return Problem(name, detail, headers=headers)
