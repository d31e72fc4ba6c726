"""The core of the log's promise, proved by induction: for any number of records and crashes.

TLC looks at every state within small bounds (`spec/tla/Log.tla`); here z3 shows without
bounds that an invariant holds at the start, that every action keeps it, and that it implies
what was promised.  The price is abstraction: a frame is whole or it is not, and a torn one
never becomes whole by mixing blocks (that is what `Log.tla` looks at).

Each action is one formula over the state before and after it.  A bug sown on purpose changes
one of them; the induction must then fail, and, so that this is no weakness of the invariant,
a run from the start to a broken promise must exist, and is told step by step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from beaver_spec.results import CheckResult, Verdict

Formula = Any
"""A z3 expression; z3 comes without types."""

TIMEOUT_MS: Final = 30_000
RUN_INDEXES: Final = 4
"""Places in the log that such a run may use."""

RUN_STEPS_MAX: Final = 8
"""A sown bug must break a promise within so many steps from the start."""


class Before(dict[str, Formula]):
    """The values of a state, by name."""


Action = Callable[["Vocabulary", Before, Before], Formula]
Predicate = Callable[["Vocabulary", Before], dict[str, Formula]]


class System(NamedTuple):
    """A transition system and what is claimed of it."""

    name: str
    sorts: dict[str, str]
    """Name of each variable and its sort, as `Vocabulary` spells it."""
    start: Predicate
    actions: Callable[[str], dict[str, Action]]
    """The actions, with a bug of this name sown, or none."""
    invariant: Predicate
    promise: Predicate
    bugs: dict[str, str]
    """The bugs that can be sown, each with a sentence."""


class Vocabulary:
    """What formulas are made of.

    Quantifiers range over all indexes, or, where a run is looked for, over the first few:
    a run of n steps touches no others.
    """

    def __init__(self, z3: Any, indexes: int = 0) -> None:
        self.z3 = z3
        self._indexes = indexes
        self._frame = z3.DeclareSort("Frame")
        self._fresh = 0
        self.limits: list[Formula] = []
        """What else must hold where indexes are few."""

    def sort(self, name: str) -> Any:
        """Returns the sort of a variable."""
        z3 = self.z3
        return {
            "count": z3.IntSort(),
            "phase": z3.IntSort(),
            "frame": self._frame,
            "flags": z3.ArraySort(z3.IntSort(), z3.BoolSort()),
            "frames": z3.ArraySort(z3.IntSort(), self._frame),
        }[name]

    def state(self, sorts: dict[str, str], suffix: str) -> Before:
        """Returns fresh variables for one state."""
        return Before({n: self._named(n + suffix, s) for n, s in sorts.items()})

    def any(self, sort: str) -> Formula:
        """Returns a value that anything may have chosen."""
        self._fresh += 1
        return self._named(f"any{self._fresh}", sort)

    def _named(self, name: str, sort: str) -> Formula:
        value = self.z3.Const(name, self.sort(sort))
        if self._indexes and sort == "count":
            self.limits.append(self.z3.And(value >= 0, value < self._indexes))
        return value

    def every(self, body: Callable[[Formula], Formula]) -> Formula:
        """Returns that `body` holds for every index."""
        z3 = self.z3
        if self._indexes:
            return z3.And([body(z3.IntVal(i)) for i in range(self._indexes)])
        self._fresh += 1
        index = z3.Int(f"i{self._fresh}")
        return z3.ForAll([index], z3.Implies(index >= 0, body(index)))

    def keep(self, old: Before, new: Before, *changed: str) -> list[Formula]:
        """Returns that nothing but `changed` changes."""
        return [new[name] == old[name] for name in old if name not in changed]


# -- the log ------------------------------------------------------------------------------------

DOWN, FOUND, CUT, REWRITTEN, UP, REFUSED = range(6)
"""Phases of a process: those between DOWN and UP are recovery's."""

