"""The work that every measured job does: it appends one record to a file.

A record is 32 bytes: when the job started, on the clock that all processes of a machine
share, and the number that its payload carried.  So the file tells how many jobs ran, which,
and when, whatever queue they came through.  Imported by the workers of every queue: only
the standard library.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

RECORDS_VARIABLE: Final = "BENCH_RECORDS"
"""Environment variable with the path of the file, for workers."""

NOTE: Final = "bench12"
"""Fills a payload up: `{"n":1000000,"note":"bench12"}` has 30 bytes."""

FIRST_NUMBER: Final = 1_000_000
_LINE: Final = b"%020d %010d\n"
_LINE_BYTES: Final = 32


def payload(number: int) -> dict[str, object]:
    """Returns the payload of a job: 30 bytes of JSON."""
    return {"n": number, "note": NOTE}


def write_record(number: int) -> None:
    """Does the work of one job."""
    os.write(_file(), _LINE % (time.monotonic_ns(), number))


@functools.cache
def _file() -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    return os.open(os.environ[RECORDS_VARIABLE], flags, 0o666)


class Record(NamedTuple):
    """One job that ran."""

    started_ns: int
    number: int


class Records:
    """Reads the file from where it was when this was made."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._start = self._size()

    def _size(self) -> int:
        try:
            return Path(self._path).stat().st_size
        except FileNotFoundError:
            return 0

    def count(self) -> int:
        """Returns how many jobs ran since."""
        return (self._size() - self._start) // _LINE_BYTES

    def read(self) -> list[Record]:
        """Returns the records that were written since."""
        data = Path(self._path).read_bytes()[self._start :]
        return [Record(*map(int, line.split())) for line in data.splitlines()]

    def wait(self, count: int, seconds: float) -> int:
        """Waits until so many jobs ran, or the time is over; returns how many did."""
        deadline_s = time.monotonic() + seconds
        while (done := self.count()) < count and time.monotonic() < deadline_s:
            time.sleep(0.002)
        return done
