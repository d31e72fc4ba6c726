"""The plan of a seed: a setup, and a list of acts with their times.

Everything that happens *to* the queue is drawn here, before a run begins: what clients
send, what operators want, what each attempt of a job will do, and which faults strike when.
So a run can be repeated with some of its acts left out, which is how a failure is shrunk.
What is drawn *during* a run, by a stream of its own, is order and duration alone.

What may not live here: how an act is carried out.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

STEPS_DEFAULT: Final = 24
"""Acts of a run, unless it is told otherwise."""
CLIENTS: Final = 2
REQUESTS: Final = (
    "cancel",
    "requeue",
    "discard",
    "pause",
    "resume",
    "weight",
    "show",
    "wait",
    "status",
)
"""Client requests other than `enqueue`."""
QUEUES: Final = ("default", "mail")
PASSING: Final = ("mail-0", "mail-1", "mail-2", "mail-3", "mail-4")
"""Queues of a few jobs each, more than there is room for: one is forgotten for the next."""
TASK: Final = "play"
QUEUES_MAX: Final = 3
"""Queues that a simulated store may know beside the default."""
BUSY: Final = 80
"""Requests of a busy time: enough for the way of commits to change, and to change back."""
_BUSY_EACH_MS: Final = 4
CROWDS: Final = (5, 9, 20, 60, 120, 300, 500)
"""Numbers of requests that come at one moment: above and below each threshold of batching."""
_SLOW_US: Final = 10_000
"""Longest sync of the slow disk in a busy time."""
_SPACINGS_MS: Final = (1, 30, 30, 200)
"""Mean time between two acts: all at once, busy, or with time for housekeeping."""


class Chance:
    """A stream of choices.  Uses only `random()`, which every Python draws alike."""

    def __init__(self, seed: int, stream: str) -> None:
        self._random = random.Random(f"{seed}/{stream}").random  # noqa: S311 - repeatable

    def below(self, count: int) -> int:
        """Returns a choice from 0 to `count` - 1."""
        return int(self._random() * count)

    def random(self) -> float:
        """Returns a float in [0, 1)."""
        return self._random()

    def between(self, least: int, most: int) -> int:
        return least + int(self._random() * (most - least + 1))

    def one_in(self, count: int) -> bool:
        return self._random() * count < 1.0

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random() * len(options))]

    def token_bytes(self, count: int) -> bytes:
        """See `ports.Entropy`."""
        return bytes(int(self._random() * 256) for _ in range(count))


class Script(NamedTuple):
    """The behaviour of one attempt of a job."""

    how: str
    """`ok`, `fail`, `dead`, `snooze`, `cancel`, `die` (its worker does) or `hang`."""
    ms: int
    children: int = 0


class JobPlan(NamedTuple):
    """A job as it will be sent."""

    id: str
    queue: str
    priority: int
    scripts: tuple[Script, ...]
    """One for each time that it is begun; the last one repeats."""
    timeout_ms: int
    max_attempts: int
    backoff_ms: int
    delay_ms: int


class Act(NamedTuple):
    """One thing that happens at a time, whatever else is going on."""

    at_ms: int
    kind: str
    args: tuple[Any, ...]


class Setup(NamedTuple):
    """The setup of a whole run."""

    workers: int
    concurrency: int
    """Attempts at once in a worker; 0 stands for the process executor."""
    prefetch: int
    grace_ms: int
    segment_bytes: int
    in_order: bool
    """Callbacks of a process run as asyncio orders them; otherwise in any order."""
    latency_us: int
    """Longest way of a message."""
    sync_us: int
    """Longest sync."""
    commit: str
    """How the log is written: `inline`, by a `writer`, or `auto`."""
    keep_archive: bool
    tombstones_max: int
    tombstones_age_ms: int
    start_ms: int
    """A worker's start that takes longer is ended."""
    keepers: bool = False
    """Between two servers a producer may start a keeper."""
    eager: bool = False
    """The queue `mail` has opted out of a durable DISPATCH."""
    passing: bool = False
    """There is room for few queues, and jobs come to more."""
    crowd: bool = False
    """Many requests come at one moment, and what has arrived is read at once."""


