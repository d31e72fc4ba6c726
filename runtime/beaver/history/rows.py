"""The file of the history: its schema, its rows with their CRCs, and what SQLite may meet.

SQLite checks no content, so each row carries a CRC over all its columns: a bit that rots on
the disk is seen when the row is read, and the index is made anew.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from beaver.errors import HelperFailed

SCHEMA_VERSION: Final = 4
APPLICATION_ID: Final = 0x42454156

SCHEMA: Final = """
CREATE TABLE meta (
    store TEXT NOT NULL, begins_seq INTEGER NOT NULL, first_seq INTEGER NOT NULL,
    applied_seq INTEGER NOT NULL, first_block INTEGER NOT NULL, next_block INTEGER NOT NULL,
    runs INTEGER NOT NULL, next_run INTEGER NOT NULL, cursor BLOB NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE blocks (
    block INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, segment INTEGER NOT NULL,
    begin INTEGER NOT NULL, end INTEGER NOT NULL, crc_before INTEGER NOT NULL,
    ends INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, keys INTEGER NOT NULL, bits INTEGER NOT NULL,
    last_block INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE keys (chunk INTEGER PRIMARY KEY, keys BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE kept (
    hash INTEGER NOT NULL, seq INTEGER NOT NULL, time_ms INTEGER NOT NULL, event BLOB NOT NULL,
    crc INTEGER NOT NULL, PRIMARY KEY (hash, seq)
) WITHOUT ROWID;
"""
INSERT_META: Final = "INSERT INTO meta VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
UPSERT_BLOCK: Final = "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

encode: Final = msgspec.msgpack.Encoder().encode


class HistoryUnusable(HelperFailed):
    """The file is no intact history of this store: delete and rebuild it."""


class HistoryDamaged(HistoryUnusable):
    """A row or a page is not what was written."""


class Meta(NamedTuple):
    store: str
    begins_seq: int
    """The log was read from this seq on."""
    first_seq: int
    """Events of finished jobs are known from this seq on."""
    applied_seq: int
    first_block: int
    next_block: int
    runs: int
    next_run: int
    cursor: bytes


def with_crc(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns a row with the CRC over its columns behind it."""
    return (*row, zlib.crc32(encode(row)))


def checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns a row without its CRC.

    Raises:
        HistoryDamaged: The CRC is that of another row.
    """
    *columns, crc = row
    if zlib.crc32(encode(tuple(columns))) != crc:
        raise HistoryDamaged(f"the row of {row[0]} has been changed")
    return tuple(columns)


_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps beside the index."""


def delete_history(path: str) -> None:
    """Removes an index with what SQLite keeps beside it."""
    for suffix in _SUFFIXES:
        Path(path + suffix).unlink(missing_ok=True)


def refuse_links(path: str) -> None:
    """Checks that SQLite, which follows links and waits for FIFOs, meets regular files only.

    Raises:
        HistoryDamaged: Something else is in their place; a new one takes it.
    """
    for name in (path + suffix for suffix in _SUFFIXES):
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(name).st_mode):
                raise HistoryDamaged(f"{name} is no regular file")


_OUTSIDE: Final = ("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_NOMEM")
"""Errors that say nothing against the file."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns what says that the file is damaged into `HistoryUnusable`, the rest into `OSError`."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith(_OUTSIDE):
            raise OSError(f"history.db: {error}") from error
        raise HistoryDamaged(str(error)) from error
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise HistoryDamaged(str(error)) from error
