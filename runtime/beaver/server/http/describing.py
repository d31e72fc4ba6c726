"""`GET /v1/openapi.json`: the API described, from the table that it is served by."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from types import UnionType
from typing import Any, Final, get_args, get_origin

import msgspec

from beaver.access.roles import ROLES, Right
from beaver.server.http.problems import TITLES, TYPE
from beaver.server.http.routing import DURATIONS, JSON, PARAMETER, Route
from beaver.structs.views import ABSENT

VERSION: Final = "1"
"""Version of the contract; every path begins with it."""
_ALWAYS: Final = ("unauthenticated", "forbidden", "invalid", "not_acceptable", "unavailable")
"""Problems that every route has."""
_MEANINGS: Final = {
    "id": "The id of a job, percent-encoded.",
    "name": "A name, percent-encoded.",
    "bulk": "The id of an action on many jobs, as it was answered.",
    "worker": "The number of a remote worker, as it got it when it registered.",
    "token": "The token of an attempt, as its worker got it.",
}


def document(routes: Iterable[Route]) -> bytes:
    """Returns the description of these routes, OpenAPI 3.1, as JSON."""
    routes = list(routes)
    kinds = [kind for route in routes for kind in _kinds_of(route)]
    schemas, components = msgspec.json.schema_components(
        list(map(_describable, kinds)), ref_template="#/components/schemas/{name}"
    )
    by_kind = dict(zip(map(str, kinds), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_kind, routes)
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "Beaver",
            "version": VERSION,
            "description": "A durable job queue. An answer leaves only after all that it tells is "
            "on disk. Times and durations are integers in ms.",
        },
        "servers": [{"url": "http://127.0.0.1:9090"}],
        "security": [{"token": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())) | {"Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "headers": {
                "Seq": {
                    "description": "The last seq that the answer rests on.",
                    "schema": {"type": "integer"},
                }
            },
        },
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=1)


@cache
def _describable(kind: Any) -> Any:
    """Returns a type whose schema can be made: one without defaults that are raw JSON."""
    arguments = tuple(map(_describable, get_args(kind)))
    if arguments:
        origin = get_origin(kind)
        return (
            functools.reduce(operator.or_, arguments) if origin is UnionType else origin[arguments]
        )
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return kind
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        default = msgspec.UNSET if field.default is ABSENT else field.default
        made: Any = default
        if field.default_factory is not msgspec.NODEFAULT:
            made = msgspec.field(default_factory=field.default_factory)
        entry = (field.name, _describable(field.type))
        fields.append(entry if made is msgspec.NODEFAULT else (*entry, made))
    config = kind.__struct_config__
    return msgspec.defstruct(
        kind.__name__,
        fields,
        namespace={"__doc__": kind.__doc__},
        kw_only=True,
        array_like=config.array_like,
        forbid_unknown_fields=config.forbid_unknown_fields,
    )


def _kinds_of(route: Route) -> list[Any]:
    kinds = [] if route.body is None else [route.body]
    for kind in route.answers.values():
        kinds += _several(kind)
    return kinds


def _several(kind: Any) -> tuple[Any, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


def _operation(route: Route, by_kind: dict[str, Any], routes: list[Route]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": _for_whom(route.right),
        "operationId": _name_of(route),
        "parameters": _parameters(route, by_kind),
        "responses": {
            **{
                str(status): _answer(route, status, by_kind, _links(route, status, routes))
                for status in route.answers
            },
            **_problems(route),
        },
    }
    if route.right is Right.ANYONE:
        operation["security"] = []
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.body is not None and bool(route.takes[1:]),
            "content": {
                kind: {"schema": _body_schema(route, kind, by_kind)} for kind in route.takes
            },
        }
    return operation


def _for_whom(right: Right) -> str:
    if right is Right.ANYONE:
        return "For everybody; no token is needed."
    roles = ", ".join(role for role, rights in ROLES.items() if right in rights)
    return f"For the roles {roles}."


def _name_of(route: Route) -> str:
    words = [word for word in re.split(r"[^\w]+", PARAMETER.sub("", route.path)) if word != "v1"]
    return "_".join([route.method.lower(), *filter(None, words)]) + (
        "_one" if route.path.endswith("}") else ""
    )


def _body_schema(route: Route, kind: str, by_kind: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = by_kind[str(route.body)]
    return schema if kind == JSON else {"type": "string", "description": "One object a line."}


def _parameters(route: Route, by_kind: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _MEANINGS[name],
            "schema": {"type": "string", "minLength": 1},
        }
        for name in PARAMETER.findall(route.path)
    ]
    for field in msgspec.structs.fields(route.query):
        schema = msgspec.json.schema(field.type)
        name = field.encode_name
        if name in DURATIONS:
            words = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"}
            schema = {"anyOf": [schema, words]}
        found.append({"name": name, "in": "query", "required": False, "schema": schema})
    return found


def _links(route: Route, status: int, routes: list[Route]) -> dict[str, Any]:
    """Returns what can be asked next of a thing that was made: routes with its name in the path."""
    if status not in (HTTPStatus.CREATED, HTTPStatus.ACCEPTED):
        return {}
    (kind, *_) = _several(route.answers[status])
    made = [name for name in kind.__struct_fields__ if name in _MEANINGS]
    return {
        _name_of(other): {
            "operationId": _name_of(other),
            "parameters": {name: f"$response.body#/{name}"},
        }
        for name in made
        for other in routes
        if PARAMETER.findall(other.path) == [name]
    }


def _answer(
    route: Route, status: int, by_kind: dict[str, Any], links: dict[str, Any]
) -> dict[str, Any]:
    schemas = [by_kind[str(kind)] for kind in _several(route.answers[status])]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {
        "description": HTTPStatus(status).phrase,
        "headers": {"Beaver-Seq": {"$ref": "#/components/headers/Seq"}},
        "content": {
            kind: {"schema": schema if kind == JSON else {"type": "string"}} for kind in route.gives
        },
        **({"links": links} if links else {}),
    }


def _problems(route: Route) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for name in dict.fromkeys((*_ALWAYS, *route.problems)):
        by_status.setdefault(TITLES[name][0], []).append(name)
    return {
        str(status): {
            "description": " or ".join(f"`{name}`" for name in names),
            "content": {TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, names in sorted(by_status.items())
    }


_PROBLEM: Final = {
    "type": "object",
    "description": "What is wrong, as RFC 9457 says it.",
    "properties": {
        "type": {"type": "string", "enum": [f"urn:beaver:{name}" for name in TITLES]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What, where, and what to do."},
        "job": {"type": "string"},
        "index": {"type": "integer", "description": "Of the job in an array or in lines, from 0."},
        "seq": {"type": "integer"},
        "error": {"type": "string", "description": "The class that Python's client raises."},
    },
    "required": ["type", "title", "status", "detail"],
}
