"""Runs TLC on every TLA+ module without each of its conjuncts, and tells what noticed.

    python -m beaver_spec.specification.guards_check [--jobs N] [PART OF A NAME ...]

What lives here: the runs, and the conjuncts whose absence nothing notices, each with the
reason.  A conjunct is noticed where a named property breaks, where TLC cannot evaluate the
module any more, or where an action of the model is never taken.  A fault that loses its
effect breaks no promise; it is noticed where a bug that is sown in the model is then missed.
Whatever else is missed must stand in `EXPLAINED`, and what stands there must still be missed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from beaver_spec.specification import storage
from beaver_spec.specification.guards import Conjunct, conjuncts, without
from beaver_spec.specification.storage_tlc import TLA, Tlc, find_tlc, run_tlc

UNDEFINED: Final = "TLC cannot evaluate it"

EXPLAINED: Final[Mapping[str, str]] = {
    "Lifecycle.DISPATCH: Left(j)": "a second line: no pending job is without an attempt "
    "(NoJobWaitsWithoutAnAttempt); a trace that breaks the first line is told here, too",
    "Log.Whole: b + view[b][3] - 1 <= Blocks": "no writer begins a frame that does not fit (Put)",
    "Log.WriteBack: b \\in dirty": "a clean block that differs is one whose sync failed: to "
    "write it after all does more than a kernel promises, and harms nobody",
    "Log.WriteBack: dirty' = dirty \\ {b}": "to write the same block again changes nothing",
    "Log.Evict: cache[b] # disk[b]": "to drop a page that the disk has changes nothing",
    'Log.Rot: phase = "down"': "rot at any other time is borne, too; this keeps the search small",
    "Log.Rot: b \\notin dirty": "a dirty block that rots is written back whole",
    "Log.Crash: log' = <<>>": "the memory of a process that is down: recovery begins it anew",
    'Log.Kill: phase \\notin {"down", "refused"}': "a kill of what is down changes nothing",
    "Log.Kill: Crash": "a power cut with every block written back is a kill",
    'Log.PowerCut: phase # "refused"': "a store that was refused may be started again",
    "Log.PowerCut: dirty' = {}": "a page that is gone could only be written as the disk has it",
    "Log.SyncBlocks: dirty' = dirty \\ range": "to write the same blocks again changes nothing",
    "Log.FailSyncOf: \\E part \\in SUBSET (range \\cap dirty) : disk' = [b \\in Block |-> "
    "IF b \\in part THEN cache[b] ELSE disk[b]]": "what a failed sync wrote, the kernel may have "
    "written back before",
    "Log.KillInWrite: unsynced < UnsyncedMax": "a second frame that is torn behind an unsynced "
    "one is cut as well; the bound matters where it is whole (Write)",
    'Log.SyncAndAcknowledge: phase = "up"': "nothing is unsynced in any other phase",
    "Log.SyncAndAcknowledge: unsynced > 0": "to sync nothing changes nothing",
    'Log.SyncFails: phase = "up"': "nothing is unsynced in any other phase",
    "Log.SyncFails: unsynced > 0": "a sync of nothing that fails ends the process all the same",
}
"""What nothing notices, by name of the conjunct, and why it stands there all the same."""


class Trial(NamedTuple):
    """A conjunct that was taken out of a module, and what noticed."""

    module: str
    conjunct: Conjunct
    noticed: str
    """The property that broke, `never taken: ACTION`, or `UNDEFINED`; empty where nothing did."""
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.module}.{self.conjunct.name}"

    @property
    def ok(self) -> bool:
        """True where it was noticed, or is explained: one of the two."""
        return bool(self.noticed) != (self.name in EXPLAINED)


def modules() -> list[str]:
    """Returns the modules whose conjuncts are tried: all that TLC checks."""
    return list(dict.fromkeys(model.module for model in storage.MODELS))


def try_without(tlc: Tlc, module: str, conjunct: Conjunct) -> Trial:
    """Checks a module without one of its conjuncts, in each of its configurations."""
    started = time.monotonic()
    text = without((TLA / f"{module}.tla").read_text(), conjunct)
    models = [model for model in storage.MODELS if model.module == module]
    noticed = _broken(tlc, models, text) or _missed(tlc, models, text)
    return Trial(module, conjunct, noticed, time.monotonic() - started)


def _broken(tlc: Tlc, models: list[storage.Model], text: str) -> str:
    """Returns the property that breaks, or the action that is never taken; empty if none."""
    never = dict[str, bool]()
    for model in models:
        made = {model.module: text}
        run = run_tlc(tlc, model.module, model.config, modules=made, count_actions=True)
        if run.broken or not run.is_finished:
            return run.broken or UNDEFINED
        for name, count in run.taken.items():
            never[name] = never.get(name, True) and not count and name not in model.idle
    return next((f"never taken: {name}" for name, is_never in never.items() if is_never), "")


def _missed(tlc: Tlc, models: list[storage.Model], text: str) -> str:
    """Returns a bug sown in the models that nothing catches any more; empty if all are caught."""
    for model in models:
        for sown in model.sown:
            values, made = {sown.switch: "TRUE"}, {model.module: text}
            run = run_tlc(tlc, model.module, model.config, values=values, modules=made)
            if not run.broken:
                return f"no longer caught: {sown.switch}"
    return ""


def run_all(
    tlc: Tlc, *, jobs: int = 2, only: tuple[str, ...] = (), tell: Callable[[Trial], None]
) -> list[Trial]:
    """Tries all conjuncts whose names contain one of `only`, `jobs` at a time."""
    chosen = [
        (module, conjunct)
        for module in modules()
        for conjunct in conjuncts((TLA / f"{module}.tla").read_text())
        if not only or any(part in f"{module}.{conjunct.name}" for part in only)
    ]

    def attempt(place: tuple[str, Conjunct]) -> Trial:
        trial = try_without(tlc, *place)
        tell(trial)
        return trial

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        return list(pool.map(attempt, chosen))


def main(arguments: list[str]) -> int:
    """Runs them and prints each; returns 1 where one is neither noticed nor explained."""
    jobs = int(arguments[arguments.index("--jobs") + 1]) if "--jobs" in arguments else 2
    only = tuple(a for a in arguments if not a.startswith("--") and not a.isdigit())

    def tell(trial: Trial) -> None:
        mark = "" if trial.ok else "!! "
        noticed = trial.noticed or EXPLAINED.get(trial.name, "NOTHING")
        print(f"{mark}{noticed:<40}{trial.seconds:6.1f} s  {trial.name}", flush=True)  # noqa: T201

    trials = run_all(find_tlc(), jobs=jobs, only=only, tell=tell)
    return 0 if all(trial.ok for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
