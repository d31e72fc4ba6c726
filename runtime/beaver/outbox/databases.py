"""The databases in which a relay finds an outbox: SQLite and PostgreSQL.

A relay claims the oldest rows, hands them over, and settles them: those taken in are deleted, and
those refused are set aside.  Who is killed before that has changed nothing: the rows are there,
and their jobs are known by their ids.

One relay hands over at a time, so jobs come in as their rows were written; others stand by.  On
PostgreSQL the claimed rows are locked, and whoever finds older ones locked stands by
(`SKIP LOCKED`); on SQLite a file beside the database is.  The kernel or the server gives the
lock back when a relay dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from beaver.errors import InvalidInput, StoreUnavailable
from beaver.outbox.rows import TABLE, check_table, schema
from beaver.system.regular import open_regular

if TYPE_CHECKING:
    import psycopg

BUSY_S: Final = 5.0
"""How long a database that is locked by others is waited for, and one that does not answer."""
ERROR_CHARS_MAX: Final = 2_000
LOCK_SUFFIX: Final = ".beaver-outbox"


class Row(NamedTuple):
    """A job that waits in an outbox."""

    seq: int
    id: str
    job: str
    """JSON, as a line of a job file."""
    created_ms: int


class Lag(NamedTuple):
    """How far a relay is behind."""

    waiting: int
    oldest_ms: int
    """Age of the oldest row that waits; 0 where none does."""
    set_aside: int
    """Rows that the server has refused."""


class RefusedRow(NamedTuple):
    """A row that was set aside."""

    id: str
    error: str
    refused_ms: int


class Database(Protocol):
    """An outbox in a database.  One thread at a time may use it."""

    def create(self) -> None:
        """Makes the table, where it is not there."""
        ...

    def claim(self, most: int) -> list[Row]:
        """Returns the oldest rows; none, too, where another relay is at work."""
        ...

    def settle(self, sent: Sequence[int], refused: Iterable[tuple[int, str]]) -> None:
        """Deletes rows that were sent, sets those aside that were refused, and claims no more."""
        ...

    def release(self) -> None:
        """Claims no more, and changes nothing."""
        ...

    def lag(self) -> Lag:
        """Returns how far the relay is behind."""
        ...

    def refused(self, most: int) -> list[RefusedRow]:
        """Returns rows that were set aside, the oldest first."""
        ...

    def again(self, ids: Sequence[str] | None) -> int:
        """Lets rows that were set aside be sent again, `None` for all; returns how many."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


def open_database(url: str, table: str = TABLE) -> Database:
    """Returns the outbox at a URL; it is connected to when it is used.

    Args:
        url: `sqlite:///path`, with a fourth slash where it is absolute, or `postgresql://…`.
            A driver, as in SQLAlchemy's `postgresql+psycopg://…`, is left out.
        table: Name of its table.

    Raises:
        InvalidInput: It is no such URL, or what PostgreSQL needs is not installed.
    """
    scheme, colon, rest = url.partition("://")
    dialect = scheme.partition("+")[0]
    if colon and dialect == "sqlite":
        path = rest.removeprefix("/").partition("?")[0]
        if not path or not rest.startswith("/") or path == ":memory:":
            raise InvalidInput(f"{url}: a path is expected, as in sqlite:///app.db")
        return _Sqlite(path, table)
    if colon and dialect in ("postgresql", "postgres"):
        return _Postgres(f"postgresql://{rest}", table)
    raise InvalidInput(
        "the database of an outbox is given as sqlite:///path or postgresql://user@host/name"
    )


_OPEN: Final = "WHERE error IS NULL"


class _Statements:
    """What is asked of a table, with the marks of a driver."""

    def __init__(self, table: str, mark: str) -> None:
        name = check_table(table)
        self.oldest = (
            f"SELECT seq, id, job, created_ms FROM {name} {_OPEN} ORDER BY seq LIMIT {mark}"  # noqa: S608
        )
        self.first = f"SELECT min(seq) FROM {name} {_OPEN}"  # noqa: S608
        self.delete = f"DELETE FROM {name} WHERE seq = {mark}"  # noqa: S608
        self.refuse = f"UPDATE {name} SET error = {mark}, refused_ms = {mark} WHERE seq = {mark}"  # noqa: S608
        self.lag = f"SELECT count(*), min(created_ms) FROM {name} {_OPEN}"  # noqa: S608
        self.aside = f"SELECT count(*) FROM {name} WHERE error IS NOT NULL"  # noqa: S608
        self.refused = (
            f"SELECT id, error, refused_ms FROM {name} WHERE error IS NOT NULL "  # noqa: S608
            f"ORDER BY seq LIMIT {mark}"
        )
        again = f"UPDATE {name} SET error = NULL, refused_ms = NULL WHERE error IS NOT NULL"  # noqa: S608
        self.again_all, self.again = again, f"{again} AND id = {mark}"


def _lag(waiting: Any, aside: Any) -> Lag:
    (count, oldest_ms), (refused,) = waiting, aside
    age_ms = max(0, _now_ms() - int(oldest_ms)) if count else 0
    return Lag(int(count), age_ms, int(refused))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _shortened(error: str) -> str:
    # PostgreSQL's text holds no NUL.
    return error.replace("\0", "\\0")[:ERROR_CHARS_MAX]


