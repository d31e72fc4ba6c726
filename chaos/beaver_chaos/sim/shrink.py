"""Making a failure small, and telling it in words.

A failing run is shrunk as long as some simpler plan (`simpler`) fails in the same way: with
fewer acts, fewer workers, less time, smaller numbers.  What is left is told as a timeline,
with the command that repeats it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from beaver_chaos.sim.plan import STEPS_DEFAULT, Plan
from beaver_chaos.sim.simpler import simpler
from beaver_chaos.sim.simulator import RunReport, run_plan
from beaver_chaos.sim.text import text_of

RUNS_MAX: Final = 1_500
"""Runs that shrinking may take."""
STEPS_MAX: Final = 3_000_000
"""Steps of the loop over all of them, about a minute: runs that find no rest are long."""
ORDERS: Final = 4
"""Other orders and durations that are tried, where a simpler plan does not fail in its own."""
LINES_MAX: Final = 120
"""Lines of a timeline; the ones before the end are what counts."""

_NAMES: Final = re.compile(r"\bj\d+(\.\d+)*|\d+")
_LISTED: Final = re.compile(r"\[[^]]*\]")


def kind_of(violation: str) -> str:
    """Returns a violation without its jobs, lists and numbers: what makes two of a kind."""
    return _NAMES.sub("_", _LISTED.sub("[_]", violation))


class Shrunk(NamedTuple):
    """A failure made small."""

    report: RunReport
    runs: int
    """How many runs that took."""

    @property
    def plan(self) -> Plan:
        return self.report.plan

    @property
    def command(self) -> str:
        """The command that repeats it."""
        return f"beaver simulate --plan {shlex.quote(text_of(self.plan))}"


def shrink(
    report: RunReport, *, run: Callable[[Plan], RunReport] = run_plan, runs_max: int = RUNS_MAX
) -> Shrunk:
    """Returns the smallest failure of the same kind that was found.

    Args:
        report: A run that failed.
        run: Runs a plan.
        runs_max: Runs that it may take.
    """
    kind = kind_of(report.violations[0])
    best, tried = report, {report.plan}
    runs = steps = 0

    def smaller() -> RunReport | None:
        """Runs simpler plans until one fails in the same way.

        A race needs its moment, and each change moves all moments that come after it: so a
        plan is tried with other seeds as well, which only decide order and durations.
        """
        nonlocal runs, steps
        for seeds in ((best.plan.seed,), range(ORDERS)):
            for plan in (p._replace(seed=seed) for p in simpler(best.plan) for seed in seeds):
                if plan in tried:
                    continue
                if runs >= runs_max or steps >= STEPS_MAX:
                    return None
                tried.add(plan)
                runs += 1
                found = run(plan)
                steps += found.steps
                if found.violations and kind_of(found.violations[0]) == kind:
                    return found
        return None

    while (found := smaller()) is not None:
        best = found
    return Shrunk(best, runs)


def command_of(plan: Plan, steps: int) -> str:
    """Returns the command that repeats the whole run of a seed."""
    command = f"beaver simulate --seed {plan.seed}"
    if plan.favour:
        command += f" --favour {plan.favour}"
    if steps != STEPS_DEFAULT:
        command += f" --steps {steps}"
    return command


# -- in words ---------------------------------------------------------------------------------


def timeline(report: RunReport, lines_max: int = LINES_MAX) -> list[str]:
    """Returns a run as lines of text: when, and what."""
    lines = [f"{note[0] / 1000:12.3f} ms  {_words(note[1:])}" for note in report.notes]
    if len(lines) <= lines_max:
        return lines
    return [f"{'':15}... {len(lines) - lines_max} lines before", *lines[-lines_max:]]


def _words(note: tuple[Any, ...]) -> str:
    if note[0] != "commit":
        return " ".join(map(str, note))
    _, first_seq, _, events = note
    told = ", ".join(_event(event) for event in events)
    last_seq = first_seq + len(events) - 1
    seqs = f"{first_seq}" if last_seq == first_seq else f"{first_seq} to {last_seq}"
    return f"the log has seq {seqs}: {told}"


def _event(event: Any) -> str:
    job = getattr(event, "job", "")
    words = [event.NAME, job] if job else [event.NAME]
    if hasattr(event, "worker"):
        words.append(f"to worker {event.worker}")
    if getattr(event, "token", 0):
        words.append(f"(token {event.token})")
    if getattr(event, "cause", ""):
        words.append(f"[{event.cause}]")
    return " ".join(words)
