"""What HTTP asks where a test asks nothing of the store: pages, doors, tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from beaver.server.http.served import Served
from beaver.structs.questions import Wanted
from beaver.system.clock import SystemEntropy
from beaver.task.programs import Programs
from tests.worlds.runtime import ManualClock


def no_store(data: str = "/nowhere") -> Served:
    """Returns the parts of a server without jobs and without tokens."""
    engine = cast("Any", SimpleNamespace(durable_seq=0, late_observers=[]))

    async def snapshot() -> int:
        return 0

    async def walk(after_seq: int, until_seq: int, bytes_max: int) -> bytes:
        return b"[[],0,1]"

    async def enqueued(wanted: Wanted, after_seq: int, until_seq: int, jobs_max: int) -> bytes:
        return b"[[],0,1]"

    return Served(
        engine,
        cast("Any", None),
        data,
        "00" * 16,
        ManualClock(),
        SystemEntropy(),
        lambda request: "default",
        walk,
        enqueued,
        snapshot,
        cast("Any", None),
        cast("Any", None),
        cast("Any", None),
        lambda since_ms, until_ms, step_ms: {},
        Programs,
    )