class _Sqlite:
    """An outbox in a file of SQLite."""

    def __init__(self, path: str, table: str) -> None:
        self._path, self._table = path, table
        self._asks = _Statements(table, "?")
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if not os.path.exists(self._path):  # noqa: PTH110 - SQLite would make an empty one
                raise StoreUnavailable(f"the outbox's database: there is no file {self._path}")
            self._connection = self._connected()
        return self._connection

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )

    def create(self) -> None:
        """See `Database`."""
        with self._told():
            connection = self._connection = self._connection or self._connected()
            for statement in schema("sqlite", self._table):
                connection.execute(statement)

    def claim(self, most: int) -> list[Row]:
        """See `Database`."""
        with self._told():
            connection = self._open()
            if not self._try_lock():
                return []
            rows = [Row(*found) for found in connection.execute(self._asks.oldest, (most,))]
            if not rows:
                self.release()
            return rows

    def settle(self, sent: Sequence[int], refused: Iterable[tuple[int, str]]) -> None:
        """See `Database`."""
        with self._told():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(self._asks.delete, [(seq,) for seq in sent])
            for seq, error in refused:
                connection.execute(self._asks.refuse, (_shortened(error), _now_ms(), seq))
            connection.execute("COMMIT")
            self.release()

    def release(self) -> None:
        """See `Database`."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _try_lock(self) -> bool:
        path = os.path.realpath(self._path) + LOCK_SUFFIX
        try:
            lock = open_regular(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StoreUnavailable(f"cannot use {path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def lag(self) -> Lag:
        """See `Database`."""
        with self._told():
            ask = self._open().execute
            return _lag(ask(self._asks.lag).fetchone(), ask(self._asks.aside).fetchone())

    def refused(self, most: int) -> list[RefusedRow]:
        """See `Database`."""
        with self._told():
            return [RefusedRow(*row) for row in self._open().execute(self._asks.refused, (most,))]

    def again(self, ids: Sequence[str] | None) -> int:
        """See `Database`."""
        with self._told():
            connection = self._open()
            if ids is None:
                return connection.execute(self._asks.again_all).rowcount
            return sum(connection.execute(self._asks.again, (one,)).rowcount for one in ids)

    def close(self) -> None:
        """See `Database`."""
        self.release()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _told(self) -> Any:
        """Tells what SQLite says is wrong, and begins anew after it."""
        try:
            yield
        except sqlite3.Error as error:
            self.close()
            raise StoreUnavailable(f"the outbox's database {self._path}: {error}") from error
        except BaseException:
            self.close()
            raise


class _Postgres:
    """An outbox in PostgreSQL."""

    def __init__(self, url: str, table: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise InvalidInput(
                "an outbox on PostgreSQL needs psycopg: pip install 'beaver-raft[postgresql]'"
            ) from None
        self._psycopg = psycopg
        self._url, self._table = url, table
        parts = urlsplit(url)
        self._name = f"{parts.hostname or 'local'}{parts.path}"
        """How it is told: without its password."""
        self._asks = _Statements(table, "%s")
        self._connection: psycopg.Connection[Any] | None = None

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            self._connection = self._psycopg.connect(
                self._url,
                connect_timeout=int(BUSY_S),
                application_name="beaver outbox",
                options=f"-c lock_timeout={int(BUSY_S * 1000)}",
            )
        return self._connection

    def create(self) -> None:
        """See `Database`."""
        with self._told() as connection:
            for statement in schema("postgresql", self._table):
                connection.execute(statement.encode())
            connection.commit()

    def claim(self, most: int) -> list[Row]:
        """See `Database`."""
        with self._told() as connection:
            asked = f"{self._asks.oldest} FOR UPDATE SKIP LOCKED"
            rows = [Row(*found) for found in connection.execute(asked.encode(), (most,))]
            if rows:
                # A new snapshot: what another relay has settled meanwhile is not there any more.
                first = connection.execute(self._asks.first.encode()).fetchone()
                if first is not None and first[0] == rows[0].seq:
                    return rows
            connection.rollback()
            return []

    def settle(self, sent: Sequence[int], refused: Iterable[tuple[int, str]]) -> None:
        """See `Database`."""
        with self._told() as connection:
            with connection.cursor() as cursor:
                cursor.executemany(self._asks.delete.encode(), [(seq,) for seq in sent])
                for seq, error in refused:
                    cursor.execute(self._asks.refuse.encode(), (_shortened(error), _now_ms(), seq))
            connection.commit()

    def release(self) -> None:
        """See `Database`."""
        with self._told() as connection:
            connection.rollback()

    def lag(self) -> Lag:
        """See `Database`."""
        with self._told() as connection:
            waiting = connection.execute(self._asks.lag.encode()).fetchone()
            aside = connection.execute(self._asks.aside.encode()).fetchone()
            connection.rollback()
            return _lag(waiting, aside)

    def refused(self, most: int) -> list[RefusedRow]:
        """See `Database`."""
        with self._told() as connection:
            rows = connection.execute(self._asks.refused.encode(), (most,)).fetchall()
            connection.rollback()
            return [RefusedRow(*row) for row in rows]

    def again(self, ids: Sequence[str] | None) -> int:
        """See `Database`."""
        with self._told() as connection:
            count: int
            if ids is None:
                count = connection.execute(self._asks.again_all.encode()).rowcount
            else:
                ask = self._asks.again.encode()
                count = sum(connection.execute(ask, (one,)).rowcount for one in ids)
            connection.commit()
            return count

    def close(self) -> None:
        """See `Database`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _told(self) -> Any:
        """Tells what PostgreSQL says is wrong, and begins anew after it."""
        try:
            yield self._open()
        except self._psycopg.Error as error:
            self.close()
            said = str(error).strip().partition("\n")[0]
            raise StoreUnavailable(f"the outbox's database {self._name}: {said}") from error
        except BaseException:
            self.close()
            raise