class Plan(NamedTuple):
    """A whole run."""

    seed: int
    setup: Setup
    acts: tuple[Act, ...]
    favour: str = ""
    """The fault that strikes more often than others, where one was asked for."""


def draw_plan(seed: int, steps: int = STEPS_DEFAULT, favour: str = "") -> Plan:
    """Returns the plan of a seed.

    Args:
        seed: Any number.
        steps: How many acts there are.
        favour: A fault that is to strike often.
    """
    chance = Chance(seed, "plan")
    many = chance.one_in(4)
    setup = Setup(
        workers=chance.between(1, 3),
        concurrency=chance.between(2, 3) if many else 0,
        prefetch=chance.pick((0, 3, 3)),
        grace_ms=chance.pick((20, 100, 300)),
        segment_bytes=chance.pick((2048, 4096, 16384)),
        in_order=chance.one_in(2),
        latency_us=chance.pick((50, 500, 5_000)),
        sync_us=chance.pick((50, 500, 5_000)),
        commit=chance.pick(("inline", "inline", "writer", "auto")),
        keep_archive=chance.one_in(2),
        tombstones_max=chance.pick((1_000_000, 1_000_000, 900_000, 3)),
        tombstones_age_ms=chance.pick((0, 0, 0, 300)),
        start_ms=chance.pick((50, 500, 5_000)),
        keepers=Chance(seed, "keeper").one_in(3),
        eager=Chance(seed, "eager").one_in(3),
        passing=Chance(seed, "queues").one_in(4),
    )
    drawing = _Drawing(chance, steps, favour)
    acts = drawing.acts()
    if chance.one_in(24):
        # The very first start is cut short, while the store is made.
        acts.insert(0, Act(0, "kill_server", (chance.between(1, 12), chance.one_in(2), -1)))
    if setup.commit == "auto" and chance.one_in(6):
        acts = sorted(acts + drawing.busy_time(setup.sync_us), key=_time)
    # Drawn apart: seeds that have none mean what they have always meant.
    reloads = Chance(seed, "reload")
    if favour == "reload" or reloads.one_in(4):
        acts = sorted(acts + drawing.reloads(reloads), key=_time)
    sent = Chance(seed, "sent")
    if favour == "kill_behind_dispatch" or sent.one_in(8):
        acts = sorted(acts + drawing.kills_behind_dispatches(sent), key=_time)
    crowds = Chance(seed, "crowd")
    if favour == "crowd" or crowds.one_in(16):
        setup = setup._replace(crowd=True, prefetch=crowds.pick((0, 3, 30, 200)))
        acts = sorted(acts + drawing.crowd(crowds), key=_time)
    if setup.passing:
        acts = [_in_passing_queues(act) if act.kind == "enqueue" else act for act in acts]
    return Plan(seed, setup, tuple(acts), favour)


def _in_passing_queues(act: Act) -> Act:
    """Gives some jobs queues that come and go; a job that is sent again has the same one."""
    client, jobs = act.args
    return act._replace(args=(client, tuple(map(_moved, jobs))))


def _moved(job: JobPlan) -> JobPlan:
    number = int(job.id[1:])
    if job.queue == QUEUES[0] or not number % 3:
        return job
    return job._replace(queue=PASSING[number % len(PASSING)])


