"""One line in the log for each attempt that failed: RETRY, TIMEOUT and DEAD.

They are written once they are durable, from the events themselves, so the server's output and the
log of the queue agree.  What an event does not hold (task, queue, number of the attempt) comes from
the attempt as the worker got it, or from the row.  A task that fails a thousand times a second
gets a few lines, and then a count of what was left out.

What may not live here: how a line is written (`task.output`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from beaver.structs.messages import Attempt
from beaver.task.output import FACTS, TRACEBACK
from beaver.text.durations import format_duration
from beaver.text.foreign import counted, one_line, split_error
from beaver_model import State
from beaver_model.events import (
    AnyEvent,
    AttemptEnded,
    Died,
    Retried,
    TimedOut,
)

log: Final = logging.getLogger("beaver.jobs")

LINES_BY_TASK: Final = 10
"""Lines of one task in a window."""
LINES_MAX: Final = 100
"""Lines of all tasks in a window."""
WINDOW_S: Final = 1.0
TASKS_COUNTED_MAX: Final = 1_000
"""Tasks whose omitted lines are counted separately; those of all others are counted together."""
OTHERS: Final = "(others)"
ERROR_CHARS_MAX: Final = 1_000
"""Characters of an error that stand in its line; the rest is shown by `beaver show`."""
NOTED_MAX: Final = 100_000
"""Bound on the attempts whose end is awaited: those that workers hold, and those that wait for
room."""

_FAILED: Final = frozenset({Retried, TimedOut, Died})


class FailureLog:
    """Observes the engine's commits and tells what failed."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._noted: dict[int, Attempt] = {}
        """By token: attempts whose end is on its way into the log."""
        self._lines: Counter[str] = Counter()
        """Lines of this window, by task."""
        self._left_out: dict[str, Counter[str]] = {}
        """What was left out in this window: names of events, by task."""
        self._window: asyncio.TimerHandle | None = None

    def note(self, attempt: Attempt) -> None:
        """Remembers an attempt that is about to end otherwise than by a plain success."""
        if len(self._noted) < NOTED_MAX:
            self._noted[attempt.token] = attempt

    def observe(self, first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
        """Tells the failures of a commit, once it is durable."""
        kinds = set(map(type, events))
        if not self._noted and kinds.isdisjoint(_FAILED):
            return
        for seq, event in enumerate(events, first_seq):
            if not isinstance(event, AttemptEnded):
                continue
            attempt = self._noted.pop(event.token, None)
            if isinstance(event, Retried | TimedOut | Died):
                self._tell(seq, now_ms, event, attempt)

    def close(self) -> None:
        """Says what was left out so far."""
        if self._window is not None:
            self._window.cancel()
            self._end_window()

    def _tell(
        self, seq: int, now_ms: int, event: Retried | TimedOut | Died, attempt: Attempt | None
    ) -> None:
        level = logging.ERROR if isinstance(event, Died) else logging.WARNING
        if not log.isEnabledFor(level):
            return
        facts = self._facts(seq, event, attempt)
        if not self._has_room(facts["task"], event.NAME):
            return
        message, traceback = split_error(event.error)
        facts["error"] = message[:ERROR_CHARS_MAX]
        when = ""
        if isinstance(event, Retried | TimedOut):
            facts["run_at_ms"] = event.run_at_ms
            wait_ms = event.run_at_ms - now_ms
            when = f", again in {format_duration(wait_ms)}" if wait_ms > 0 else ", again at once"
        extra: dict[str, Any] = {FACTS: facts}
        if isinstance(event, Died) or log.isEnabledFor(logging.DEBUG):
            extra[TRACEBACK] = traceback
        log.log(
            level,
            "%s job %s, task %s, queue %s, attempt %d of %d, cause %s%s%s",
            event.NAME,
            event.job,
            facts["task"],
            facts["queue"],
            facts["attempt"],
            facts["max_attempts"],
            event.cause,
            when,
            f": {error}" if (error := one_line(facts["error"])) else "",
            extra=extra,
        )

    def _facts(
        self, seq: int, event: Retried | TimedOut | Died, attempt: Attempt | None
    ) -> dict[str, Any]:
        facts: dict[str, Any] = {"event": event.NAME, "job": event.job, "seq": seq}
        if attempt is not None:
            facts |= {
                "task": attempt.task,
                "queue": attempt.queue,
                "attempt": attempt.attempt,
                "max_attempts": attempt.max_attempts,
            }
        else:
            row = self._state.jobs.get(event.job)
            facts |= {
                "task": row.spec.task if row is not None else "",
                "queue": row.spec.queue if row is not None else "",
                "attempt": row.attempt if row is not None else 0,
                "max_attempts": row.spec.max_attempts if row is not None else 0,
            }
        return {**facts, "cause": event.cause}

    # -- so much a second ----------------------------------------------------------------------

    def _has_room(self, task: str, name: str) -> bool:
        """True where this window has room for a line; else it is counted as left out."""
        if self._window is None:
            loop = asyncio.get_running_loop()
            self._window = loop.call_later(WINDOW_S, self._end_window)
        if self._lines[task] < LINES_BY_TASK and self._lines.total() < LINES_MAX:
            self._lines[task] += 1
            return True
        if task not in self._left_out and len(self._left_out) >= TASKS_COUNTED_MAX:
            task = OTHERS
        self._left_out.setdefault(task, Counter())[name] += 1
        return False

    def _end_window(self) -> None:
        left_out, self._left_out = self._left_out, {}
        self._lines.clear()
        self._window = None
        for task, counts in left_out.items():
            log.warning(
                "task %s: %s left out within a second (%s); `beaver list --state dead` and "
                "`beaver explain JOB` tell the rest",
                task,
                counted(counts.total(), "more line"),
                ", ".join(f"{name} {count}" for name, count in sorted(counts.items())),
                extra={FACTS: {"event": "LEFT_OUT", "task": task, "count": counts.total()}},
            )
