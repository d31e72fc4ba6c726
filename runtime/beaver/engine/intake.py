"""Intake: small requests for new jobs that wait to be decided and applied together.

Decided one by one, half the cost of a job is looking up the same queue and incrementing the same
counters.  Plain data; decisions are made in `engine`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from beaver_model.commands import NewJob

JOBS_MAX: Final = 1_000
BYTES_MAX: Final = 256 << 10
"""Bounds on the jobs, and the bytes of their payloads, in one intake."""


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A request for new jobs, and who gets which answer to the reply."""

    jobs: list[NewJob]
    answer: Callable[[list[NewJob], Any], Any]
    done: Callable[[Any], None]


class Intake:
    """What was asked for, in the order in which it came."""

    __slots__ = ("_bytes", "_jobs", "asked")

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._jobs = self._bytes = 0

    def add(self, asked: Asked) -> bool:
        """Takes in a request; True where nothing more may be added to it now."""
        self.asked.append(asked)
        self._jobs += len(asked.jobs)
        for job in asked.jobs:
            self._bytes += len(job.payload)
        return self._jobs >= JOBS_MAX or self._bytes >= BYTES_MAX

    def take(self) -> list[Asked]:
        """Returns what was asked for, and is empty."""
        asked, self.asked = self.asked, []
        self._jobs = self._bytes = 0
        return asked
