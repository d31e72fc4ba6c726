"""An engine over the real log, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from beaver.engine.engine import Engine
from beaver.engine.replies import Applied, Reply
from beaver.journal.memory import MemoryJournal
from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.log import SEGMENT_BYTES
from beaver.ports import Clock, Disk
from beaver.server.housekeeping import Housekeeping
from beaver.server.metrics import Metrics
from beaver.server.results import Results
from beaver.store.recovery import open_store
from beaver.system.disk import SystemDisk

T = TypeVar("T")


class ManualClock(Clock):
    """Time that moves only when the test says so."""

    def __init__(self, wall_ms: int = 1_000_000) -> None:
        self.wall = wall_ms
        self.monotonic = 1_000_000_000

    def wall_ms(self) -> int:
        return self.wall

    def monotonic_ns(self) -> int:
        return self.monotonic

    def pass_ms(self, passed_ms: int) -> None:
        self.wall += passed_ms
        self.monotonic += passed_ms * 1_000_000


class EngineWorld:
    """An engine, its log and its clock."""

    def __init__(
        self,
        path: Path,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        commits: CommitPath | None = None,
        **options: Any,
    ) -> None:
        self.path = path
        self.clock = ManualClock()
        opened = open_store(
            disk or SystemDisk(),
            str(path),
            clock=self.clock,
            create=True,
            commits=commits,
            segment_bytes=segment_bytes,
        )
        self.wal, self.state = opened.journal, opened.state
        self.failures: list[object] = []
        self.engine = Engine(
            self.state, self.wal, self.clock, on_failure=self.failures.append, **options
        )
        self._reserve = self.wal.reserve

    def limit_room(self, reserve: Callable[[int], int] | None) -> None:
        """Has the log give this room instead of its own from now on; `None` ends that."""
        self.engine.open_batch.room = 0
        self.wal.reserve = reserve or self._reserve  # type: ignore[method-assign,assignment]


def on_loop(test: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
    """Runs an `async def` test on a loop of its own."""

    def run(*args: Any, **kwargs: Any) -> T:
        return asyncio.run(test(*args, **kwargs))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__signature__ = __import__("inspect").signature(test)  # type: ignore[attr-defined]
    return run


def applied(replies: Iterable[Reply]) -> list[Applied]:
    """Returns replies, none of which is a refusal."""
    found = []
    for reply in replies:
        assert isinstance(reply, Applied), reply
        found.append(reply)
    return found


async def turns(count: int = 5) -> None:
    """Lets the loop run what is ready, a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


class Roomy:
    """Segments of a log that wants no next one."""

    next_path = "wal.next"
    segment_bytes = 1 << 20
    has_next = wants_next = False

    def adopt(self, path: str) -> bool:
        raise AssertionError("nothing was prepared")

    def seal(self) -> bool:
        raise AssertionError("nothing was adopted")


def make_housekeeping(
    engine: Any,
    helper: Any,
    clock: Clock,
    *,
    results: Results | None = None,
    metrics: Metrics | None = None,
    on_room: Callable[[], None] = lambda: None,
    on_violation: Callable[[str], None] = lambda what: None,
) -> Housekeeping:
    """Housekeeping of a log with room, with nothing to prune and no snapshot that is due."""
    return Housekeeping(
        engine,
        MemoryJournal(),
        Roomy(),
        helper,
        results or Results(),
        metrics or Metrics(),
        clock=clock,
        snapshot_ms=60_000,
        snapshot_seq=0,
        snapshot_bytes=0,
        retention_bytes=0,
        retention_ms=0,
        on_room=on_room,
        on_violation=on_violation,
    )
