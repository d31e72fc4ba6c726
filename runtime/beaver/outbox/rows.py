"""Rows of an outbox: their table, and writing one through what an application has open.

A row is a job as a line of a job file, with the id that it will have: whoever reads the table can
read it, and handing it over twice does no harm.

The target may be a connection or cursor of DB-API, a connection or session of SQLAlchemy, or a
connection of Django.  Nothing of them is imported: SQLAlchemy is at hand where its session is.
"""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from beaver.errors import InvalidInput
from beaver.request.requests import request_to_json
from beaver.structs.messages import Request

TABLE: Final = "beaver_outbox"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")

_KEYS: Final = {
    "sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "postgresql": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
}
_COLUMNS: Final = ("id", "job", "created_ms")


def schema(dialect: str, table: str = TABLE) -> tuple[str, ...]:
    """Returns the statements that make the table, where it is not there.

    For a migration: `op.execute` of Alembic and `RunSQL` of Django take them.

    Args:
        dialect: `sqlite` or `postgresql`.
        table: Its name.

    Raises:
        InvalidInput: There is no such dialect, or it is no name.
    """
    if dialect not in _KEYS:
        raise InvalidInput(f"dialect: {' or '.join(_KEYS)} is expected, found {dialect!r:.80}")
    name = check_table(table)
    index = f"{name.rpartition('.')[2]}_open"
    made = (
        f"CREATE TABLE IF NOT EXISTS {name} (\n"
        f"    seq {_KEYS[dialect]},\n"
        "    id TEXT NOT NULL UNIQUE,\n"
        "    job TEXT NOT NULL,\n"
        "    created_ms BIGINT NOT NULL,\n"
        "    error TEXT,\n"
        "    refused_ms BIGINT\n"
        ")"
    )
    indexed = f"CREATE INDEX IF NOT EXISTS {index} ON {name} (seq) WHERE error IS NULL"
    return made, indexed


def check_table(table: str) -> str:
    """Returns the name of a table that may stand in a statement.

    Raises:
        InvalidInput: It may not.
    """
    if not _NAME.fullmatch(table):
        raise InvalidInput(
            f"table: letters, digits and _ are expected, maybe behind a schema, found {table!r:.80}"
        )
    return table


def add(target: Any, *requests: Request, table: str = TABLE) -> list[str]:
    """Writes jobs as rows of the transaction that `target` is in; nothing is sent.

    They come in once that transaction is committed and a relay has seen them; where it is rolled
    back, they have never been.

    Args:
        target: A connection or cursor of DB-API, a connection or session of SQLAlchemy, or
            `django.db.connection`.
        *requests: From `job.request(...)` or `app.request(...)`.
        table: Name of the outbox's table.

    Returns:
        The ids of the jobs, for `app.handle(id)`.

    Raises:
        InvalidInput: One is no request, or `target` is none of these.
    """
    for request in requests:
        if not isinstance(request, Request):
            raise InvalidInput(
                f"outbox.add: a request is expected, found {type(request).__name__}; "
                "make it with job.request(...) or app.request(...)"
            )
    execute, mark = _executor(target)
    marks = ", ".join(mark(name, number) for number, name in enumerate(_COLUMNS, 1))
    statement = f"INSERT INTO {check_table(table)} ({', '.join(_COLUMNS)}) VALUES ({marks})"  # noqa: S608
    now_ms = time.time_ns() // 1_000_000
    for request in requests:
        execute(statement, (request.id, request_to_json(request).decode(), now_ms))
    return [request.id for request in requests]


def create(target: Any, dialect: str, table: str = TABLE) -> None:
    """Makes the table where it is not there, in the transaction that `target` is in.

    Args:
        target: As of `add`.
        dialect: `sqlite` or `postgresql`.
        table: Its name.

    Raises:
        InvalidInput: As `add` and `schema`.
    """
    execute, _ = _executor(target)
    for statement in schema(dialect, table):
        execute(statement, ())


Execute = Callable[[str, Sequence[Any]], object]
Mark = Callable[[str, int], str]
"""Returns what stands for a value in a statement, by its name and its number."""

_MARKS: Final[dict[str, Mark]] = {
    "qmark": lambda name, number: "?",  # noqa: ARG005
    "format": lambda name, number: "%s",  # noqa: ARG005
    "pyformat": lambda name, number: "%s",  # noqa: ARG005
    "numeric": lambda name, number: f":{number}",  # noqa: ARG005
}
"""By the `paramstyle` of DB-API."""


def _executor(target: Any) -> tuple[Execute, Mark]:
    """Returns how `target` carries out a statement, and how its values are marked."""
    package = _package_of(target)
    if _is_awaited(target):
        raise InvalidInput(
            f"outbox: {type(target).__qualname__} is awaited, and this call is not; a session "
            "of SQLAlchemy takes it by `await session.run_sync(outbox.add, request)`"
        )
    if package == "sqlalchemy" and hasattr(target, "execute"):
        text = sys.modules["sqlalchemy"].text

        def through_sqlalchemy(statement: str, values: Sequence[Any]) -> object:
            named = dict(zip(_COLUMNS, values, strict=False))
            return target.execute(text(statement), named)

        return through_sqlalchemy, lambda name, number: f":{name}"  # noqa: ARG005
    if package == "django" and hasattr(target, "cursor"):
        return _through_cursors(target), _MARKS["format"]
    style = getattr(sys.modules.get(package), "paramstyle", None)
    if style in _MARKS:
        if hasattr(target, "execute") and not hasattr(target, "cursor"):
            return target.execute, _MARKS[style]
        if hasattr(target, "cursor"):
            return _through_cursors(target), _MARKS[style]
    raise InvalidInput(
        f"outbox: {type(target).__module__}.{type(target).__qualname__} is no connection, "
        "cursor or session that can be written through; give that of a DB-API driver, of "
        "SQLAlchemy, or django.db.connection"
    )


def _is_awaited(target: Any) -> bool:
    ways = (getattr(target, name, None) for name in ("execute", "cursor"))
    return any(inspect.iscoroutinefunction(way) for way in ways)


def _through_cursors(target: Any) -> Execute:
    def execute(statement: str, values: Sequence[Any]) -> None:
        cursor = target.cursor()
        try:
            # Django formats a statement whenever values are given, and only then.
            cursor.execute(statement, values) if values else cursor.execute(statement)
        finally:
            cursor.close()

    return execute


def _package_of(target: Any) -> str:
    """Returns the package whose class `target` is of, or derives from."""
    for kind in type(target).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in ("sqlalchemy", "django") or hasattr(sys.modules.get(package), "paramstyle"):
            return package
    return ""
