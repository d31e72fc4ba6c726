"""The induction: it goes through, not for want of meaning, and not with a bug sown."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from beaver_spec.induction import proof
from beaver_spec.induction.log import LOG
from beaver_spec.induction.proof import (
    Action,
    System,
    Values,
    Vocabulary,
    find_run,
    prove,
    sow,
    unneeded,
)
from beaver_spec.induction.pruning import PRUNING
from beaver_spec.results import Verdict
from tests.support.needs import need

pytestmark = pytest.mark.invariants


@pytest.fixture(autouse=True)
def z3_is_here() -> None:
    need(None if find_spec("z3") else "z3-solver is not installed")


SYSTEMS = (LOG, PRUNING)
BUGS = [(system, bug) for system in SYSTEMS for bug in system.bugs]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_the_promise_is_kept_for_any_number_of_records_and_crashes(system: System) -> None:
    result = prove(system)
    assert result.verdict == Verdict.HOLDS, result.details


@pytest.mark.parametrize(("system", "bug"), BUGS, ids=[bug for _, bug in BUGS])
def test_a_bug_breaks_the_induction_and_a_promise(system: System, bug: str) -> None:
    result = sow(system, bug)
    assert result.verdict == Verdict.CAUGHT, result.details
    assert any("does not keep" in line for line in result.details)
    assert result.details[-1].startswith("broken: ")


UNNEEDED = {
    "the log": [
        "write a frame: last' == last",
        "sync it and acknowledge: log > told",
        "sync it and acknowledge: last' == last",
        "the sync fails: phase == 3",
        "the sync fails: log > told",
        "the sync fails: log' == log",
        "the sync fails: last' == last",
        "the kernel writes back: any >= 0",
        "the kernel writes back: dirty[any]",
        "the kernel writes back a part: any >= 0",
        "the kernel writes back a part: dirty[any]",
        "the kernel drops a clean page: any >= 0",
        "kill: phase != 4",
        "kill: dirty' == dirty",
        "kill: log' == log",
        "kill: last' == last",
        "kill in the middle of a write: dirty' == Store(dirty, log, True)",
        "kill in the middle of a write: log' == log",
        "kill in the middle of a write: last' == last",
        "power cut: phase != 4",
        "power cut: dirty' == K(Int, False)",
        "power cut: log' == log",
        "power cut: last' == last",
        "recovery reads the log: phase == 0",
        "recovery reads the log: dirty' == dirty",
        "recovery syncs and accepts: last' == last",
        "recovery's sync fails: Or(phase == 1, phase == 2)",
        "recovery's sync fails: log' == log",
        "recovery's sync fails: last' == last",
    ],
    "snapshots and pruning": [
        "keep the newest snapshot as the older one: taken' > newest",
        "prune the archive: first' >= first",
        "be done: bad' == bad",
        "the newest snapshot goes bad: newest > 0",
    ],
}
"""What may go from an action without harm: memory of a process that is down, faults that may
strike at other moments too, a helper that may take an older snapshot.  The proof then holds for
more than the program does."""


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_the_proof_rests_on_every_other_conjunct_of_every_action(system: System) -> None:
    """Taken out one by one: each either breaks the induction, or is named as not needed."""
    assert unneeded(system) == UNNEEDED[system.name]


def test_the_right_log_has_no_run_that_breaks_a_promise() -> None:
    """The search for runs finds none where there is none: a found one means something."""
    assert find_run(LOG, "", steps_max=5) == []


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_an_invariant_that_says_less_does_not_prove_it(system: System) -> None:
    """Without all but its first part the invariant is not kept, or does not imply the promise."""

    def first_part(v: Vocabulary, s: Values) -> dict[str, object]:
        return dict(list(system.invariant(v, s).items())[:1])

    assert prove(system._replace(invariant=first_part)).verdict == Verdict.VIOLATED


def test_an_action_that_can_never_happen_is_no_proof() -> None:
    def never(v: Vocabulary, s: Values, t: Values) -> Any:
        return v.z3.And(s["phase"] < 0, *v.keep(s, t))

    def no_actions(bug: str) -> dict[str, Action]:
        return {**LOG.actions(bug), "fly": never}

    result = prove(LOG._replace(actions=no_actions))
    assert result.verdict == Verdict.VIOLATED
    assert result.details == ["'fly' can never happen"]


def test_a_step_that_the_model_leaves_open_was_not_taken() -> None:
    """A model is silent on what does not matter; that once raised an exception, now and then."""
    import z3

    idle, busy = z3.Bools("idle busy")
    solver = z3.Solver()
    solver.add(busy)
    assert str(solver.check()) == "sat"
    told = proof._told(solver.model(), [{"idle": idle, "busy": busy}], {"promise": idle})
    assert told == ["1. busy", "broken: promise"]


IN_THREADS = """
import gc, threading, time
from beaver_spec.induction.proof import sow
from beaver_spec.induction.pruning import PRUNING

bug = next(iter(PRUNING.bugs))
verdicts, working = [], threading.Event()

def work():
    verdicts.append(sow(PRUNING, bug).verdict)

def litter():
    while not working.is_set():
        ring = []
        ring.append(ring)
        time.sleep(0)

threads = [threading.Thread(target=work) for _ in range(4)]
littering = threading.Thread(target=litter)
for thread in (littering, *threads):
    thread.start()
for thread in threads:
    thread.join()
working.set()
assert gc.isenabled()
print(*verdicts)
"""


def test_many_threads_may_ask_at_once() -> None:
    """z3 has one context for all of them: without a lock this ends in a segmentation fault."""
    done = subprocess.run(
        [sys.executable, "-c", IN_THREADS], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["caught"] * 4
