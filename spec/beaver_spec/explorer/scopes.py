"""The scopes: how far the explorer looks, as data.

A scope bounds everything that could go on for ever: jobs, workers, attempts, crashes, the
commands of one batch, and each thing that an operator, a client or fate may do.  Within its
bounds every interleaving is tried.  The report of a scope states what it leaves out.
"""

from __future__ import annotations

from typing import Final

import msgspec


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one exploration.  Numbers are upper bounds, each reached if it can be."""

    name: str
    claim: str
    """The purpose of the scope, in a sentence."""
    jobs: int
    workers: int
    attempts: int
    """`max_attempts` of every job."""
    batch: int = 2
    """Commands that may wait for one sync."""
    prefetch: int = 1
    """Attempts that one worker may hold."""
    crashes: int = 0
    """Ends of the server by `kill -9` (or by a power cut, where `power` is set)."""
    power: bool = False
    """The machine may go down too, and takes the slots with it."""
    many: int = 1
    """Attempts that one worker runs at once, as executors of threads and coroutines do."""
    early: bool = False
    """A queue opts out of the sync before a start: attempts go out with their DISPATCH unsynced."""
    unheard: int = 0
    """Outcomes of one worker that the server has not read yet; it then reads several at once."""
    several: bool = False
    """One command may dispatch two jobs, or report the successes of several."""
    stale: bool = False
    """Workers outlive the server and report late, as remote ones may."""
    remote: bool = False
    """Workers are remote: a lease ends their attempts, and no BOOT does."""
    fails: bool = True
    timeouts: bool = True
    fatal: bool = False
    """An attempt may fail for good."""
    losses: int = 0
    """Workers that die by themselves."""
    snoozes: int = 0
    cancels: int = 0
    requeues: int = 0
    discards: int = 0
    pauses: int = 0
    resubmits: int = 0
    """Ids that are sent again, with the same or with different content."""
    drains: int = 0
    """Orderly stops of the server."""
    reloads: int = 0
    """Times that new workers take the place of the old ones, which end what they run."""
    children: int = 0
    """Jobs that jobs enqueue with their ACK."""
    scheduled: bool = False
    """Jobs may come in with a `run_at` ahead."""
    second: bool = False
    """Jobs may come into a second queue too, which has another weight and is never paused."""
    tombstones_max: int | None = None
    """Finished jobs that are remembered; `None`: more than there are."""
    deep: bool = False
    """Explored only with `--deep`."""

    def bounds(self) -> dict[str, int | bool | None]:
        """Returns every bound by name, for reports."""
        every = msgspec.structs.asdict(self)
        return {k: v for k, v in every.items() if k not in {"name", "claim", "deep"}}


SCOPES: Final[tuple[Scope, ...]] = (
    Scope(
        name="core",
        claim="enqueue, dispatch, outcomes, limits, syncs, crashes, and stale workers",
        jobs=3,
        workers=2,
        attempts=2,
        crashes=2,
        prefetch=2,
        stale=True,
    ),
    Scope(
        name="pause",
        claim="a queue is paused and resumed while its jobs run",
        jobs=2,
        workers=2,
        attempts=2,
        crashes=1,
        pauses=2,
        scheduled=True,
    ),
    Scope(
        name="two-queues",
        claim="one of two queues is paused and resumed: its jobs wait, and those of the other, "
        "of another weight, run on",
        jobs=3,
        workers=1,
        attempts=2,
        crashes=1,
        pauses=1,
        timeouts=False,
        second=True,
    ),
    Scope(
        name="cancel",
        claim="jobs are cancelled wherever they are, and the server may crash meanwhile",
        jobs=2,
        workers=2,
        attempts=2,
        crashes=2,
        prefetch=2,
        cancels=2,
    ),
    Scope(
        name="requeue",
        claim="dead and cancelled jobs live again, while old attempts still report",
        jobs=2,
        workers=2,
        attempts=1,
        crashes=2,
        stale=True,
        fatal=True,
        cancels=1,
        requeues=2,
    ),
    Scope(
        name="discard",
        claim="jobs are discarded, and their ids sent again",
        jobs=2,
        workers=1,
        attempts=1,
        crashes=1,
        stale=True,
        fatal=True,
        timeouts=False,
        cancels=1,
        discards=2,
        resubmits=2,
    ),
    Scope(
        name="tombstones",
        claim="finished jobs are forgotten beyond the bound, and their ids come again",
        jobs=3,
        workers=1,
        attempts=1,
        crashes=1,
        stale=True,
        timeouts=False,
        discards=1,
        resubmits=2,
        tombstones_max=1,
    ),
    Scope(
        name="worker-loss",
        claim="workers die, idle or busy, with attempts that they have not read",
        jobs=3,
        workers=2,
        attempts=2,
        crashes=1,
        prefetch=2,
        losses=2,
        timeouts=False,
    ),
    Scope(
        name="power-cut",
        claim="the machine goes down: all that was in flight is charged, and suspect",
        jobs=3,
        workers=2,
        attempts=2,
        crashes=2,
        power=True,
        timeouts=False,
    ),
    Scope(
        name="prefetch",
        claim="workers hold more than they run; a last attempt goes to an idle worker only",
        jobs=3,
        workers=2,
        attempts=2,
        crashes=1,
        prefetch=2,
    ),
    Scope(
        name="give-back",
        claim="several attempts wait at one worker, and are taken back when the first one is long",
        jobs=3,
        workers=2,
        attempts=2,
        crashes=1,
        prefetch=3,
        batch=3,
        losses=1,
        timeouts=False,
    ),
    Scope(
        name="outcomes",
        claim="workers run on while outcomes wait, and the server reads several in one go; what a "
        "worker had reported before it was killed stands, and its neighbours lose nothing",
        jobs=3,
        workers=1,
        attempts=2,
        crashes=1,
        prefetch=3,
        unheard=2,
        losses=1,
        cancels=1,
    ),
    Scope(
        name="several",
        claim="two jobs are dispatched with one command, all or none, and several successes are "
        "reported with one; a crash keeps such a command whole or not at all",
        jobs=3,
        workers=1,
        attempts=2,
        crashes=1,
        prefetch=3,
        unheard=2,
        several=True,
        power=True,
        timeouts=False,
    ),
    Scope(
        name="early",
        claim="a queue opts out of the sync before a start: a crash may forget that an attempt "
        "began, and then does not count it; no job runs twice at once, none completes twice, "
        "and nothing acknowledged is lost, all the same",
        jobs=3,
        workers=2,
        attempts=2,
        crashes=2,
        prefetch=2,
        early=True,
        losses=1,
    ),
    Scope(
        name="suspects",
        claim="suspects that snooze, die and are requeued, and another power cut after the first",
        jobs=2,
        workers=2,
        attempts=3,
        crashes=2,
        power=True,
        prefetch=2,
        snoozes=1,
        requeues=1,
        timeouts=False,
    ),
    Scope(
        name="cancel-power-cut",
        claim="a cancel that was asked for is kept where the power fails, now and later",
        jobs=2,
        workers=1,
        attempts=2,
        crashes=2,
        power=True,
        prefetch=2,
        cancels=2,
        timeouts=False,
    ),
    Scope(
        name="shared",
        claim="a worker runs several attempts at once: what runs too long or was cancelled ends, "
        "softly or with its process, and its neighbours lose nothing",
        jobs=3,
        workers=1,
        attempts=2,
        crashes=1,
        prefetch=2,
        many=2,
        cancels=1,
    ),
    Scope(
        name="shared-losses",
        claim="workers that run several attempts die, and the server stops in order",
        jobs=2,
        workers=2,
        attempts=2,
        crashes=1,
        prefetch=2,
        many=2,
        losses=1,
        drains=1,
        cancels=1,
        power=True,
    ),
    Scope(
        name="drain",
        claim="the server stops in order: what runs may end or is given back",
        jobs=2,
        workers=2,
        attempts=2,
        crashes=1,
        prefetch=2,
        drains=2,
        snoozes=1,
    ),
    Scope(
        name="reload",
        claim="new workers take over while old ones run their jobs to the end, or die: what had "
        "not started is given back, and nothing is charged for it",
        jobs=3,
        workers=1,
        attempts=2,
        crashes=1,
        prefetch=3,
        batch=3,
        losses=1,
        reloads=1,
        timeouts=False,
    ),
    Scope(
        name="children",
        claim="a job enqueues others with its own ACK: both are logged, or neither",
        jobs=3,
        workers=2,
        attempts=2,
        crashes=1,
        timeouts=False,
        children=2,
        resubmits=1,
    ),
    Scope(
        name="leases",
        claim="workers are remote: leases end while they report, late ones are refused, and what "
        "they run outlives the server, which may lose what it had not written down",
        jobs=2,
        workers=2,
        attempts=2,
        crashes=2,
        power=True,
        stale=True,
        remote=True,
        cancels=1,
    ),
    Scope(
        name="core-deep",
        claim="as `core`, with three attempts and three crashes",
        jobs=3,
        workers=2,
        attempts=3,
        crashes=3,
        prefetch=2,
        stale=True,
        deep=True,
    ),
    Scope(
        name="four-jobs",
        claim="as `core`, with four jobs and without prefetch",
        jobs=4,
        workers=2,
        attempts=2,
        crashes=2,
        stale=True,
        timeouts=False,
    ),
    Scope(
        name="operators",
        claim="every operator command, power cuts and worker losses together",
        jobs=2,
        workers=2,
        attempts=2,
        crashes=1,
        power=True,
        prefetch=2,
        losses=1,
        cancels=1,
        requeues=1,
        discards=1,
        pauses=1,
        timeouts=False,
        deep=True,
    ),
)


def scope_named(name: str) -> Scope:
    """Returns a scope.  Raises `KeyError` with the names that there are."""
    for scope in SCOPES:
        if scope.name == name:
            return scope
    raise KeyError(f"no scope is named {name}; there are {', '.join(s.name for s in SCOPES)}")


NOT_EXPLORED: Final = (
    (
        "bytes: torn frames, bit flips, blocks that persist out of order (the stateful tests and "
        "the specification of storage do that; here a commit survives whole or not at all)"
    ),
    (
        "the engine, the controller and the pool as written (the simulator runs those); their "
        "rules are modelled: replies and attempts go out after the sync, slots are written before "
        "user code, a worker is reaped before the log says so, leftovers are killed before BOOT"
    ),
    "the scheduling policy: every eligible job is tried, so nothing rests on which is picked",
    "more jobs, workers, attempts, crashes or commands in a batch than each scope's bounds",
    (
        "more than two queues, or weights that change (`tests/model/test_forgetting.py` goes "
        "through every way to fill, empty and forget three), priorities, tags, and what payloads, "
        "results and errors hold"
    ),
    "tombstones that expire by age, and bounds that change while jobs exist",
    "snoozes up to their bound of 10,000 (the cells check the bound itself)",
    "clocks that step back (the model takes the later of its stamp and the clock)",
)