_LOG_SORTS: Final = {
    "cached": "frames",  # the frame at each place, as processes read it
    "cached_ok": "flags",  # and whether it is whole there
    "disk": "frames",  # the same as a power cut leaves it
    "disk_ok": "flags",
    "dirty": "flags",  # the kernel still means to write it
    "written": "frames",  # this timeline: what recovery accepted, then what was appended
    "wrote": "count",  # how many those are
    "told": "count",  # how many of them someone outside relies on
    "log": "count",  # how many the running process believes in
    "last": "frame",  # the last frame that recovery has read, in its memory
    "phase": "phase",
}


def _log_start(v: Vocabulary, s: Before) -> dict[str, Formula]:
    z3 = v.z3
    return {
        "an empty log": z3.And(
            v.every(lambda i: z3.Not(z3.Or(s["cached_ok"][i], s["disk_ok"][i], s["dirty"][i]))),
            s["wrote"] == 0,
            s["told"] == 0,
            s["log"] == 0,
            s["phase"] == UP,
        )
    }


def _log_actions(bug: str) -> dict[str, Action]:
    return {
        "write a frame": _write(bug),
        "sync it and acknowledge": _sync,
        "the sync fails": _sync_fails(bug),
        "the kernel writes back": _write_back,
        "the kernel writes back a part": _write_back_a_part,
        "the kernel drops a clean page": _evict,
        "kill": _kill,
        "kill in the middle of a write": _kill_in_write,
        "power cut": _power_cut,
        "recovery reads the log": _scan,
        "recovery cuts the tail": _cut,
        "recovery rewrites the last frame": _rewrite(bug),
        "recovery syncs and accepts": _accept,
        "recovery's sync fails": _recovery_fails,
    }


def _write(bug: str) -> Action:
    def action(v: Vocabulary, s: Before, t: Before) -> Formula:
        z3, frame, at = v.z3, v.any("frame"), s["log"]
        room = at <= s["told"] + 1 if bug == "two unsynced" else at == s["told"]
        return z3.And(
            s["phase"] == UP,
            room,
            t["cached"] == z3.Store(s["cached"], at, frame),
            t["cached_ok"] == z3.Store(s["cached_ok"], at, True),
            t["dirty"] == z3.Store(s["dirty"], at, True),
            t["written"] == z3.Store(s["written"], at, frame),
            t["wrote"] == at + 1,
            t["log"] == at + 1,
            t["told"] == (at + 1 if bug == "acknowledge before sync" else s["told"]),
            *v.keep(s, t, "cached", "cached_ok", "dirty", "written", "wrote", "log", "told"),
        )

    return action


def _synced(v: Vocabulary, s: Before, t: Before, low: Formula, high: Formula) -> Formula:
    """Returns that what is dirty from `low` up to `high` goes to the disk."""
    z3 = v.z3

    def at(i: Formula) -> Formula:
        inside = z3.And(low <= i, i < high)
        goes = z3.And(inside, s["dirty"][i])
        return z3.And(
            t["disk"][i] == z3.If(goes, s["cached"][i], s["disk"][i]),
            t["disk_ok"][i] == z3.If(goes, s["cached_ok"][i], s["disk_ok"][i]),
            t["dirty"][i] == z3.And(s["dirty"][i], z3.Not(inside)),
        )

    return v.every(at)


def _not_synced(v: Vocabulary, s: Before, t: Before, low: Formula, high: Formula) -> Formula:
    """Returns that any part of that goes, and that all of it counts as clean from now on."""
    z3 = v.z3

    def at(i: Formula) -> Formula:
        inside = z3.And(low <= i, i < high)
        same = z3.And(t["disk"][i] == s["disk"][i], t["disk_ok"][i] == s["disk_ok"][i])
        whole = z3.And(t["disk"][i] == s["cached"][i], t["disk_ok"][i] == s["cached_ok"][i])
        torn = z3.And(z3.Not(_is_same(s, i)), z3.Not(t["disk_ok"][i]))
        return z3.And(
            z3.If(z3.And(inside, s["dirty"][i]), z3.Or(same, whole, torn), same),
            t["dirty"][i] == z3.And(s["dirty"][i], z3.Not(inside)),
        )

    return v.every(at)


