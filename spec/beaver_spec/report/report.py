"""The report of a check: what was looked at, how far, and what was found.

What lives here: the shape, and how results become it.  `rendering` prints it.  Other
checkers add their rows to `results` and their tables to `tables`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from beaver_model.commands import REJECTIONS
from beaver_spec.explorer.actions import KINDS
from beaver_spec.explorer.explorer import Exploration
from beaver_spec.explorer.properties import ALL_PROPERTIES, SITUATIONS
from beaver_spec.report.diagrams import transitions
from beaver_spec.report.telling import ToldCounterexample
from beaver_spec.results import CheckResult, Verdict

COUNTS: Final = Path(__file__).parents[1] / "counts.json"
"""The pinned counts of every scope; rewritten only on purpose."""

UNREACHABLE: Final[dict[str, str]] = {
    "no_attempt_left": "no state that can be reached has a pending job without an attempt left "
    "(`attempts_are_bounded`); the cells look at the guard in `legal`",
    "too_many_queues": "it takes 10,000 queues; the tests of the model reach it",
}
"""Refusals that no scope can meet, with the reason."""


class ScopeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One scope, explored."""

    name: str
    claim: str
    bounds: dict[str, Any]
    verdict: Verdict
    states: int
    transitions: int
    diameter: int
    models: int
    ends: int
    seconds: float
    memory_mb: float
    complete: bool
    pinned: dict[str, int] | None
    """The counts that were expected; `None` where none are pinned."""
    asked: int
    """Pairs of state and command that were put to the real model."""
    sampled: int
    """Steps that were compared with whole states of the real model."""
    difference: str
    """The first difference between the two, or nothing."""
    actions: dict[str, int]
    cells: list[tuple[str, str, str, int]]
    refusals: dict[str, int]
    situations: dict[str, int] = {}
    story: ToldCounterexample | None = None


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """Something that has to be met at least once."""

    what: str
    kind: str
    """`transition`, `refusal`, `action` or `situation`."""
    count: int
    note: str = ""
    """Why it cannot be met, where that is so."""


class PropertyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A property over all scopes."""

    name: str
    claim: str
    verdict: Verdict
    scopes: int
    """Scopes that were explored to their end without a violation."""


class TableRow(msgspec.Struct, frozen=True, kw_only=True):
    """A table that another checker adds: faults and outcomes, mutants and layers."""

    title: str
    heads: list[str]
    rows: list[list[str]]


class Included(msgspec.Struct, frozen=True, kw_only=True):
    """The results that another checker adds to a report."""

    results: list[CheckResult] = []
    tables: list[TableRow] = []


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a run of `beaver check` found."""

    ok: bool
    commit: str
    versions: dict[str, str]
    machine: str
    started: str
    seconds: float
    results: list[CheckResult]
    """One row for each check: cells, scopes, specification, and what others add."""
    scopes: list[ScopeRow]
    properties: list[PropertyRow]
    witnesses: list[Witness]
    not_explored: list[str]
    findings: list[str]
    """The reasons why the check fails, a line each."""
    partial: bool
    """Not all scopes of CI were asked for: witnesses that are missing are no finding."""
    tables: list[TableRow] = []


def scope_row(
    found: Exploration,
    story: ToldCounterexample | None,
    agreement: tuple[int, str],
    pinned: dict[str, dict[str, int]],
) -> ScopeRow:
    """Returns an exploration as a row."""
    sampled, difference = agreement
    expected = pinned.get(found.scope.name)
    wrong = found.counterexample is not None or bool(difference)
    drifted = expected is not None and found.complete and expected != counts_of(found)
    return ScopeRow(
        name=found.scope.name,
        claim=found.scope.claim,
        bounds=found.scope.bounds(),
        verdict=Verdict.VIOLATED if wrong or drifted else Verdict.HOLDS,
        states=found.states,
        transitions=found.transitions,
        diameter=found.diameter,
        models=found.models,
        ends=found.ends,
        seconds=found.seconds,
        memory_mb=found.memory_mb,
        complete=found.complete,
        pinned=expected,
        asked=found.tally.asked,
        sampled=sampled,
        difference=difference,
        actions=found.actions,
        cells=[(*cell, count) for cell, count in sorted(found.tally.cells.items())],
        refusals=found.tally.refusals,
        situations=found.tally.situations,
        story=story,
    )


def counts_of(found: Exploration | ScopeRow) -> dict[str, int]:
    """Returns the counts of a scope that are pinned."""
    return {
        "states": found.states,
        "transitions": found.transitions,
        "diameter": found.diameter,
        "models": found.models,
    }


def load_counts(path: Path = COUNTS) -> dict[str, dict[str, int]]:
    """Returns the pinned counts by scope."""
    counts: dict[str, dict[str, int]] = json.loads(path.read_text()) if path.exists() else {}
    return counts


def pin_counts(scopes: Iterable[ScopeRow], path: Path = COUNTS) -> None:
    """Pins the counts of the scopes that were explored to their end."""
    counts = load_counts(path)
    counts |= {scope.name: counts_of(scope) for scope in scopes if scope.complete}
    path.write_text(json.dumps(counts, indent=2, sort_keys=True) + "\n")


