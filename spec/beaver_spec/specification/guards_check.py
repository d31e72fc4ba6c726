"""Runs TLC and Spin on every model without each of its conjuncts, and tells what noticed.

    python -m beaver_spec.specification.guards_check [--jobs N] [--write] [PART OF A NAME ...]

`--write` brings `spec/guards.txt` up to date, row by row, `--missing` tries what that table lacks
alone, and `--first N` the first N of these.  `--quick` goes no further than the smallest bounds,
and leaves a row untried that nothing notices there.

What lives here: the runs, and the conjuncts whose absence nothing notices, each with the
reason.  A conjunct is noticed where a named property breaks, where the tool cannot evaluate
the model any more, or where an action of it is never taken.  A fault that loses its
effect breaks no promise; it is noticed where a bug that is sown in the model is then missed.
Whatever else is missed must stand in `EXPLAINED`, and what stands there must still be missed.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from beaver_spec.specification import guards, guards_promela, release, storage
from beaver_spec.specification.guards import Conjunct, without
from beaver_spec.specification.release import Spin, find_spin, run_spin
from beaver_spec.specification.storage_tlc import TLA, Tlc, TlcRun, find_tlc, run_tlc

TABLE: Final = TLA.parent / "guards.txt"
HEAD: Final = (
    "# What notices that a conjunct, a guard or an effect is gone; tests hold it to the modules.",
    "# Made by: python -m beaver_spec.specification.guards_check --write",
)
NOTHING: Final = "nothing"
NOT_TRIED: Final = "not tried yet"
UNDEFINED: Final = "cannot be evaluated"
RELEASE: Final = "release"
"""The module that is Spin's."""

SMALL: Final = {"CRASHES": 2, "ASKS": 1}
"""Bounds for Spin: a tenth of CI's states, and each bug that can be sown is caught in them."""
SMALLER: Final[Mapping[str, Mapping[str, str]]] = {
    "Log": {"FramesMax": "2", "CrashesMax": "2"},
    "LogRot": {"FramesMax": "2", "CrashesMax": "1"},
    "Sealing": {"EventsMax": "2", "FilesMax": "4"},
    "Snapshots": {"FilesMax": "5", "SnapshotsMax": "2"},
    "Pruning": {"EventsMax": "2", "FilesMax": "5"},
}
"""Smaller bounds of configurations, tried first: what breaks within them breaks within CI's."""

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
    'Log.Scan: phase\' = "refused"': "a start that neither goes on nor refuses tells nobody "
    "anything; that it says what it found is for the tests of recovery",
    'Log.SyncAndAcknowledge: phase = "up"': "nothing is unsynced in any other phase",
    "Log.SyncAndAcknowledge: unsynced > 0": "to sync nothing changes nothing",
    'Log.SyncFails: phase = "up"': "nothing is unsynced in any other phase",
    "Log.SyncFails: unsynced > 0": "a sync of nothing that fails ends the process all the same",
    "Segments.Adopt: next = None": "a second prepared segment takes the place of the first, and "
    "a file is of no use; nothing rests on it",
    "Segments.WriteSnapshot: IsAlive": "a helper that outlives its server, or begins before the "
    "next one is up, writes what was told, and that is true at any time",
    'Segments.WriteSnapshot: helper = "idle"': "a snapshot that is begun anew takes the place of "
    "the one under way, and is synced and named before anything is pruned for it",
    'Segments.Open: file\' = [file EXCEPT ![data["log"]].synced = TRUE]': "the log is synced "
    "before its name; without this a kill finds HeaderSyncedLate, which only a power cut should",
    "release.tell: waits[who] = false": "who is told a second time rests on nothing then",
    "release.tell: seq > seen": "less is remembered as seen, so recovery is asked for less",
    "release.tell: rests_on[who] = NOTHING": "it is set anew before it is looked at again",
    "release.crash: cut": "a kill leaves the page cache, which holds at least what the disk does: "
    "nothing told rests on the difference, and recovery may find it or not (`Log` judges it)",
    "release.crash: cache = disk": "as above: recovery may find more than was told",
    "release.crash: dirty = false": "what is written back then is what the disk has",
    "release.tell: seen = seq": "what recovery must find is what `tell` has seen on the disk; the "
    "disk of this model loses nothing, so the second assertion repeats the first",
}
"""What nothing notices, by name of the conjunct, and why it stands there all the same."""


