"""The job of the peers, under a name that their workers can import."""

from __future__ import annotations

from beaver.bench.records import write_record


def record(n: int, note: str) -> None:
    """Appends one record."""
    write_record(n)


async def record_async(context: object = None, *, n: int, note: str) -> None:
    """The same where jobs are coroutines."""
    write_record(n)
