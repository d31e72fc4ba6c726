"""The induction: it goes through, not for want of meaning, and not with a bug sown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from beaver_spec import induction
from beaver_spec.induction import System, Values, Vocabulary, find_run, prove, sow
from beaver_spec.induction_log import LOG
from beaver_spec.induction_pruning import PRUNING
from beaver_spec.results import Verdict

pytestmark = pytest.mark.invariants
pytest.importorskip("z3", reason="z3-solver is not installed")

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
    def no_actions(bug: str) -> dict[str, object]:
        never = lambda v, s, t: v.z3.And(s["phase"] < 0, *v.keep(s, t))  # noqa: E731
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
    told = induction._told(solver.model(), [{"idle": idle, "busy": busy}], {"promise": idle})
    assert told == ["1. busy", "broken: promise"]


IN_THREADS = """
import gc, threading, time
from beaver_spec.induction import sow
from beaver_spec.induction_pruning import PRUNING

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
