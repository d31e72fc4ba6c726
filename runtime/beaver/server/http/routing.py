"""Routes: one table, from which the server, its checks and its description are made.

An entry says who may ask, what with, and what is answered; so a route that says none of it cannot
be added, and `openapi` leaves none out.

What may not live here: what is done.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from beaver.access.roles import Right
from beaver.access.tokens import Token
from beaver.errors import InvalidInput
from beaver.server.http.problems import Problem
from beaver.text import jsontext
from beaver.text.durations import parse_duration_ms
from beaver.text.near import unknown_name
from beaver_model.rows import Origin

if TYPE_CHECKING:
    from beaver.server.http.site import Site

NUMBER_CHARS: Final = 20
PARAMETER: Final = re.compile(r"{(\w+)}")
"""A part of a path that stands for anything but a slash."""
JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
EVENTS: Final = "text/event-stream"
TAR: Final = "application/x-tar"
STREAMS: Final = frozenset({EVENTS, TAR})
"""What has no length that is known when it begins."""

_encode: Final = msgspec.json.Encoder().encode

S = TypeVar("S", bound=msgspec.Struct)


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of what a request holds: a member that nobody reads is refused."""


class NoQuery(Body):
    """No parameters."""


class NoBody(Body):
    """Nothing is to be said: no body, or an empty object."""


class HttpCall(NamedTuple):
    """One request that may be carried out."""

    site: Site
    request: web.Request
    token: Token
    query: Any

    @property
    def job(self) -> str:
        """The id in the path."""
        return self.request.match_info["id"]

    def number(self, what: str) -> int | None:
        """A number in the path; `None` where it is none."""
        text = self.request.match_info[what]
        return int(text) if text.isascii() and text.isdigit() and len(text) < NUMBER_CHARS else None

    @property
    def name(self) -> str:
        """The name in the path."""
        return self.request.match_info["name"]

    def check_program(self, payload: bytes) -> None:
        """Checks a job of `exec` that this request would enqueue.

        Raises:
            Problem: It may not run this program.
        """
        if self.token.role != "admin":
            raise Problem(
                "forbidden",
                "task: exec runs programs; it takes jobs from the local socket, and from tokens "
                "with the role admin where the server lists programs for them (--exec-allow)",
            )
        try:
            self.site.programs().check(payload, Origin.HTTP)
        except InvalidInput as error:
            raise Problem("forbidden", f"payload: {error}") from None

    async def body(self, kind: type[S], bytes_max: int) -> S:
        """Returns the body, read as `kind`; an empty one has no members.

        Raises:
            Problem: It is too long, or no such object.
        """
        async with self.site.room.reading(self.request, bytes_max) as raw:
            if not raw.strip():
                raw = b"{}"  # noqa: PLW2901
            jsontext.parse_object(raw)  # A repeated key is refused here.
            return convert(raw, kind)


class Reply(NamedTuple):
    """What is answered."""

    body: Any
    """A struct or plain value, or JSON as bytes."""
    seq: int
    """The last seq that it rests on."""
    status: int = 200
    headers: Mapping[str, str] = {}

    def response(self) -> web.Response:
        body = self.body if isinstance(self.body, bytes) else _encode(self.body)
        headers = {"Content-Type": JSON, "Beaver-Seq": str(self.seq), **self.headers}
        return web.Response(status=self.status, body=body, headers=headers)


Handle = Callable[[HttpCall], Awaitable["Reply | web.StreamResponse"]]


class Route(NamedTuple):
    """One entry."""

    method: str
    path: str
    right: Right
    handle: Handle
    summary: str
    answers: Mapping[int, Any]
    """What a body holds, by status, or one of several; problems are not listed."""
    query: type[Body] = NoQuery
    body: Any = None
    """What the body of the request holds."""
    problems: tuple[str, ...] = ()
    """Names of problems beside those that every route has."""
    takes: tuple[str, ...] = (JSON,)
    gives: tuple[str, ...] = (JSON,)

    @property
    def pattern(self) -> str:
        """The path as aiohttp reads it: what is in braces is anything but a slash."""
        return PARAMETER.sub(r"{\1:[^/]+}", self.path)