def _is_same(s: Before, i: Formula) -> Formula:
    """Returns that cache and disk have the same whole frame: no part of a write tears it."""
    import z3

    return z3.And(s["disk_ok"][i], s["cached_ok"][i], s["disk"][i] == s["cached"][i])


_DISK: Final = ("disk", "disk_ok", "dirty")


def _sync(v: Vocabulary, s: Before, t: Before) -> Formula:
    return v.z3.And(
        s["phase"] == UP,
        s["log"] > s["told"],
        _synced(v, s, t, s["told"], s["log"]),
        t["told"] == s["log"],
        *v.keep(s, t, *_DISK, "told"),
    )


def _sync_fails(bug: str) -> Action:
    def action(v: Vocabulary, s: Before, t: Before) -> Formula:
        return v.z3.And(
            s["phase"] == UP,
            s["log"] > s["told"],
            _not_synced(v, s, t, s["told"], s["log"]),
            t["phase"] == (UP if bug == "go on after a failed sync" else DOWN),
            *v.keep(s, t, *_DISK, "phase"),
        )

    return action


def _write_back(v: Vocabulary, s: Before, t: Before) -> Formula:
    i = v.any("count")
    return v.z3.And(i >= 0, s["dirty"][i], _synced(v, s, t, i, i + 1), *v.keep(s, t, *_DISK))


def _write_back_a_part(v: Vocabulary, s: Before, t: Before) -> Formula:
    z3, i = v.z3, v.any("count")
    return z3.And(
        i >= 0,
        s["dirty"][i],
        z3.Not(_is_same(s, i)),
        t["disk_ok"] == z3.Store(s["disk_ok"], i, False),
        *v.keep(s, t, "disk_ok"),
    )


def _evict(v: Vocabulary, s: Before, t: Before) -> Formula:
    z3, i = v.z3, v.any("count")
    return z3.And(
        i >= 0,
        z3.Not(s["dirty"][i]),
        t["cached"] == z3.Store(s["cached"], i, s["disk"][i]),
        t["cached_ok"] == z3.Store(s["cached_ok"], i, s["disk_ok"][i]),
        *v.keep(s, t, "cached", "cached_ok"),
    )


def _kill(v: Vocabulary, s: Before, t: Before) -> Formula:
    z3 = v.z3
    return z3.And(s["phase"] != REFUSED, t["phase"] == DOWN, *v.keep(s, t, "phase"))


def _kill_in_write(v: Vocabulary, s: Before, t: Before) -> Formula:
    z3, at = v.z3, s["log"]
    return z3.And(
        s["phase"] == UP,
        at == s["told"],
        t["cached_ok"] == z3.Store(s["cached_ok"], at, False),
        t["dirty"] == z3.Store(s["dirty"], at, True),
        t["written"] == z3.Store(s["written"], at, v.any("frame")),
        t["wrote"] == at + 1,
        t["phase"] == DOWN,
        *v.keep(s, t, "cached_ok", "dirty", "written", "wrote", "phase"),
    )


def _power_cut(v: Vocabulary, s: Before, t: Before) -> Formula:
    z3 = v.z3
    return z3.And(
        s["phase"] != REFUSED,
        t["cached"] == s["disk"],
        t["cached_ok"] == s["disk_ok"],
        t["dirty"] == z3.K(z3.IntSort(), False),
        t["phase"] == DOWN,
        *v.keep(s, t, "cached", "cached_ok", "dirty", "phase"),
    )