def properties_of(scopes: Sequence[ScopeRow]) -> list[PropertyRow]:
    """Returns the verdict on every property."""
    violated = {scope.story.property for scope in scopes if scope.story is not None}
    done = sum(scope.complete for scope in scopes)
    rows = [
        PropertyRow(
            name=name,
            claim=claim,
            verdict=(
                Verdict.VIOLATED if name in violated
                else Verdict.HOLDS if done
                else Verdict.SKIPPED
            ),
            scopes=done,
        )
        for name, claim in ALL_PROPERTIES.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row.verdict != Verdict.VIOLATED)


def witnesses_of(scopes: Sequence[ScopeRow]) -> list[Witness]:
    """Returns everything that has to be met, with how often it was."""
    cells: dict[tuple[str, str, str], int] = {}
    actions: dict[str, int] = {}
    refusals: dict[str, int] = {}
    situations: dict[str, int] = {}
    for scope in scopes:
        for trigger, source, target, count in scope.cells:
            key = (trigger, source, target)
            cells[key] = cells.get(key, 0) + count
        for kind, count in scope.actions.items():
            actions[kind] = actions.get(kind, 0) + count
        for code, count in scope.refusals.items():
            refusals[code] = refusals.get(code, 0) + count
        for words, count in scope.situations.items():
            situations[words] = situations.get(words, 0) + count
    met = [
        Witness(
            what=f"{trigger.name}: {source.name.lower()} to {target.name.lower()}",
            kind="transition",
            count=cells.get((trigger.name, source.name, target.name), 0),
            note=_IMPOSSIBLE.get((trigger.name, source.name), ""),
        )
        for trigger, source, target in transitions()
    ]
    met += [
        Witness(
            what=code, kind="refusal", count=refusals.get(code, 0), note=UNREACHABLE.get(code, "")
        )
        for code in REJECTIONS
    ]
    met += [Witness(what=kind, kind="action", count=actions.get(kind, 0)) for kind in KINDS]
    return met + [
        Witness(what=words, kind="situation", count=situations.get(words, 0))
        for words in SITUATIONS
    ]


USES: Final = {
    "crashes": "crash",
    "power": "cut",
    "early": "crash forgets",
    "unheard": "hear",
    "several": "dispatch-several",
    "stale": "late ok",
    "remote": "lease",
    "timeouts": "finish timeout",
    "many": "kill",
    "fatal": "finish fatal",
    "losses": "die",
    "snoozes": "finish snooze",
    "cancels": "cancel",
    "requeues": "requeue",
    "discards": "discard",
    "pauses": "pause",
    "resubmits": "enqueue other",
    "drains": "drain",
    "reloads": "reload",
    "children": "finish child",
    "scheduled": "enqueue later",
    "second": "enqueue second",
}
"""The purpose of each bound: a scope that never uses its bound claims more than it shows."""

_IMPOSSIBLE: Final = {
    ("DEAD", "PENDING"): "no command of today leads there: it is for jobs that expire and for "
    "failed dependencies, which come later; the cells look at it",
}
"""Transitions of the Machine that no command takes yet, with the reason."""


def findings_of(
    results: Sequence[CheckResult],
    scopes: Sequence[ScopeRow],
    witnesses: Sequence[Witness],
    *,
    partial: bool,
) -> list[str]:
    """Returns what makes the check fail, a line each."""
    found = [f"{r.kind}: {r.name}: {r.verdict}" for r in results if not r.ok]
    for scope in scopes:
        if scope.story is not None:
            found.append(f"scope {scope.name}: {scope.story.property}: {scope.story.message}")
        if scope.difference:
            found.append(
                f"scope {scope.name}: the explorer and the model differ: {scope.difference}"
            )
        if scope.pinned is not None and scope.complete and scope.pinned != counts_of(scope):
            found.append(
                f"scope {scope.name}: its counts are {counts_of(scope)}, pinned are "
                f"{scope.pinned}; if the change is meant, pin them anew"
            )
        if scope.complete:
            found += [
                f"scope {scope.name}: its bound {bound} allows {kind}, which never happened"
                for bound, kind in _uses(scope).items()
                if not scope.actions.get(kind)
            ]
        if scope.pinned is None and scope.complete:
            found.append(f"scope {scope.name}: no counts are pinned")
    if not partial:
        for w in witnesses:
            if not w.count and not w.note:
                found.append(f"{w.kind} never met: {w.what}")
            if w.count and w.note:
                found.append(f"{w.kind} met although it cannot be: {w.what}")
    return found


def _uses(scope: ScopeRow) -> dict[str, str]:
    """Returns what the bounds of a scope are for."""
    uses = {bound: kind for bound, kind in USES.items() if scope.bounds.get(bound)}
    if scope.bounds["many"] == 1:
        del uses["many"]
    elif "timeouts" in uses:
        uses["timeouts"] = "finish softly"
    return uses


def result_of(scope: ScopeRow) -> CheckResult:
    """Returns a scope as a row among the other checks."""
    details = [f"{scope.transitions} transitions, diameter {scope.diameter}"]
    if scope.story is not None:
        details += [f"{scope.story.property}: {scope.story.claim}", *scope.story.steps]
    if scope.difference:
        details.append(scope.difference)
    return CheckResult(
        name=f"{scope.name}: {scope.claim}",
        kind="explorer",
        tool="beaver_spec.explorer",
        bounds=scope.bounds,
        verdict=scope.verdict,
        states=scope.states,
        seconds=scope.seconds,
        details=details,
    )
