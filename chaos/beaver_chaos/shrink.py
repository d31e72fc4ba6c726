"""Making a failure small, and telling it in words.

A failing run is shrunk by leaving acts out while it still fails in the same way: first
large pieces of the plan, then single acts (delta debugging; Zeller and Hildebrandt, 2002).
What is left is told as a timeline, with the command that repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from beaver_chaos.sim_plan import STEPS_DEFAULT, Plan, draw_plan
from beaver_chaos.simulator import Report, run_plan

RUNS_MAX: Final = 300
"""Runs that shrinking may take."""
LINES_MAX: Final = 120
"""Lines of a timeline; the ones before the end are what counts."""

_NAMES: Final = re.compile(r"\bj\d+(\.\d+)?|\d+")


def kind_of(violation: str) -> str:
    """Returns a violation without its jobs and numbers: what makes two of a kind."""
    return _NAMES.sub("_", violation)


def keep(plan: Plan, indexes: Iterable[int]) -> Plan:
    """Returns the plan with only these of its acts."""
    wanted = set(indexes)
    return plan._replace(acts=tuple(a for n, a in enumerate(plan.acts) if n in wanted))


class Shrunk:
    """A failure made small."""

    def __init__(self, steps: int, indexes: Sequence[int], report: Report, runs: int) -> None:
        self.steps, self.indexes, self.report, self.runs = steps, indexes, report, runs

    @property
    def command(self) -> str:
        """The command that repeats it."""
        return command_of(self.report.plan, self.steps, self.indexes)


def shrink(
    report: Report,
    steps: int = STEPS_DEFAULT,
    *,
    run: Callable[[Plan], Report] = run_plan,
    runs_max: int = RUNS_MAX,
) -> Shrunk:
    """Returns the smallest failure of the same kind that was found.

    Args:
        report: A run that failed, with all of its acts.
        steps: How its plan was drawn.
        run: Runs a plan.
        runs_max: Runs that it may take.
    """
    whole = draw_plan(report.plan.seed, steps, report.plan.favour)
    kind = kind_of(report.violations[0])
    kept = list(range(len(whole.acts)))
    best, runs = report, 0
    size = max(1, len(kept) // 2)
    while runs < runs_max:
        smaller = False
        start = 0
        while start < len(kept) and runs < runs_max:
            candidate = kept[:start] + kept[start + size :]
            found = run(keep(whole, candidate))
            runs += 1
            if found.violations and kind_of(found.violations[0]) == kind:
                kept, best, smaller = candidate, found, True
            else:
                start += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return Shrunk(steps, kept, best, runs)


def command_of(plan: Plan, steps: int, indexes: Sequence[int] | None = None) -> str:
    """Returns the command that repeats a run."""
    command = f"beaver simulate --seed {plan.seed}"
    if plan.favour:
        command += f" --favour {plan.favour}"
    if steps != STEPS_DEFAULT:
        command += f" --steps {steps}"
    if indexes is not None:
        command += f" --acts {','.join(map(str, indexes)) or 'none'}"
    return command


# -- in words ---------------------------------------------------------------------------------


def timeline(report: Report, lines_max: int = LINES_MAX) -> list[str]:
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