def _scan(v: Vocabulary, s: Before, t: Before) -> Formula:
    z3, found, later = v.z3, v.any("count"), v.any("count")
    is_corrupt = z3.And(later > found, s["cached_ok"][later])
    is_sound = v.every(lambda i: z3.Implies(i > found, z3.Not(s["cached_ok"][i])))
    return z3.And(
        s["phase"] == DOWN,
        found >= 0,
        v.every(lambda i: z3.Implies(i < found, s["cached_ok"][i])),
        z3.Not(s["cached_ok"][found]),
        z3.Or(
            z3.And(is_sound, t["phase"] == FOUND),
            z3.And(is_corrupt, t["phase"] == REFUSED),
        ),
        t["log"] == found,
        t["last"] == s["cached"][found - 1],
        *v.keep(s, t, "phase", "log", "last"),
    )


def _cut(v: Vocabulary, s: Before, t: Before) -> Formula:
    z3 = v.z3

    def at(i: Formula) -> Formula:
        gone = i >= s["log"]
        return z3.And(
            t["cached_ok"][i] == z3.And(s["cached_ok"][i], z3.Not(gone)),
            t["dirty"][i] == z3.Or(s["dirty"][i], gone),
        )

    return z3.And(
        s["phase"] == FOUND,
        v.every(at),
        t["phase"] == CUT,
        *v.keep(s, t, "cached_ok", "dirty", "phase"),
    )


def _rewrite(bug: str) -> Action:
    def action(v: Vocabulary, s: Before, t: Before) -> Formula:
        z3, at = v.z3, s["log"] - 1
        if bug == "last frame not rewritten":
            new = z3.And(*(t[n] == s[n] for n in ("cached", "cached_ok", "dirty")))
        else:
            written = z3.And(
                t["cached"] == z3.Store(s["cached"], at, s["last"]),
                t["cached_ok"] == z3.Store(s["cached_ok"], at, True),
                t["dirty"] == z3.Store(s["dirty"], at, True),
            )
            same = z3.And(*(t[n] == s[n] for n in ("cached", "cached_ok", "dirty")))
            new = z3.If(at >= 0, written, same)
        return z3.And(
            s["phase"] == CUT,
            new,
            t["phase"] == REWRITTEN,
            *v.keep(s, t, "cached", "cached_ok", "dirty", "phase"),
        )

    return action


def _accept(v: Vocabulary, s: Before, t: Before) -> Formula:
    z3 = v.z3

    def at(i: Formula) -> Formula:
        return z3.And(
            t["disk"][i] == z3.If(s["dirty"][i], s["cached"][i], s["disk"][i]),
            t["disk_ok"][i] == z3.If(s["dirty"][i], s["cached_ok"][i], s["disk_ok"][i]),
            z3.Not(t["dirty"][i]),
        )

    return z3.And(
        s["phase"] == REWRITTEN,
        v.every(at),
        t["phase"] == UP,
        t["told"] == s["log"],
        t["wrote"] == s["log"],
        *v.keep(s, t, *_DISK, "phase", "told", "wrote"),
    )


def _recovery_fails(v: Vocabulary, s: Before, t: Before) -> Formula:
    z3 = v.z3

    def at(i: Formula) -> Formula:
        same = z3.And(t["disk"][i] == s["disk"][i], t["disk_ok"][i] == s["disk_ok"][i])
        whole = z3.And(t["disk"][i] == s["cached"][i], t["disk_ok"][i] == s["cached_ok"][i])
        torn = z3.And(z3.Not(_is_same(s, i)), z3.Not(t["disk_ok"][i]))
        return z3.And(
            z3.If(s["dirty"][i], z3.Or(same, whole, torn), same), z3.Not(t["dirty"][i])
        )

    return z3.And(
        z3.Or(s["phase"] == CUT, s["phase"] == REWRITTEN),
        v.every(at),
        t["phase"] == DOWN,
        *v.keep(s, t, *_DISK, "phase"),
    )


