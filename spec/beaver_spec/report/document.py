"""The report as blocks: headings, paragraphs, tables, lists and code, in reading order.

What lives here: what the report says, and in which order.  `rendering` turns the blocks
into Markdown and HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from beaver_spec.report.diagrams import state_diagram
from beaver_spec.report.report import Report, ScopeRow
from beaver_spec.report.telling import ToldCounterexample
from beaver_spec.results import CheckResult, Verdict


class Heading(NamedTuple):
    level: int
    text: str


class Paragraph(NamedTuple):
    text: str


class BulletList(NamedTuple):
    items: Sequence[str]
    numbered: bool = False


class Table(NamedTuple):
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


class Code(NamedTuple):
    language: str
    text: str


Block = Heading | Paragraph | BulletList | Table | Code

SHOWN: dict[Verdict, str] = {
    Verdict.HOLDS: "holds",
    Verdict.CAUGHT: "caught",
    Verdict.VIOLATED: "VIOLATED",
    Verdict.MISSED: "MISSED",
    Verdict.ERROR: "ERROR",
    Verdict.SKIPPED: "skipped",
}


def blocks(report: Report) -> Iterator[Block]:
    """Yields the whole report."""
    yield Heading(1, "Model check")
    verdict = (
        "No violation was found. **Checked within the bounds below, never proved.**"
        if report.ok
        else f"**Found: {len(report.findings)}.** What was found stands first."
    )
    yield Paragraph(verdict)
    yield from _facts(report)
    if report.findings:
        yield Heading(2, "Findings")
        yield BulletList(report.findings)
    for scope in report.scopes:
        if scope.story is not None:
            yield from story_blocks(scope.story)
    yield Heading(2, "Not explored")
    yield Paragraph("What this check says nothing about:")
    yield BulletList(report.not_explored)
    yield from _scopes(report.scopes)
    yield from _properties(report)
    yield from _witnesses(report)
    yield Heading(2, "The lifecycle")
    yield Paragraph(
        "Generated from the Machine; each arrow with how often the explorer took it, over all "
        "scopes."
    )
    yield Code("mermaid", state_diagram(_cells(report.scopes)))
    yield from _results(report.results)
    for table in report.tables:
        yield Heading(2, table.title)
        yield Table(table.heads, table.rows)


def _facts(report: Report) -> Iterator[Block]:
    rows = [
        ["commit", report.commit],
        ["started", report.started],
        ["seconds", f"{report.seconds:.1f}"],
        ["machine", report.machine],
        *([name, version] for name, version in report.versions.items()),
    ]
    if report.scopes:
        states = sum(scope.states for scope in report.scopes)
        seconds = sum(scope.seconds for scope in report.scopes)
        rows += [
            ["scopes", str(len(report.scopes))],
            ["states", number(states)],
            ["transitions", number(sum(scope.transitions for scope in report.scopes))],
            ["states a second, on one core", number(round(states / max(seconds, 0.001)))],
            ["asked of the real model", number(sum(scope.asked for scope in report.scopes))],
            [
                "compared with whole states",
                number(sum(s.sampled for s in report.scopes)) + " steps",
            ],
        ]
    if report.partial:
        rows.append(["partial", "only some scopes were asked for: witnesses may be missing"])
    yield Table(["", ""], rows)


def story_blocks(story: ToldCounterexample) -> Iterator[Block]:
    """Yields a counterexample: its steps, its diagram and its test."""
    yield Heading(2, f"Counterexample: {story.property} (scope {story.scope})")
    yield Paragraph(f"{story.claim}.")
    yield BulletList([step.partition(". ")[2] for step in story.steps], numbered=True)
    yield Code("mermaid", story.diagram)
    yield Paragraph("The same as a test, which fails while the bug is there:")
    yield Code("python", story.test.rstrip("\n"))


def _scopes(scopes: Sequence[ScopeRow]) -> Iterator[Block]:
    if not scopes:
        return
    yield Heading(2, "Scopes")
    yield Paragraph(
        "Within a scope every interleaving is tried, breadth first: commands, syncs of any first "
        "commands of the batch, crashes after which any first commands survive, recoveries, "
        "outcomes, limits, and what operators and workers may do. Worlds that differ only by "
        "the names of jobs and workers count once."
    )
    yield Table(
        [
            "scope", "verdict", "states", "transitions", "diameter", "states of the model",
            "seconds", "MB", "compared steps", "to its end",
        ],
        [
            [
                f"`{s.name}`",
                SHOWN[s.verdict],
                number(s.states),
                number(s.transitions),
                str(s.diameter),
                number(s.models),
                f"{s.seconds:.1f}",
                f"{s.memory_mb:.0f}",
                number(s.sampled),
                "yes" if s.complete else "NO",
            ]
            for s in scopes
        ],
    )  # fmt: skip
    every = ", ".join(f"`{name}`" for name in scopes[0].bounds)
    yield Paragraph(
        f"What a scope does not name in its bounds does not happen there. There are: {every}."
    )
    yield Table(
        ["scope", "what it is for", "bounds"],
        [[f"`{s.name}`", s.claim, _bounds(s.bounds)] for s in scopes],
    )


def _bounds(bounds: dict[str, Any]) -> str:
    """Returns the bounds that allow something."""
    allowed = {k: v for k, v in bounds.items() if v not in (None, False, 0)}
    return ", ".join(k if v is True else f"{k} {v}" for k, v in allowed.items())


def _properties(report: Report) -> Iterator[Block]:
    yield Heading(2, "Always, and eventually")
    yield Paragraph(
        "Each property, with the scopes that were explored to their end without it failing."
    )
    yield Table(
        ["property", "verdict", "scopes", "claim"],
        [[f"`{p.name}`", SHOWN[p.verdict], str(p.scopes), p.claim] for p in report.properties],
    )


def _witnesses(report: Report) -> Iterator[Block]:
    yield Heading(2, "Sometimes")
    yield Paragraph("What has to be met: a checker that never gets there sees nothing.")
    for kind, title in (
        ("transition", "transition taken"),
        ("refusal", "refusal given"),
        ("action", "action tried"),
        ("situation", "situation met"),
    ):
        rows = [
            [
                w.what if kind in {"transition", "situation"} else f"`{w.what}`",
                number(w.count),
                w.note,
            ]
            for w in report.witnesses
            if w.kind == kind
        ]
        yield Table([title, "times", "why not"], rows)


def _results(results: Sequence[CheckResult]) -> Iterator[Block]:
    yield Heading(2, "All checks")
    rows = [
        [r.kind, r.name, r.tool, SHOWN[r.verdict], number(r.states), f"{r.seconds:.1f}", r.skipped]
        for r in results
    ]
    yield Table(["kind", "check", "tool", "verdict", "states", "seconds", "skipped"], rows)
    for result in results:
        if result.details and result.kind != "explorer":
            yield Heading(3, f"{result.kind}: {result.name}")
            if result.bounds:
                yield Paragraph(", ".join(f"{k}: {v}" for k, v in result.bounds.items()))
            yield BulletList(result.details)


def _cells(scopes: Sequence[ScopeRow]) -> dict[tuple[str, str, str], int]:
    counts: dict[tuple[str, str, str], int] = {}
    for scope in scopes:
        for trigger, source, target, count in scope.cells:
            key = (trigger, source, target)
            counts[key] = counts.get(key, 0) + count
    return counts


def number(value: int) -> str:
    """Returns a number with its thousands apart."""
    return f"{value:,}"
