"""What a trace tells of the store besides its jobs: queues, their settings, and tombstones.

What may not live here: anything of `beaver_model`, and jobs (`rules`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from beaver_spec.traces.fields import NAME_BYTES_MAX, is_name
from beaver_spec.traces.lifecycle import QUEUES_MAX, TOMBSTONES_MAX, WEIGHT


class KnownQueues:
    """The queues that are known, how many jobs each has, and their settings."""

    def __init__(self, *, is_whole: bool) -> None:
        """Knows none.

        Args:
            is_whole: The trace begins with the log, so no queue is from before it.
        """
        self._is_whole = is_whole
        self._jobs: dict[str, int] = {}
        """How many jobs of each queue can still change, of those that came in within the trace."""
        self._paused: set[str] = set()
        self._set: set[str] = set()
        """Queues with settings that differ from those of a new one."""

    def is_paused(self, queue: str) -> bool:
        """True where no job of the queue may start."""
        return queue in self._paused

    def enter(self, queue: str) -> str | None:
        """Counts a job that came in; returns why its queue cannot be made, or `None`."""
        self._jobs[queue] = self._jobs.get(queue, 0) + 1
        return self._too_many(queue)

    def leave(self, queue: str) -> None:
        """Counts the end of a job that was counted."""
        self._jobs[queue] -= 1

    def change(self, fields: dict[str, Any]) -> str | None:
        """Takes new settings; returns why they cannot be, or `None`."""
        queue = fields["queue"]
        if not 1 <= fields["weight"] <= 1_000 or fields["bytes_max"] < 0:
            return f"queue {queue} gets a weight or a bound out of range"
        if not isinstance(fields["durable_dispatch"], bool):
            return f"queue {queue} waits for its DISPATCH neither way"
        if not is_name(queue, NAME_BYTES_MAX):
            return f"{queue!r} is no name of a queue"
        change = self._paused.add if fields["paused"] else self._paused.discard
        change(queue)
        is_set = fields["paused"] or fields["weight"] != WEIGHT or fields["bytes_max"]
        change = self._set.add if is_set or not fields["durable_dispatch"] else self._set.discard
        change(queue)
        self._jobs.setdefault(queue, 0)
        return self._too_many(queue)

    def forget(self, queue: str) -> str | None:
        """Forgets a queue; returns why it cannot be forgotten, or `None`."""
        if queue == "default":
            return "the default queue is forgotten"
        if self._is_whole and queue not in self._jobs:
            return f"queue {queue} is not known"
        jobs = self._jobs.pop(queue, 0)
        if jobs:
            return f"queue {queue} has {jobs} jobs"
        return f"queue {queue} has settings" if queue in self._set else None

    def _too_many(self, queue: str) -> str | None:
        known = len(self._jobs)
        if known > QUEUES_MAX and known - ("default" in self._jobs) > QUEUES_MAX:
            return f"queue {queue} is one too many"
        return None


class Tombstones:
    """Finished jobs that must be remembered, the oldest first."""

    def __init__(self, *, is_whole: bool) -> None:
        """Knows none.

        Args:
            is_whole: The trace begins with the log, so the bounds are those of a new store;
                otherwise nothing is remembered until a BOUNDS event says how much has to be.
        """
        self._times_ms: OrderedDict[str, int] = OrderedDict()
        self._count_max = TOMBSTONES_MAX if is_whole else 0
        self._age_ms = 0

    def __contains__(self, job: str) -> bool:
        return job in self._times_ms

    def bury(self, job: str, time_ms: int) -> None:
        """Remembers a finished job, and forgets at once whatever may be forgotten."""
        times_ms, age_ms = self._times_ms, self._age_ms
        times_ms.pop(job, None)
        times_ms[job] = time_ms
        while times_ms and (
            len(times_ms) > self._count_max
            or (age_ms and next(iter(times_ms.values())) < time_ms - age_ms)
        ):
            times_ms.popitem(last=False)

    def bound(self, fields: dict[str, Any]) -> str | None:
        """Takes new bounds; returns why they cannot be, or `None`."""
        if fields["tombstones_max"] < 0 or fields["tombstones_age_ms"] < 0:
            return "a bound of tombstones is negative"
        self._count_max = fields["tombstones_max"]
        self._age_ms = fields["tombstones_age_ms"]
        return None