class NoVerdict(RuntimeError):
    """A tool ended without saying anything of the model: it had no time, or does not run."""


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


class Tools(NamedTuple):
    """The tools that run the models."""

    tlc: Tlc
    spin: Spin


def find_tools() -> Tools:
    """Returns TLC and Spin.

    Raises:
        Missing: One of them is not here.
    """
    return Tools(find_tlc(), find_spin())


def modules() -> list[str]:
    """Returns the modules whose conjuncts are tried: all that TLC checks, and Spin's."""
    return [*dict.fromkeys(model.module for model in storage.MODELS), RELEASE]


def conjuncts(module: str) -> list[Conjunct]:
    """Returns the conjuncts of a module."""
    if module == RELEASE:
        return guards_promela.conjuncts(release.MODEL.read_text())
    return guards.conjuncts((TLA / f"{module}.tla").read_text())


def try_without(
    tools: Tools, module: str, conjunct: Conjunct, *, is_quick: bool = False
) -> Trial | None:
    """Checks a module without one of its conjuncts, in each of its configurations.

    Returns:
        What noticed; `None` where a quick look was asked for, and nothing did.
    """
    started = time.monotonic()
    if module == RELEASE:
        text = without(release.MODEL.read_text(), conjunct)
        noticed = _broken_in_spin(tools.spin, text, crashes=1)
        if not noticed and not is_quick:
            noticed = _broken_in_spin(tools.spin, text, crashes=2) or _missed_by_spin(
                tools.spin, text
            )
    else:
        text = without((TLA / f"{module}.tla").read_text(), conjunct)
        models = [model for model in storage.MODELS if model.module == module]
        noticed = _broken(tools.tlc, models, text, is_quick=True)
        if not noticed and not is_quick:
            noticed = _broken(tools.tlc, models, text) or _missed(tools.tlc, models, text)
    if is_quick and not noticed:
        return None
    return Trial(module, conjunct, noticed, time.monotonic() - started)


# -- Spin --------------------------------------------------------------------------------------


def _broken_in_spin(spin: Spin, text: str, *, crashes: int) -> str:
    """Returns the promise that breaks, or the step that is never taken; empty if none."""
    bounds = SMALL | {"CRASHES": crashes}
    run = run_spin(spin, bounds=bounds, model=text, merge=False)
    if not run.is_finished and run.output.startswith("ended after"):
        raise NoVerdict(run.output)
    if run.error or not run.is_finished:
        return _promise(run.error) if run.error else UNDEFINED
    never = sorted(run.never - _never_as_it_is(spin, crashes))
    never = [name for name in never if not name.startswith("(1) ")]  # what is taken out
    return f"never taken: {never[0]}" if never else ""


def _missed_by_spin(spin: Spin, text: str) -> str:
    """Returns a bug sown in the model that is not caught any more; empty if all are."""
    for bug in release.SOWN:
        run = run_spin(spin, bug=bug, bounds=SMALL, model=text)
        if not run.is_finished:
            raise NoVerdict(run.output[-2_000:])
        if not run.error:
            return f"no longer caught: {bug}"
    return ""


def _promise(error: str) -> str:
    """Returns what an error of Spin breaks, by the names that `release.pml` gives."""
    if "<=disk" in error:
        return "nothing is seen before it is durable"
    if "cache>=seen" in error:
        return "recovery finds what was seen"
    return "whoever asks is answered" if error == "invalid end state" else error


@functools.cache
def _never_as_it_is(spin: Spin, crashes: int) -> frozenset[str]:
    return run_spin(spin, bounds=SMALL | {"CRASHES": crashes}, merge=False).never


# -- TLC ---------------------------------------------------------------------------------------


def _broken(tlc: Tlc, models: list[storage.TlcModel], text: str, *, is_quick: bool = False) -> str:
    """Returns the property that breaks, or the action that is never taken; empty if none."""
    never = dict[str, bool]()
    for model in models:
        made = {model.module: text}
        values = SMALLER.get(model.config, {}) if is_quick else {}
        if is_quick and not values:
            continue
        run = run_tlc(
            tlc, model.module, model.config, values=values, modules=made, count_actions=True
        )
        if run.broken or not run.is_finished:
            return run.broken or _undefined(run)
        idle = _idle_within(tlc, model.module, model.config) if is_quick else model.idle
        for name, count in run.taken.items():
            never[name] = never.get(name, True) and not count and name not in idle
    return next((f"never taken: {name}" for name, is_never in never.items() if is_never), "")


