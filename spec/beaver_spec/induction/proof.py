"""Promises proved by induction with z3: without bounds on records, crashes or time.

What lives here: transition systems, and what proves and breaks them.  The systems stand in
`induction.log` and `induction.pruning`.  TLC looks at every state within small bounds
(`spec/tla`); z3 shows without bounds that an invariant holds at the start, that every action
keeps it, and that it implies what was promised.  The price is abstraction: here a frame is
whole or it is not, and no mixing of blocks makes a torn one whole (`Log.tla` looks at that).

Each action is one formula over the state before and after it.  A bug sown on purpose changes
one of them; the induction must then fail, and, so that this is no weakness of the invariant,
a run from the start to a broken promise must exist, and is told step by step.
"""

from __future__ import annotations

import gc
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from beaver_spec.results import CheckResult, Verdict

Formula = Any
"""A z3 expression; z3 comes without types."""

TIMEOUT_MS: Final = 30_000
"""For each step of a proof; a step takes some hundredths of a second."""

SOWN_TIMEOUT_MS: Final = 2_000
"""Where a proof must fail: z3 often cannot say no where quantifiers are about."""

EFFORT_MAX: Final = 400_000
"""z3's own measure of work, for each conjunct that is taken out; a proof takes a tenth of it."""

RUN_INDEXES: Final = 3
"""Places in the log that such a run may use."""

_ANY: Final = re.compile(r"any\d+")

RUN_STEPS_MAX: Final = 12
"""A sown bug must break a promise within so many steps from the start."""


class Values(dict[str, Formula]):
    """The values of a state, by name."""


Action = Callable[["Vocabulary", Values, Values], Formula]
Predicate = Callable[["Vocabulary", Values], dict[str, Formula]]


class System(NamedTuple):
    """A transition system and what is claimed of it."""

    name: str
    claim: str
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
        """Additional conditions for few indexes."""

    def sort(self, name: str) -> Any:
        """Returns the sort of a variable."""
        z3 = self.z3
        return {
            "count": z3.IntSort(),
            "phase": z3.IntSort(),
            "flag": z3.BoolSort(),
            "frame": self._frame,
            "flags": z3.ArraySort(z3.IntSort(), z3.BoolSort()),
            "frames": z3.ArraySort(z3.IntSort(), self._frame),
        }[name]

    def state(self, sorts: dict[str, str], suffix: str) -> Values:
        """Returns fresh variables for one state."""
        return Values({n: self._named(n + suffix, s) for n, s in sorts.items()})

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

    def keep(self, old: Values, new: Values, *changed: str) -> list[Formula]:
        """Returns that nothing but `changed` changes."""
        return [new[name] == old[name] for name in old if name not in changed]


# -- one at a time -----------------------------------------------------------------------------