def _log_invariant(v: Vocabulary, s: Before) -> dict[str, Formula]:
    z3, told, log, phase = v.z3, s["told"], s["log"], s["phase"]
    recovers = z3.And(phase >= FOUND, phase <= REWRITTEN)
    ahead = log == told + 1

    def is_written(ok: str, frames: str, i: Formula) -> Formula:
        return z3.And(s[ok][i], s[frames][i] == s["written"][i])

    def at(i: Formula) -> Formula:
        cached, disk = is_written("cached_ok", "cached", i), is_written("disk_ok", "disk", i)
        return z3.And(
            z3.Implies(i < told, z3.And(cached, disk)),
            z3.Implies(i > told, z3.Not(z3.Or(s["cached_ok"][i], s["disk_ok"][i]))),
            z3.Implies(z3.And(i == told, s["disk_ok"][i]), z3.And(told < s["wrote"], disk)),
            z3.Implies(z3.And(i == told, s["cached_ok"][i]), z3.And(told < s["wrote"], cached)),
            z3.Implies(s["disk_ok"][i], s["cached_ok"][i]),
        )

    on_its_way = z3.And(
        s["cached_ok"][told], z3.Or(s["dirty"][told], s["disk_ok"][told])
    )  # a sync will bring it to the disk, or it is there
    return {
        "phases": z3.And(phase >= DOWN, phase <= UP),
        "at most one frame is ahead": z3.And(told >= 0, told <= s["wrote"], s["wrote"] <= told + 1),
        "what was told is whole everywhere, and nothing stands behind the next": v.every(at),
        "a writer believes what it wrote": z3.Implies(
            phase == UP,
            z3.And(log >= told, log == s["wrote"], z3.Implies(ahead, on_its_way)),
        ),
        "a recovery finds what was told, or one more": z3.Implies(
            recovers,
            z3.And(
                log >= told,
                log <= s["wrote"],
                z3.Implies(z3.And(log == told, told > 0), s["last"] == s["written"][told - 1]),
                z3.Implies(ahead, s["last"] == s["written"][told]),
                z3.Implies(log == told, z3.Not(s["cached_ok"][told])),
            ),
        ),
        "what was rewritten is on its way": z3.Implies(
            z3.And(phase == REWRITTEN, ahead), on_its_way
        ),
    }


def _log_promise(v: Vocabulary, s: Before) -> dict[str, Formula]:
    z3 = v.z3
    recovers = z3.And(s["phase"] >= FOUND, s["phase"] <= REWRITTEN)
    durable = v.every(
        lambda i: z3.Implies(
            i < s["told"], z3.And(s["disk_ok"][i], s["disk"][i] == s["written"][i])
        )
    )
    return {
        "what was acknowledged is on the disk": durable,
        "recovery finds all that was acknowledged": z3.Implies(recovers, s["log"] >= s["told"]),
        "recovery finds nothing that was not written": z3.Implies(recovers, s["log"] <= s["wrote"]),
        "no crash makes a start refuse": s["phase"] != REFUSED,
    }


LOG: Final = System(
    "the log",
    _LOG_SORTS,
    _log_start,
    _log_actions,
    _log_invariant,
    _log_promise,
    {
        "acknowledge before sync": "a frame is acknowledged once it is written",
        "go on after a failed sync": "a failed sync is tried again instead of ending the process",
        "last frame not rewritten": "recovery syncs the file and does not rewrite its last frame",
        "two unsynced": "a second frame is written before the first is synced",
    },
)


# -- proving -----------------------------------------------------------------------------------


def prove(system: System) -> CheckResult:
    """Proves that a system keeps its promise, whatever its length and however it crashes."""
    started = time.monotonic()
    details = [problem for problem in _failures(system, "")]
    return CheckResult(
        name=f"{system.name}: nothing acknowledged is lost, by induction",
        kind="induction",
        tool=_tool(),
        bounds={},
        verdict=Verdict.VIOLATED if details else Verdict.HOLDS,
        seconds=time.monotonic() - started,
        details=details
        or [
            f"the invariant has {len(_parts(system))} parts; "
            f"{len(system.actions(''))} actions keep it, one by one",
        ],
    )