def convert(raw: bytes, kind: type[S]) -> S:
    """Reads JSON as a struct.

    Raises:
        InvalidInput: It is none; the message names the member.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(_said(str(error), kind)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from None


def read_query(request: web.Request, kind: type[Body]) -> Body:
    """Reads the parameters of a request.

    Raises:
        InvalidInput: One is unknown, repeated, or has a wrong value; the message names it.
    """
    values: dict[str, Any] = {}
    names, many = parameters_of(kind), _lists_of(kind)
    for name, value in request.query.items():
        if name not in names:
            known = ", ".join(names) or "none"
            hint = unknown_name(name, names)
            raise InvalidInput(f"{name!r:.80}: unknown query parameter{hint}; known are {known}")
        if name in many:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise InvalidInput(f"{name}: this query parameter is given more than once")
        else:
            values[name] = value
    for name in DURATIONS & values.keys():
        values[name] = _duration_ms(values[name], name)
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(_said(str(error), kind)) from None


DURATIONS: Final = frozenset({"wait", "step"})
"""Parameters that are ms, or words such as `20s`."""


def _duration_ms(text: str, name: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text[:20])
    if not text[-1:].isalpha():
        raise InvalidInput(f"{name}: ms are expected, or a unit such as 20s, found {text!r:.80}")
    return parse_duration_ms(text, name)


@cache
def parameters_of(kind: type[Body]) -> tuple[str, ...]:
    """Returns the names of parameters, as they stand in a query."""
    return tuple(field.encode_name for field in msgspec.structs.fields(kind))


@cache
def _lists_of(kind: type[Body]) -> frozenset[str]:
    return frozenset(
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if getattr(field.type, "__origin__", None) is tuple
    )


def _said(text: str, kind: type[msgspec.Struct]) -> str:
    """Returns what msgspec says, with the names that would do."""
    unknown = text.partition("unknown field `")[2].partition("`")[0]
    if unknown:
        known = kind.__struct_fields__
        return f"{unknown!r:.80}: unknown key{unknown_name(unknown, known)}; known are " + (
            ", ".join(known) or "none"
        )
    return text[:500].replace(" - at `$.", ": at `").replace(" - at `$`", "")


def accepts(request: web.Request, gives: tuple[str, ...]) -> bool:
    """True where a client takes one of these types."""
    ranges = request.headers.getall("Accept", [])
    if not ranges:
        return True
    for entry in ",".join(ranges).split(","):
        wanted, _, parameters = entry.strip().lower().partition(";")
        wanted = wanted.strip()
        if parameters.replace(" ", "").startswith("q=0") and not parameters.strip("q=0. "):
            continue
        family = wanted.partition("/")[0]
        for given in gives:
            if wanted in ("*/*", "*", given) or wanted == f"{given.partition('/')[0]}/*":
                return True
        if family == "" or wanted == "application/problem+json":
            return True
    return False


def check_type(request: web.Request, takes: tuple[str, ...]) -> str:
    """Returns the media type of a body; JSON where none is told.

    Raises:
        Problem: It is not taken, or is encoded.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Problem(
            "unsupported_media_type",
            f"Content-Encoding: {encoding!r:.40} is not taken; send it plain",
        )
    told = request.headers.get("Content-Type")
    if told is None:
        return JSON
    kind, _, parameters = told.partition(";")
    kind = kind.strip().lower()
    charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip(' "')
    if kind not in takes or charset not in ("", "utf-8", "utf8"):
        raise Problem(
            "unsupported_media_type",
            f"Content-Type: {told!r:.80} is not taken here; {' or '.join(takes)} is, in UTF-8 "
            f"(curl -H 'Content-Type: {takes[0]}')",
        )
    return kind
