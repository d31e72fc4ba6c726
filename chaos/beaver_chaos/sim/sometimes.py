"""Situations that must occur sometimes: a simulator that never reaches them checks nothing there.

Each is counted where it happens; over the seeds of CI none may stay at zero.  Events of the
log and acts of the plans are counted as well, by name, in `sim.campaign`.
"""

from __future__ import annotations

from typing import Final

from beaver.dispatch.slots_view import KillCause
from beaver.journal.wal.recovery_table import RecoveryRow
from beaver_chaos.sim.plan import REQUESTS
from beaver_model.events import Cause

RELEASES: Final = (
    Cause.DRAIN,
    Cause.SNOOZE,
    Cause.NEVER_STARTED,
    Cause.NEIGHBOUR,
)
CHARGES: Final = (
    Cause.FAILED,
    Cause.NOT_RETRYABLE,
    Cause.WORKER_LOST,
    Cause.TIME_LIMIT,
    Cause.NODE_LOST,
)

ELSEWHERE: Final = (RecoveryRow.SEALING_COPIED,)
"""Rows that only a directory copied by people leads to; `tests/journal` makes such copies."""

KILLS: Final = [c for c in KillCause if c not in (KillCause.LEAVE, KillCause.REFUSED)]
"""Simulated workers answer for nothing that they never held, and a stopped worker meets a reload
too seldom: the tests of real workers and of crews do those two."""

SIZES: Final = ("2 to 4", "5 to 8", "9 to 19", "20 to 99", "100 or more")
"""Beside each other lie sizes on both sides of what is done otherwise for many at once."""
SIZED: Final = (
    "an intake of {} requests",
    "a commit before {} answers",
    "a commit of {} events",
    "a run of {} like events",
    "a message of {} attempts",
)


def sized(what: str, size: int) -> str:
    """Returns the one of `SOMETIMES` that says how large something was; nothing for one alone."""
    if size < 2:
        return ""
    bounds = (4, 8, 19, 99)
    return what.format(SIZES[sum(size > bound for bound in bounds)])


SOMETIMES: Final[tuple[str, ...]] = (
    *(what.format(size) for what in SIZED for size in SIZES),
    *(f"a client's {request} is done" for request in REQUESTS),
    "a request is sent again, and the job is known",
    "an id is forgotten and stands for a new job",
    "no queue can be forgotten for a new one",
    "a tombstone is evicted by number",
    "a tombstone is evicted by age",
    *(f"an attempt is given back: {cause}" for cause in RELEASES),
    *(f"an attempt is charged: {cause}" for cause in CHARGES),
    "a prefetch is taken back from a living worker",
    "a dead worker's prefetch is given back",
    "a suspect is dispatched",
    "an attempt starts before its DISPATCH is durable",
    "a crash takes the DISPATCH of what had started",
    *(f"a worker is killed: {cause.value}" for cause in KILLS),
    "a reload takes over",
    "a reload fails, and the former workers serve on",
    "a reload gives back a prefetch",
    "a former worker ends its job",
    "two crews are side by side",
    "a leftover begins an attempt as it is killed",
    "a server is killed right behind a dispatch",
    "a worker ends between permit and slot",
    "a prefetch is taken back behind a permit that was read",
    "a dead worker leaves a subprocess behind",
    "a death is told late, for what the worker has left",
    "a zygote is lost, and another takes its place",
    "a zygote hears late that its server is dead",
    "a worker hangs before it is ready",
    "a worker is stopped for ever",
    "an outcome waits for room in the log",
    "a commit waits for others to come in",
    "commits move to the writer",
    "commits move back to the loop",
    "the writer dies in the middle of a frame",
    "a writer outlives its server",
    "a lock file that was removed is made again",
    "the log is replaced under a server",
    "a segment is sealed",
    "a snapshot is taken",
    "a segment is pruned",
    "the helper is killed during a snapshot",
    "the helper is killed during a projection",
    "the helper outlives its server",
    "the log is projected",
    "new jobs are refused for want of disk",
    "a server ends itself",
    "a server is killed during its recovery",
    "a server refuses to start for a while",
    *(f"recovery meets {row.label}" for row in RecoveryRow if row.goes_on and row not in ELSEWHERE),
    "the older snapshot has to do",
    "a keeper takes in what producers send",
    "a keeper is killed",
    "a request is left by who ends, and sent again",
)