def sow(system: System, bug: str) -> CheckResult:
    """Shows that with `bug` the induction fails, and that a run breaks a promise."""
    started = time.monotonic()
    failures = list(_failures(system, bug))
    run = find_run(system, bug) if failures else []
    return CheckResult(
        name=f"{system.name}, sown: {bug}",
        kind="induction",
        tool=_tool(),
        bounds={"steps of a run": RUN_STEPS_MAX},
        verdict=Verdict.CAUGHT if failures and run else Verdict.MISSED,
        seconds=time.monotonic() - started,
        details=[system.bugs[bug], *failures, *run],
    )


def _failures(system: System, bug: str) -> Iterator[str]:
    """Yields what does not go through: the start, an action, or what the invariant implies."""
    import z3

    v = Vocabulary(z3)
    s, t = v.state(system.sorts, ""), v.state(system.sorts, "'")
    before = list(system.invariant(v, s).values())
    for name, part in system.invariant(v, s).items():
        if _answer(z3, [*system.start(v, s).values(), z3.Not(part)]) != "unsat":
            yield f"the start does not give: {name}"
    for name, action in system.actions(bug).items():
        step = action(v, s, t)
        for part_name, part in system.invariant(v, t).items():
            answer = _answer(z3, [*before, step, z3.Not(part)])
            if answer != "unsat":
                why = "" if answer == "sat" else " (z3 does not know)"
                yield f"'{name}' does not keep: {part_name}{why}"
    for name, part in system.promise(v, s).items():
        if _answer(z3, [*before, z3.Not(part)]) != "unsat":
            yield f"the invariant does not imply: {name}"


def find_run(system: System, bug: str, steps_max: int = RUN_STEPS_MAX) -> list[str]:
    """Returns a shortest run that breaks a promise as numbered steps; empty where there is none."""
    import z3

    v = Vocabulary(z3, indexes=RUN_INDEXES)
    solver = z3.Solver()
    solver.set("timeout", TIMEOUT_MS)
    states = [v.state(system.sorts, "0")]
    solver.add(*system.start(v, states[0]).values())
    choices: list[dict[str, Formula]] = []
    for number in range(1, steps_max + 1):
        old, new = states[-1], v.state(system.sorts, str(number))
        taken = {
            name: z3.Bool(f"{number} {name}") for name in system.actions(bug)
        }
        for name, action in system.actions(bug).items():
            solver.add(z3.Implies(taken[name], action(v, old, new)))
        solver.add(z3.Or(*taken.values()), *v.limits)
        v.limits.clear()
        states.append(new)
        choices.append(taken)
        solver.push()
        promise = system.promise(v, new)
        solver.add(z3.Not(z3.And(*promise.values())))
        if str(solver.check()) == "sat":
            return _told(solver.model(), choices, promise)
        solver.pop()
    return []


def _told(
    model: Any, choices: list[dict[str, Formula]], promise: dict[str, Formula]
) -> list[str]:
    steps = [
        f"{number}. {next(n for n, c in taken.items() if model.eval(c))}"
        for number, taken in enumerate(choices, 1)
    ]
    broken = [n for n, p in promise.items() if not model.eval(p, model_completion=True)]
    return [*steps, f"broken: {', '.join(broken)}"]


def _answer(z3: Any, assertions: list[Formula]) -> str:
    solver = z3.Solver()
    solver.set("timeout", TIMEOUT_MS)
    solver.add(*assertions)
    return str(solver.check())


def _parts(system: System) -> dict[str, Formula]:
    import z3

    v = Vocabulary(z3)
    return system.invariant(v, v.state(system.sorts, ""))


def _tool() -> str:
    import z3

    return f"z3 {z3.get_version_string()}"