@functools.cache
def _idle_within(tlc: Tlc, module: str, config: str) -> frozenset[str]:
    """Returns the actions that the smaller bounds of a configuration leave out."""
    run = run_tlc(tlc, module, config, values=SMALLER[config], count_actions=True)
    return frozenset(name for name, count in run.taken.items() if not count)


def _undefined(run: TlcRun) -> str:
    """Returns that TLC gave the module up; a TLC that does not run is no verdict."""
    if "Error: " not in run.output and "Parse Error" not in run.output:
        raise NoVerdict(f"TLC ended without a verdict: {run.output[-2_000:]}")
    return UNDEFINED


def _missed(tlc: Tlc, models: list[storage.TlcModel], text: str) -> str:
    """Returns a bug sown in the models that nothing catches any more; empty if all are caught."""
    for model in models:
        for sown in model.sown:
            values, made = {sown.switch: "TRUE"}, {model.module: text}
            run = run_tlc(tlc, model.module, model.config, values=values, modules=made)
            if not run.is_finished:
                return _undefined(run)
            if not run.broken:
                return f"no longer caught: {sown.switch}"
    return ""


def places(only: Collection[str] = ()) -> list[tuple[str, Conjunct]]:
    """Returns the conjuncts of all modules whose names contain one of `only`, in their order."""
    return [
        (module, conjunct)
        for module in modules()
        for conjunct in conjuncts(module)
        if not only or any(part in f"{module}.{conjunct.name}" for part in only)
    ]


# -- the table ---------------------------------------------------------------------------------


def read_table() -> dict[str, str]:
    """Returns what noticed the absence of each conjunct when that was last tried."""
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    rows = [line.split("\t", 1) for line in lines if "\t" in line]
    tried = {name: noticed for noticed, name in rows if noticed != NOT_TRIED}
    return {name: "" if noticed == NOTHING else noticed for name, noticed in tried.items()}


def write_table(noticed: Mapping[str, str]) -> None:
    """Writes the table, a line for each conjunct that there is, in the modules' order."""
    names = [f"{module}.{conjunct.name}" for module, conjunct in places()]
    rows = [f"{noticed.get(name, NOT_TRIED) or NOTHING}\t{name}" for name in names]
    TABLE.write_text("\n".join([*HEAD, *rows]) + "\n")


def run_all(
    tools: Tools,
    *,
    jobs: int = 2,
    chosen: Collection[tuple[str, Conjunct]],
    tell: Callable[[Trial], None],
    is_quick: bool = False,
) -> list[Trial]:
    """Tries conjuncts, `jobs` at a time."""

    def attempt(place: tuple[str, Conjunct]) -> Trial | None:
        try:
            trial = try_without(tools, *place, is_quick=is_quick)
        except NoVerdict as error:  # Left untried: the others go on.
            print(f"{place[0]}.{place[1].name}: {error}", flush=True)  # noqa: T201
            return None
        if trial is not None:
            tell(trial)
        return trial

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        return [trial for trial in pool.map(attempt, chosen) if trial is not None]


def main(arguments: list[str]) -> int:
    """Runs them and prints each; returns 1 where one is neither noticed nor explained."""
    jobs = int(arguments[arguments.index("--jobs") + 1]) if "--jobs" in arguments else 2
    chosen = places([a for a in arguments if not a.startswith("--") and not a.isdigit()])
    table = read_table()
    if "--missing" in arguments:
        chosen = [(m, c) for m, c in chosen if f"{m}.{c.name}" not in table]
    if "--first" in arguments:
        chosen = chosen[: int(arguments[arguments.index("--first") + 1])]
    lock = threading.Lock()

    def tell(trial: Trial) -> None:
        mark = "" if trial.ok else "!! "
        noticed = trial.noticed or EXPLAINED.get(trial.name, NOTHING)
        with lock:
            print(f"{mark}{noticed:<40}{trial.seconds:6.1f} s  {trial.name}", flush=True)  # noqa: T201
            table[trial.name] = trial.noticed
            if "--write" in arguments:
                write_table(table)

    is_quick = "--quick" in arguments
    trials = run_all(find_tools(), jobs=jobs, chosen=chosen, tell=tell, is_quick=is_quick)
    return 0 if all(trial.ok for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
