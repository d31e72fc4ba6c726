"""What a server prints: what was recovered, what it runs and where, and what a burst leaves.

What may not live here: being ready (`serve`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from beaver.config.layers import Config
from beaver.engine.stamps import BEHIND_WARN_MS
from beaver.journal.wal.format import crc_is_fast
from beaver.server.assembly import Assembly
from beaver.structs.messages import TaskInfo
from beaver.task.builtins import ECHO
from beaver.task.programs import EXEC
from beaver.text.foreign import counted, one_line, printable
from beaver_model import JobState, State

log = logging.getLogger("beaver")

NAMES_MAX: Final = 20
"""Tasks that the line for people names before it gives only their number.  The JSON line has all.
"""


class Ready(msgspec.Struct, frozen=True):
    """What there is to say."""

    last_seq: int
    pending: int
    recovery_ms: float
    workers: int
    tasks: Sequence[str]
    socket: str
    http: str
    """Empty where it does not listen."""

    def text(self) -> str:
        """Returns the line for people."""
        names = [one_line(name) for name in self.tasks[:NAMES_MAX]]
        if len(self.tasks) > NAMES_MAX:
            names.append(f"and {len(self.tasks) - NAMES_MAX} more")
        listens = f"{self.http} and {self.socket}" if self.http else self.socket
        return (
            f"beaver ready: {counted(self.last_seq, 'event')}, {counted(self.pending, 'job')} to "
            f"run, recovered in {self.recovery_ms:.0f} ms; {counted(self.workers, 'worker')}; "
            f"listening on {one_line(listens)}; tasks: {', '.join(names) or 'none'}"
        )

    def json(self) -> str:
        """Returns the line for programs."""
        return json.dumps(
            {
                "time_ms": time.time_ns() // 1_000_000,
                "level": "info",
                "logger": "beaver",
                "message": "beaver ready",
                "event": "READY",
                "last_seq": self.last_seq,
                "pending": self.pending,
                "recovery_ms": round(self.recovery_ms, 1),
                "workers": self.workers,
                "tasks": list(self.tasks),
                "socket": self.socket,
                "http": self.http or None,
            }
        )


def line(message: str, *, as_json: bool, level: str = "info", **facts: object) -> str:
    """Returns one of the few other lines of a server that are no records of its log."""
    if not as_json:
        return printable(message)
    time_ms = time.time_ns() // 1_000_000
    return json.dumps({"time_ms": time_ms, "level": level, "message": message, **facts})


def names_of(tasks: Sequence[TaskInfo]) -> list[str]:
    """Returns the names of tasks: the application's own ones first."""
    names = sorted(info.options.task for info in tasks)
    return sorted(names, key=lambda name: name in (ECHO, EXEC))


def own_tasks(names: Sequence[str]) -> list[str]:
    """Returns the tasks that are not built in."""
    return [name for name in names if name not in (ECHO, EXEC)]


def say_ready(parts: Assembly, config: Config, socket: str, http: str) -> None:
    """Prints that a server is ready, and logs what its users should know before they go on."""
    engine, report = parts.engine, parts.report
    state = engine.state
    if not crc_is_fast():
        log.warning("crcmod has no C extension here: checksums are about 20 times slower")
    if engine.clock_behind_ms > BEHIND_WARN_MS:
        log.warning(
            "the clock is %d s behind the log; stamps go on from the log's last one",
            engine.clock_behind_ms // 1000,
        )
    if report.torn_tail_bytes:
        log.warning(
            "the log ended with %s of no frame, of a write that was never acknowledged; kept in %s",
            counted(report.torn_tail_bytes, "byte"),
            report.broken or "no file, for want of room",
        )
    names = names_of(parts.tasks)
    if config.app and not own_tasks(names):
        log.warning("%s has no tasks: no job but the built-in ones can run", config.app)
    ready = Ready(
        last_seq=state.last_seq,
        pending=state.count(JobState.PENDING),
        recovery_ms=report.total_ms,
        workers=config.workers,
        tasks=names,
        socket=socket,
        http=http,
    )
    print(ready.json() if config.log_format == "json" else ready.text(), flush=True)  # noqa: T201 - CONTRACT


def say_left(state: State, *, as_json: bool) -> None:
    """Says which jobs a burst leaves behind, and why."""

    def say(text: str, count: int, queue: str) -> None:
        left = f"left: {counted(count, 'job')} in {text}"
        print(  # noqa: T201 - what burst was asked for
            line(left, as_json=as_json, event="LEFT", count=count, queue=queue)
        )

    for name, queue in state.queues.items():
        if queue.row.paused and queue.counts[JobState.PENDING]:
            say(f"the paused queue {name}", queue.counts[JobState.PENDING], name)
            continue
        for bucket in queue.buckets.values():
            if bucket.live and not bucket.known:
                say(f"{name}: no worker for task {bucket.task}", bucket.live, name)
