"""Jobs of tasks that no worker of the server knows: accepted, with a warning in the answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from beaver.inspect import queries
from beaver.structs.views import Accepted, AcceptedBriefly
from beaver_model import State
from beaver_model.commands import NewJob
from beaver_model.rows import spec_of

_MEMO_MAX: Final = 10_000
_NEAR_MAX: Final = 256
"""Maximum number of names compared with an unknown task's name."""


class Strangers:
    """Knows which specifications name a task that workers do not."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: frozenset[str] | None = None
        self._memo: dict[bytes, tuple[str, ...]] = {}
        """By spec: the task and known ones that are like it; empty where workers know it."""

    def told(self, jobs: list[NewJob], found: list[Any]) -> list[Any]:
        """Returns the answers to jobs, in which each of an unknown task says so."""
        known, memo = self._state.known_tasks, self._memo
        if known is None:
            return found  # Nobody has said what the workers know.
        if known is self._known and len(jobs) == 1 and memo.get(jobs[0].spec) == ():
            return found  # As nearly always.
        strange = self._among({job.spec for job in jobs}, known)
        if not strange:
            return found
        return [
            _with_task(one, strange.get(job.spec)) for job, one in zip(jobs, found, strict=True)
        ]

    def _among(self, specs: Iterable[bytes], known: frozenset[str]) -> dict[bytes, tuple[str, ...]]:
        if known is not self._known or len(self._memo) > _MEMO_MAX:
            self._known, self._memo = known, {}
        memo = self._memo
        for spec in specs:
            if spec not in memo:
                task = spec_of(spec).task
                near = () if task in known else (task, *queries.near(task, known, _NEAR_MAX))
                memo[spec] = near
        return {spec: memo[spec] for spec in specs if memo[spec]}


def _with_task(one: AcceptedBriefly, names: tuple[str, ...] | None) -> AcceptedBriefly:
    return one if names is None else Accepted(one.id, one.seq, one.created, names)