_z3: Final = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Keeps z3 to one thread at a time.

    All its expressions live in one context, which two threads must not touch at once: that
    ends in answers that mean nothing, or in a segmentation fault.  A thread touches it also
    where the garbage collector happens to run in it and frees expressions of another, so the
    collector waits.
    """
    with _z3:
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()


# -- proving -----------------------------------------------------------------------------------


@alone()
def prove(system: System) -> CheckResult:
    """Proves that a system keeps its promise, whatever its length and however it crashes."""
    started = time.monotonic()
    details = [*_failures(system, "", TIMEOUT_MS), *_never_taken(system)]
    return CheckResult(
        name=f"{system.name}: {system.claim}, by induction",
        kind="induction",
        tool=_tool(),
        bounds={},
        verdict=Verdict.VIOLATED if details else Verdict.HOLDS,
        seconds=time.monotonic() - started,
        details=details or [_size_of(system)],
    )


@alone()
def sow(system: System, bug: str) -> CheckResult:
    """Shows that with `bug` the induction fails, and that a run breaks a promise."""
    started = time.monotonic()
    failures = list(_failures(system, bug, SOWN_TIMEOUT_MS))
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


def _failures(system: System, bug: str, timeout_ms: int) -> Iterator[str]:
    """Yields what does not go through: the start, an action, or what the invariant implies."""
    import z3

    v = Vocabulary(z3)
    s, t = v.state(system.sorts, ""), v.state(system.sorts, "'")
    before = list(system.invariant(v, s).values())
    for name, part in system.invariant(v, s).items():
        if _answer(z3, [*system.start(v, s).values(), z3.Not(part)], timeout_ms) != "unsat":
            yield f"the start does not give: {name}"
    for name, action in system.actions(bug).items():
        step = action(v, s, t)
        for part_name, part in system.invariant(v, t).items():
            answer = _answer(z3, [*before, step, z3.Not(part)], timeout_ms)
            if answer != "unsat":
                why = "" if answer == "sat" else " (it cannot be shown)"
                yield f"'{name}' does not keep: {part_name}{why}"
    for name, part in system.promise(v, s).items():
        if _answer(z3, [*before, z3.Not(part)], timeout_ms) != "unsat":
            yield f"the invariant does not imply: {name}"


def _never_taken(system: System) -> Iterator[str]:
    """Yields actions that no state of the invariant allows: a proof about them says nothing."""
    import z3

    v = Vocabulary(z3, indexes=RUN_INDEXES)
    s, t = v.state(system.sorts, ""), v.state(system.sorts, "'")
    before = list(system.invariant(v, s).values())
    for name, action in system.actions("").items():
        step = action(v, s, t)
        if _answer(z3, [*before, step, *v.limits], TIMEOUT_MS) != "sat":
            yield f"'{name}' can never happen"


@alone()
def unneeded(system: System) -> list[str]:
    """Returns the conjuncts of actions without which the proof still goes through.

    An action without such a conjunct allows more, and the promise is kept all the same: it
    does not rest on it.  Everything else is needed, and a bug there is noticed.
    """
    import z3

    v = Vocabulary(z3)
    s, t = v.state(system.sorts, ""), v.state(system.sorts, "'")
    before = list(system.invariant(v, s).values())
    after = [z3.Not(part) for part in system.invariant(v, t).values()]
    found: list[str] = []
    for name, action in system.actions("").items():
        parts = action(v, s, t).children()
        for place, part in enumerate(parts):
            rest = [*parts[:place], *parts[place + 1 :]]
            step = [*before, *rest]
            if all(_answer(z3, [*step, broken], effort=EFFORT_MAX) == "unsat" for broken in after):
                found.append(f"{name}: {_ANY.sub('any', ' '.join(str(part).split()))}")
    return found


@alone()
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
        taken = {name: z3.Bool(f"{number} {name}") for name in system.actions(bug)}
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


def _told(model: Any, choices: list[dict[str, Formula]], promise: dict[str, Formula]) -> list[str]:
    def holds(formula: Formula) -> bool:
        # A model says nothing of what does not matter, and then z3 has no truth value.
        return bool(model.eval(formula, model_completion=True))

    steps = [
        f"{number}. {next(n for n, choice in taken.items() if holds(choice))}"
        for number, taken in enumerate(choices, 1)
    ]
    broken = [n for n, p in promise.items() if not holds(p)]
    return [*steps, f"broken: {', '.join(broken)}"]


def _answer(
    z3: Any, assertions: list[Formula], timeout_ms: int = TIMEOUT_MS, effort: int = 0
) -> str:
    """Asks z3, within a time or, where the answer must be the same anywhere, an effort."""
    solver = z3.Solver()
    solver.set("timeout", timeout_ms)
    if effort:
        solver.set("rlimit", effort)
    solver.add(*assertions)
    return str(solver.check())


def _size_of(system: System) -> str:
    import z3

    v = Vocabulary(z3)
    parts = system.invariant(v, v.state(system.sorts, ""))
    actions = system.actions("")
    return f"the invariant has {len(parts)} parts; {len(actions)} actions keep it, one by one"


def _tool() -> str:
    import z3

    return f"z3 {z3.get_version_string()}"