class _Drawing:
    """Draws the acts of one plan."""

    def __init__(self, chance: Chance, steps: int, favour: str) -> None:
        self._chance, self._steps = chance, steps
        self._number = 0
        self._jobs: list[JobPlan] = []
        self._requests: list[tuple[JobPlan, ...]] = []
        # A run has a temper: some are calm, some have one kind of fault again and again.
        self._faulty = chance.pick((0, 6, 3, 3))
        self._favourite = chance.pick(FAULTS)
        if favour in FAULTS:
            self._faulty, self._favourite = 3, favour
        self._orders = _UPKEEP if chance.one_in(4) else _ORDERS
        self._span_ms = steps * chance.pick(_SPACINGS_MS)

    def acts(self) -> list[Act]:
        acts = []
        for _ in range(self._steps):
            at_ms = self._chance.between(0, self._span_ms)
            kind, args = self._draw()
            acts.append(Act(at_ms, kind, args))
        return sorted(acts, key=_time)

    def busy_time(self, sync_us: int) -> list[Act]:
        """Draws many small requests while the disk is slow, and then while it is not."""
        begin_ms = self._chance.between(0, self._span_ms)
        slow = Act(begin_ms, "slow_disk", (max(1, _SLOW_US // sync_us), BUSY * _BUSY_EACH_MS // 2))
        acts = [slow]
        for n in range(BUSY):
            self._number += 1
            job = JobPlan(f"j{self._number}", QUEUES[0], 5, (Script("ok", 0),), 400, 3, 5, 0)
            acts.append(Act(begin_ms + n * _BUSY_EACH_MS, "enqueue", (n % CLIENTS, (job,))))
        return acts

    def crowd(self, chance: Chance) -> list[Act]:
        """Draws many small requests, by one client or by all, that come at one moment."""
        at_ms, scattered = chance.between(0, self._span_ms), chance.one_in(2)
        acts = []
        for n in range(chance.pick(CROWDS)):
            self._number += 1
            job = JobPlan(f"j{self._number}", QUEUES[0], 5, (Script("ok", 0),), 400, 3, 5, 0)
            acts.append(Act(at_ms, "enqueue", (n % CLIENTS if scattered else 0, (job,))))
        return acts

    def reloads(self, chance: Chance) -> list[Act]:
        """Draws one reload or more; some fail, and some change the number of workers."""
        acts = []
        for _ in range(chance.pick((1, 1, 2, 6))):
            how = chance.pick(("ok", "ok", "ok", "broken"))
            at_ms = chance.between(0, self._span_ms)
            acts.append(Act(at_ms, "reload", (how, chance.between(1, 3))))
        return acts

    def kills_behind_dispatches(self, chance: Chance) -> list[Act]:
        """Draws kills in the very moment in which jobs are sent; most machines are busy then."""
        return [
            Act(
                chance.between(0, self._span_ms),
                "kill_behind_dispatch",
                (chance.pick((0, chance.between(1, 100), 500)),),
            )
            for _ in range(chance.between(1, 3))
        ]

    def _draw(self) -> tuple[str, tuple[Any, ...]]:
        chance = self._chance
        if self._faulty and chance.one_in(self._faulty):
            kind = self._favourite if chance.one_in(2) else chance.pick(FAULTS)
            return kind, _FAULT_ARGS[kind](chance)
        client = chance.below(CLIENTS)
        if not self._jobs or chance.one_in(2):
            return "enqueue", (client, self._request())
        kind = chance.pick(self._orders)
        if kind == "again":
            return "enqueue", (client, chance.pick(self._requests))
        if kind in ("pause", "resume", "weight"):
            return kind, (client, chance.pick(QUEUES), chance.between(1, 20))
        if kind in ("snapshot", "prepare", "restart"):
            return kind, ()
        return kind, (client, chance.pick(self._jobs).id, chance.pick((0, 50, 2_000)))

    def _request(self) -> tuple[JobPlan, ...]:
        jobs = tuple(self._job() for _ in range(self._chance.pick((1, 1, 1, 2, 5))))
        self._jobs += jobs
        self._requests.append(jobs)
        return jobs

    def _job(self) -> JobPlan:
        chance = self._chance
        self._number += 1
        scripts = [_script(chance) for _ in range(chance.pick((0, 0, 0, 1, 1, 2)))]
        scripts.append(Script(chance.pick(_LAST), chance.pick(_DURATIONS_MS), 0))
        if chance.one_in(8):
            scripts[-1] = Script("ok", 1, chance.between(1, 2))
        return JobPlan(
            id=f"j{self._number}",
            queue=chance.pick(QUEUES),
            priority=chance.pick((5, 5, 5, 0, 9)),
            scripts=tuple(scripts),
            timeout_ms=chance.pick((60, 120, 400)),
            max_attempts=chance.between(1, 4),
            backoff_ms=chance.pick((5, 20, 200)),
            delay_ms=chance.pick((0, 0, 0, 0, 30, 400)),
        )


_LAST: Final = ("ok", "ok", "ok", "ok", "ok", "fail", "dead", "hang", "die")
_DURATIONS_MS: Final = (0, 1, 1, 2, 5, 20, 58, 60, 62, 120, 150)


def _script(chance: Chance) -> Script:
    how = chance.pick(("fail", "fail", "snooze", "die", "hang", "cancel", "ok"))
    return Script(how, chance.pick(_DURATIONS_MS), 0)


def _time(act: Act) -> int:
    return act.at_ms


_ORDERS: Final = (
    "again",
    "again",
    "cancel",
    "cancel",
    "requeue",
    "discard",
    "pause",
    "resume",
    "resume",
    "weight",
    "show",
    "wait",
    "wait",
    "status",
    "snapshot",
    "snapshot",
    "prepare",
    "prepare",
    "restart",
)


_UPKEEP: Final = (*_ORDERS, *("snapshot", "prepare") * 6)
"""Segments and snapshots come and go as in days of a real server."""


def _stop_args(chance: Chance) -> tuple[Any, ...]:
    """At once, or in the middle of one of the next disk operations; done all the same or not."""
    return (chance.between(0, 8), chance.one_in(2), chance.pick((-1, 0, 36, 200, 600)))


def _error_args(chance: Chance) -> tuple[Any, ...]:
    number = chance.pick((errno.EIO, errno.EIO, errno.ENOSPC))
    return (chance.between(1, 8), number, chance.pick((-1, 0, 100)))


def _no_args(chance: Chance) -> tuple[Any, ...]:
    return ()


_FAULT_ARGS: Final[dict[str, Callable[[Chance], tuple[Any, ...]]]] = {
    "kill_server": _stop_args,
    "power_cut": _stop_args,
    "double_crash": lambda c: (c.one_in(2), c.between(1, 12), c.pick((0, 0, 0, errno.EIO))),
    "disk_error": _error_args,
    "failed_sync": lambda c: (c.between(1, 3), c.between(20, 200)),
    "read_error": lambda c: (c.between(1, 20),),
    "helper_error": _error_args,
    "kill_helper": lambda c: (c.between(0, 6),),
    "disk_full": lambda c: (c.between(10, 3_000), c.pick((0, 0, 5_000))),
    "kill_writer": _no_args,
    "kill_worker": lambda c: (c.below(3) + 1,),
    "stop_worker": lambda c: (c.below(3) + 1, 0 if c.one_in(4) else c.between(5, 900)),
    "hang_start": lambda c: (c.below(3) + 1, c.between(1, 3), c.pick((0, 0, 20, 200, 2_000))),
    "lose_zygote": _no_args,
    "stop_server": lambda c: (c.between(5, 900),),
    "clock": lambda c: (c.pick((-3_600_000, -2_000, -50, 50, 2_000, 3_600_000)),),
    "slow_disk": lambda c: (c.between(10, 100), c.between(50, 500)),
    "rot_snapshot": lambda c: (c.random(), c.below(8)),
    "remove_lock": _no_args,
    "replace_log": _no_args,
    "late_outcome": lambda c: (c.below(3) + 1, c.random()),
    "cut": lambda c: (c.below(CLIENTS),),
}
"""Each fault, and how its arguments are drawn."""

FAULTS: Final = tuple(_FAULT_ARGS)
FAVOURS: Final = (*FAULTS, "reload", "crowd", "kill_behind_dispatch")
"""What a campaign can favour."""
