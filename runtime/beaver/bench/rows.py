"""The rows of the results table, their units, and how a figure is kept.

A `Figure` holds one value a round; the table shows their median and the spread between the
least and the largest.  What may not live here: how anything is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from beaver.errors import InvalidInput

BEAVER: Final = "beaver"
API: Final = "beaver API"
"""Beaver through its documented API, beside what is measured below it."""
MACHINE: Final = "machine"
"""The subject of rows that measure no queue: the raw disk, and a loop of plain Python."""


class RowInfo(NamedTuple):
    """One row of the table."""

    label: str
    unit: str
    more_is_better: bool


def _more(label: str, unit: str = "jobs/s") -> RowInfo:
    return RowInfo(label, unit, more_is_better=True)


def _less(label: str, unit: str = "ms") -> RowInfo:
    return RowInfo(label, unit, more_is_better=False)


ROWS: Final[dict[str, RowInfo]] = {
    "probe": _more("raw durable write of 128 bytes", "syncs/s"),
    "probe_p50": _less("raw durable write, p50"),
    "loop": _more("calibrated loop of plain Python", "rounds/s"),
    "serial": _more("enqueue, 1 client"),
    "serial_p50": _less("enqueue, 1 client, p50"),
    "serial_p99": _less("enqueue, 1 client, p99"),
    "clients_8": _more("enqueue, 8 clients"),
    "clients_64": _more("enqueue, 64 clients"),
    "threads_64": _more("enqueue, 64 threads that share an application"),
    "procs_8": _more("enqueue, 8 client processes"),
    "beside": _more("enqueue, 1 client beside 2 workers that run its jobs"),
    "bare_serial": _more("bare server, 1 client"),
    "bare_procs_8": _more("bare server, 8 client processes"),
    "bare_tasks_64": _more("bare server, 64 tasks on a connection"),
    "http_p50": _less("enqueue over HTTP, 1 client, p50"),
    "http_64": _more("enqueue over HTTP, 64 connections"),
    "http_bulk": _more("enqueue over HTTP, arrays of 100 by 8 connections"),
    "http_readers": _more("that of 64 connections beside 64 readers of all events", "x"),
    "bare_http_p50": _less("bare handler of aiohttp, 1 client, p50"),
    "bare_http_64": _more("bare handler of aiohttp, 64 connections"),
    "bulk": _more("enqueue, batches of 100, requests made in the loop"),
    "bulk_made": _more("enqueue, batches of 100, requests made before"),
    "bulk_8": _more("enqueue, batches of 100 by 8 clients at once"),
    "drain": _more("drain, 2 workers"),
    "drain_one": _more("drain, 2 workers, prefetch 1"),
    "concurrent": _more("enqueue by 64 clients and drain at once"),
    "concurrent_bulk": _more("enqueue in batches of 100 and drain at once"),
    "latency_p50": _less("enqueue to start at 100 jobs/s, p50"),
    "latency_p99": _less("enqueue to start at 100 jobs/s, p99"),
    "eager_p50": _less("the same where DISPATCH need not be durable, p50"),
    "eager_p99": _less("the same where DISPATCH need not be durable, p99"),
    "stall_usual": _less("event loop blocked at most, commits of 1,000 jobs and 1 MiB"),
    "stall_drain": _less("event loop blocked at most, with the drain of these"),
    "stall_limit": _less("event loop blocked at most, commits of 10,000 jobs or 8 MiB"),
    "inside_serial": _more("enqueue one by one, in process"),
    "inside_bulk": _more("enqueue, batches of 100, in process"),
    "memory_job": _less("memory a pending job", "B"),
    "replay": _less("replay of 1M events, 333k live", "s"),
    "snapshot_load": _less("load of a snapshot of 1M jobs", "s"),
    "snapshot_index": _less("indexes of 1M jobs, once they are loaded", "s"),
    "start_100k": _less("kill -9 to ready, 100k pending", "s"),
    "answer_100k": _less("kill -9 to a client's first answer, 100k pending", "s"),
    "answer_1m_log": _less("start to a client's first answer, 1M pending, from the log alone", "s"),
    "indexing": _less("history of a finished job, processor time", "us"),
    "start_1m": _less("kill -9 to ready, 1M pending, from a snapshot", "s"),
    "start_1m_log": _less("start to ready, 1M pending, from the log alone", "s"),
    "pause_idle_p999": _less("status round trip, p99.9, no snapshot"),
    "pause_p999": _less("status round trip, p99.9, during a snapshot of 1M jobs"),
    "pause_max": _less("status round trip, longest, during a snapshot of 1M jobs"),
    "kill": _less("worker killed to replacement ready"),
    "growth_enqueue": _less("enqueue cost at many pending over 1k", "x"),
    "growth_dispatch": _less("dispatch cost at many pending over 1k", "x"),
    "growth_cancel": _less("cancel cost at many pending over 1k", "x"),
    "growth_status": _less("status cost at many pending over 1k", "x"),
    "growth_explain": _less("explain cost at many pending over 1k", "x"),
    "growth_list": _less("cost of listing 100 jobs at many pending over 1k", "x"),
    "growth_queues": _less("largest of these, jobs in 100 queues", "x"),
    "growth_scheduled": _less("largest of these, many jobs scheduled for later", "x"),
    "growth_paused": _less("largest of these, many jobs in a paused queue", "x"),
    "growth_unknown": _less("largest of these, many jobs of an unknown task", "x"),
    "serverless_p50": _less("enqueue without a server by a new client, 1k pending, p50"),
    "serverless_many_p50": _less("the same, many pending"),
    "growth_serverless": _less("cost of that at many pending over 1k", "x"),
    "serverless_start": _less("the first of them, which starts a keeper, many pending", "s"),
    "serverless_50": _more("enqueue without a server, 50 producer processes, many pending"),
    "cost_request": _less("making a request, in the client", "us"),
    "cost_job": _less("checking and resolving a request, in the server", "us"),
    "cost_enqueue": _less("one ENQUEUE, model and engine without the disk", "us"),
    "cost_bulk": _less("one ENQUEUE of a batch of 100, without the disk", "us"),
    "cost_dispatch": _less("selecting a job and its DISPATCH, without the disk", "us"),
    "idle_cpu": _less("idle server with 2 workers, share of a core", "%"),
    "idle_server_mb": _less("idle server with 2 workers, RSS of the server", "MB"),
    "idle_all_mb": _less("idle server with 2 workers, PSS of all processes", "MB"),
    "idle_scraped_mb": _less("the same after a scrape of /metrics", "MB"),
    "help": _less("`beaver --help`"),
    "enqueue_command": _less("`beaver enqueue` of one job"),
}
"""Every row that there can be, in the order of the table."""

COMPARED: Final = (
    "serial", "serial_p50", "serial_p99", "clients_8", "clients_64", "procs_8", "beside", "bulk",
    "drain", "concurrent", "latency_p50", "latency_p99",
)  # fmt: skip
"""The rows that are measured of every queue."""


def choose(words: Sequence[str]) -> frozenset[str]:
    """Returns the rows whose name or label holds one of the words; all where there are none.

    Raises:
        InvalidInput: No row fits a word.
    """
    chosen: set[str] = set()
    for word in words:
        found = {k for k, info in ROWS.items() if word.lower() in f"{k} {info.label}".lower()}
        if not found:
            raise InvalidInput(f"no row is called {word!r}; there are {', '.join(ROWS)}")
        chosen |= found
    return frozenset(chosen or ROWS)


class Figure(NamedTuple):
    """The values of one row of one subject, one a round."""

    subject: str
    key: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)


class Figures:
    """All figures of a run, by subject and row."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}

    def add(self, subject: str, values: dict[str, float]) -> None:
        """Adds one round's values of some rows."""
        for key, value in values.items():
            assert key in ROWS, f"{key} is a row of the table"
            self._values.setdefault((subject, key), []).append(value)

    def get(self, subject: str, key: str) -> Figure | None:
        values = self._values.get((subject, key))
        return Figure(subject, key, tuple(values)) if values else None

    def median(self, subject: str, key: str) -> float | None:
        figure = self.get(subject, key)
        return None if figure is None else figure.median

    def subjects(self) -> list[str]:
        """Returns the queues that were measured, Beaver first."""
        found = dict.fromkeys(subject for subject, _ in self._values if subject != MACHINE)
        return sorted(found, key=lambda name: (name != BEAVER, name != API))

    def __iter__(self) -> Iterator[Figure]:
        order = {key: index for index, key in enumerate(ROWS)}
        for subject, key in sorted(self._values, key=lambda pair: (order[pair[1]], pair[0])):
            yield Figure(subject, key, tuple(self._values[subject, key]))


def percentile(values: list[float], share: float) -> float:
    """Returns the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
