"""One table of operations: every way to ask a store, or to carry something out, has all of it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec
import pytest

from beaver import Beaver, InvalidInput
from beaver.api.testing import Testing
from beaver.client import blocking, calls
from beaver.client.asynchronous import AsyncClient
from beaver.client.calls import Call, Method, Operations
from beaver.client.connection import AsyncConnection
from beaver.client.embedded import EmbeddedClient
from beaver.client.http.connection import HttpConnection
from beaver.client.http.messages import ASKED as ASKED_BY_HTTP
from beaver.client.http.pool import HttpClient
from beaver.client.local_store import LocalStore
from beaver.client.opening import KeptClient
from beaver.client.reconnecting import ReconnectingClient
from beaver.keeper.parts import KeeperService
from beaver.request.operations import LEAVE, OPERATIONS, Operation
from beaver.server.service import Service
from beaver.transport import framing

ASKED = [operation for operation in OPERATIONS.values() if operation is not LEAVE]
"""What clients ask; `leave` is for servers among themselves."""


def methods_of(kind: type) -> set[str]:
    return {name for name, value in vars(kind).items() if inspect.isfunction(value)}


def calls_made() -> dict[str, Call[object]]:
    """Returns a call by each builder, with arguments that do for any."""
    made = {}
    for name, value in vars(Operations).items():
        if isinstance(value, Method):
            needed = [
                parameter
                for parameter in inspect.signature(value._build).parameters.values()
                if parameter.default is parameter.empty
            ]
            made[name] = value._build(*(["a"] * len(needed)))
    return made


def test_clients_have_a_method_for_each_operation_and_no_other() -> None:
    made = calls_made()
    assert {name: call.operation for name, call in made.items()} == {
        operation.method: operation for operation in ASKED
    }
    for kind in (
        blocking.Client,
        AsyncClient,
        ReconnectingClient,
        AsyncConnection,
        HttpClient,
        HttpConnection,
        KeptClient,
        EmbeddedClient,
        Testing,
    ):
        assert issubclass(kind, Operations)
        assert not made.keys() & vars(kind).keys(), kind


def test_each_operation_that_clients_ask_is_asked_over_http_as_well() -> None:
    assert [*ASKED_BY_HTTP] == ASKED


def test_every_builder_of_calls_is_a_method_of_the_clients() -> None:
    builders = {
        name
        for name, function in vars(calls).items()
        if inspect.isfunction(function)
        and function.__module__ == calls.__name__
        and not name.startswith("_")
    }
    assert builders == calls_made().keys()


def test_a_call_carries_what_its_operation_is_asked_with() -> None:
    for call in calls_made().values():
        assert type(call.body) is call.operation.body


@pytest.mark.parametrize("kind", [Service, KeeperService])
def test_a_server_carries_out_each_operation(kind: type) -> None:
    for operation in OPERATIONS.values():
        assert inspect.isfunction(getattr(kind, operation.method)), operation


def test_a_store_without_a_server_carries_out_all_that_is_not_about_a_server() -> None:
    wanted = {operation.method for operation in OPERATIONS.values() if not operation.of_server}
    assert {name for name in methods_of(LocalStore) if not name.startswith("_")} == {
        *wanted,
        "call",
    }


def test_the_protocol_documents_each_operation_and_no_other() -> None:
    rows = re.findall(r"^\| (\w+) \| `", framing.__doc__ or "", re.MULTILINE)
    assert {*rows} == {*OPERATIONS, "hello"}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_what_is_asked_travels_as_an_array_and_more_than_that_is_refused(
    operation: Operation[object],
) -> None:
    """An argument that this release does not know might change what is meant."""
    body = _body_of(operation.body)
    raw = msgspec.Raw(msgspec.msgpack.encode(body))
    asked = operation.arguments(raw)
    assert msgspec.msgpack.encode(asked) == bytes(raw)
    assert operation.arguments(body) == asked
    with pytest.raises(InvalidInput, match="do not fit"):
        operation.arguments(msgspec.Raw(msgspec.msgpack.encode([*body, 1])))


def _body_of(kind: type[msgspec.Struct]) -> list[object]:
    return [_value_of(field.name, field.type) for field in msgspec.structs.fields(kind)]


def _value_of(name: str, kind: Any) -> object:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _body_of(kind)
    if "None" in str(kind):
        return None
    plain: dict[Any, object] = {int: 1, bool: True}
    return [] if name == "jobs" else plain.get(kind, "a")


def test_what_is_about_a_server_is_refused_in_a_test(data: str) -> None:
    app = Beaver(data)
    with app.testing(), pytest.raises(InvalidInput, match="no server"):
        app.client.reload()
