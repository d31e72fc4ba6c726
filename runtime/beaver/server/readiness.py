"""The one line that a server prints when it is ready: what was recovered, what it runs, where.

What may not live here: being ready (`serve`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from beaver.structs.messages import TaskInfo
from beaver.task.builtins import ECHO, EXEC
from beaver.text.foreign import counted, one_line, printable

NAMES_MAX: Final = 20
"""Tasks that the line names; of more it says how many there are.  As JSON it has all."""


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
