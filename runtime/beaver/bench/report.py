"""Reports of a run: Markdown, JSON, and a page of the documentation."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any, Final

from beaver.bench.plot import plot
from beaver.bench.rows import API, BEAVER, COMPARED, MACHINE, ROWS, Figure, Figures
from beaver.bench.run import FULL, Result
from beaver.bench.targets import TargetVerdict, judge_goals, judge_targets
from beaver.errors import InvalidInput

BEGIN: Final = "<!-- measured: begin (written by `beaver bench --report`) -->"
END: Final = "<!-- measured: end -->"


def number(value: float) -> str:
    """Returns a figure as people read it: about three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _spread(figure: Figure) -> str:
    if len(figure.values) == 1:
        return ""
    return f"{number(figure.least)} to {number(figure.most)}"


# -- Markdown ---------------------------------------------------------------------------------


def to_markdown(result: Result) -> str:
    """Returns every table of a run."""
    parts = [_about(result), _own_table(result.figures)]
    if result.setups:
        parts.append(_peers_table(result.figures))
        parts.append(_verdicts("Against the peers", judge_goals(result.figures)))
    if _is_full(result):
        parts.append(_verdicts("Targets", judge_targets(result.figures)))
    notes = [
        f"- {name}: {text}" for name, text in [*result.setups.items(), *result.missing.items()]
    ]
    if notes:
        parts.append("How the peers were set up:\n\n" + "\n".join(notes))
    return "\n\n".join(parts) + "\n"


def _is_full(result: Result) -> bool:
    """True where the sizes are those that the targets were set for, whatever the rounds."""
    return result.plan._replace(rounds=FULL.rounds) == FULL


def _about(result: Result) -> str:
    text = (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}; medians of {result.plan.rounds} "
        f"interleaved round{'s' * (result.plan.rounds > 1)}, with the least and the largest value."
    )
    if not _is_full(result):
        text += " Quick: rows of a million jobs or events were measured with a tenth of that."
    return text


def _own_table(figures: Figures) -> str:
    probe = figures.median(MACHINE, "probe")
    lines = ["| Beaver | median | | spread | of the raw sync rate |", "|---|--:|---|---|--:|"]
    for figure in figures:
        if figure.subject not in (BEAVER, API, MACHINE):
            continue
        info = ROWS[figure.key]
        ratio = f"{figure.median / probe:.2f}" if probe and info.unit == "jobs/s" else ""
        label = info.label + (", documented API" if figure.subject == API else "")
        cells = (label, number(figure.median), info.unit, _spread(figure), ratio)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _peers_table(figures: Figures) -> str:
    subjects = figures.subjects()
    lines = [f"| | {' | '.join(subjects)} |", f"|---|{'--:|' * len(subjects)}"]
    for key in COMPARED:
        cells = [_cell(figures.get(subject, key)) for subject in subjects]
        lines.append(f"| {ROWS[key].label}, {ROWS[key].unit} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    spread = _spread(figure)
    return f"{number(figure.median)} ({spread})" if spread else number(figure.median)


def _verdicts(title: str, verdicts: list[TargetVerdict]) -> str:
    lines = [f"| {title} | wanted | measured | met | |", "|---|--:|--:|---|---|"]
    for verdict in verdicts:
        met = "yes" if verdict.met else "**no**"
        value = f"{number(verdict.value)} {verdict.unit}"
        lines.append(f"| {verdict.label} | {verdict.bound} | {value} | {met} | {verdict.detail} |")
    return "\n".join(lines)


# -- JSON ---------------------------------------------------------------------------------------


def to_json(result: Result) -> str:
    """Returns the figures, the verdicts and what was measured on, as one JSON object."""
    figures = result.figures
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "rounds": result.plan.rounds,
        "figures": [
            {
                "subject": figure.subject,
                "row": figure.key,
                "unit": ROWS[figure.key].unit,
                "median": figure.median,
                "least": figure.least,
                "most": figure.most,
                "values": list(figure.values),
            }
            for figure in figures
        ],
        "ratio_to_probe": _ratios(figures),
        "goals": [verdict._asdict() for verdict in judge_goals(figures)],
        "setups": result.setups,
        "missing": result.missing,
    }
    if _is_full(result):
        report["targets"] = [verdict._asdict() for verdict in judge_targets(figures)]
    return json.dumps(report, indent=2)


def _ratios(figures: Figures) -> dict[str, float]:
    probe = figures.median(MACHINE, "probe")
    if not probe:
        return {}
    return {
        figure.key: figure.median / probe
        for figure in figures
        if figure.subject == BEAVER and ROWS[figure.key].unit == "jobs/s"
    }


# -- a page ---------------------------------------------------------------------------------------


def write_report(result: Result, path: str) -> None:
    """Writes the tables into a Markdown page, with a plot and the JSON beside it.

    In a page that has the two marks only what stands between them is replaced.

    Raises:
        InvalidInput: The page exists and does not have both marks.
    """
    page = Path(path)
    picture = page.with_suffix(".svg")
    block = ""
    if len(result.figures.subjects()) > 1:
        block += f"![Jobs a second of each queue, logarithmic]({picture.name})\n\n"
        picture.write_text(plot(result.figures))
    block += to_markdown(result)
    text = page.read_text() if page.exists() else f"# Measured\n\n{BEGIN}\n{END}\n"
    page.write_text(replace_between(text, BEGIN, END, block, path))
    page.with_suffix(".json").write_text(to_json(result) + "\n")


def require_marks(text: str, path: str) -> None:
    """Raises where a page has no place for the tables."""
    replace_between(text, BEGIN, END, "", path)


def replace_between(text: str, begin: str, end: str, block: str, path: str) -> str:
    """Returns a page with another block between two marks.

    Raises:
        InvalidInput: It lacks them.
    """
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise InvalidInput(f"{path} lacks the marks between which the tables go:\n{begin}\n{end}")
    return f"{before}{begin}\n\n{block}\n{end}{after}"
