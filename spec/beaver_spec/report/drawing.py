"""The diagrams of a report as SVG, for a page that loads nothing.

What lives here: drawing the Mermaid text that `diagrams` and `telling` write, and no more of
Mermaid than these write.  The text itself stays in the Markdown, where others draw it.
"""

from __future__ import annotations

import html
import re
from typing import Final, NamedTuple

LANE: Final = 190
ROW: Final = 34
TOP: Final = 44
CHARACTER: Final = 6.6
"""Pixels that a character takes, at most in the mean."""

_PARTICIPANT: Final = re.compile(r"participant (\w+) as (.+)")
_ARROW: Final = re.compile(r"(\w+)->>(\w+): (.+)")
_NOTE: Final = re.compile(r"Note over (\w+)(?:,(\w+))?: (.+)")
_MOVE: Final = re.compile(r"(\S+) --> (\S+): (.+)")


def draw(mermaid: str) -> str:
    """Returns the SVG of a diagram, or nothing where it is of another kind."""
    kind, _, body = mermaid.partition("\n")
    lines = [line.strip() for line in body.splitlines()]
    if kind == "sequenceDiagram":
        return _sequence(lines)
    if kind == "stateDiagram-v2":
        return _states(lines)
    return ""


def _svg(width: float, height: float, parts: list[str], label: str) -> str:
    head = (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{label}">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>'
    )
    return f'<div class="drawing">{head}{"".join(parts)}</svg></div>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    shown = html.escape(text, quote=False)
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{shown}</text>'


# -- sequences -----------------------------------------------------------------------------------


def _sequence(lines: list[str]) -> str:
    """Time runs downwards; each participant has a line, each step a row with its number."""
    lanes: dict[str, float] = {}
    parts: list[str] = []
    steps = [line for line in lines if not line.startswith("participant")]
    bottom = TOP + ROW * len(steps) + 10
    for line in lines:
        if match := _PARTICIPANT.fullmatch(line):
            x = lanes[match[1]] = 30 + LANE * (len(lanes) + 0.5)
            parts.append(_text(x, 22, match[2], "who"))
            parts.append(f'<path class="life" d="M{x:g} 32V{bottom:g}"/>')
    for number, line in enumerate(steps, 1):
        y = TOP + ROW * (number - 0.5)
        parts.append(_text(22, y + 4, str(number), "count", "end"))
        if match := _ARROW.fullmatch(line):
            x, target = lanes[match[1]], lanes[match[2]]
            parts.append(
                f'<path class="arrow" d="M{x:g} {y:g}H{target:g}" marker-end="url(#tip)"/>'
            )
            side = 6 if target > x else -6
            parts.append(_text(x + side, y - 5, match[3], "", "start" if side > 0 else "end"))
        elif match := _NOTE.fullmatch(line):
            first, last = lanes[match[1]], lanes[match[2] or match[1]]
            wrong = " wrong" if match[3].startswith("wrong") else ""
            width = max(last - first + 60, 14 + CHARACTER * len(match[3]))
            parts.append(
                f'<rect class="note{wrong}" x="{first - 30:g}" y="{y - 11:g}" rx="4" '
                f'width="{width:g}" height="22"/>'
            )
            parts.append(_text(first - 24, y + 4, match[3], f"noted{wrong}", "start"))
    return _svg(30 + LANE * (len(lanes) + 1), bottom + 10, parts, "what happened, step by step")


# -- the lifecycle -------------------------------------------------------------------------------

_PLACES: Final = {
    "[*] in": (60, 210),
    "pending": (330, 210),
    "in_flight": (800, 210),
    "completed": (1070, 210),
    "cancelled": (565, 50),
    "dead": (565, 370),
    "[*] out": (60, 370),
    "[*] above": (60, 50),
}
"""Where each state stands; there are two ends, so that no arrow crosses a state."""


class _Line(NamedTuple):
    source: str
    target: str
    labels: list[str]


def _states(lines: list[str]) -> str:
    """States stand where they always stand; arrows between the same two share one curve."""
    moves: dict[tuple[str, str], _Line] = {}
    for line in lines:
        match = _MOVE.fullmatch(line)
        if match is None:
            return ""
        source = "[*] in" if match[1] == "[*]" else match[1]
        end = "[*] above" if match[1] == "cancelled" else "[*] out"
        target = end if match[2] == "[*]" else match[2]
        if source not in _PLACES or target not in _PLACES:
            return ""
        moves.setdefault((source, target), _Line(source, target, [])).labels.append(match[3])
    parts = [_curve(line, paired=(line.target, line.source) in moves) for line in moves.values()]
    for name, (x, y) in _PLACES.items():
        if name.startswith("[*]"):
            parts.append(f'<circle class="end" cx="{x}" cy="{y}" r="9"/>')
        else:
            parts.append(
                f'<rect class="state" x="{x - 62}" y="{y - 18}" width="124" height="36" rx="18"/>'
            )
            parts.append(_text(x, y + 5, name.replace("_", " "), "who"))
    return _svg(1150, 410, parts, "the lifecycle of a job")


def _curve(line: _Line, *, paired: bool) -> str:
    (x1, y1), (x2, y2) = _PLACES[line.source], _PLACES[line.target]
    if line.source == line.target:
        path = f"M{x1 - 20} {y1 - 18}C{x1 - 50} {y1 - 80} {x1 + 50} {y1 - 80} {x1 + 20} {y1 - 18}"
        x, y = x1 + 96.0, y1 - 60.0
    else:
        dx, dy = x2 - x1, y2 - y1
        length = (dx * dx + dy * dy) ** 0.5
        bend = 42 if paired else 0
        # To the left of the direction of travel, so that there and back do not meet.
        mx, my = (x1 + x2) / 2 + dy / length * bend, (y1 + y2) / 2 - dx / length * bend
        start, stop = _rim(x1, y1, mx, my, line.source), _rim(x2, y2, mx, my, line.target)
        path = f"M{start[0]:.0f} {start[1]:.0f}Q{mx:.0f} {my:.0f} {stop[0]:.0f} {stop[1]:.0f}"
        x, y = (x1 + x2 + 2 * mx) / 4, (y1 + y2 + 2 * my) / 4
    count = len(line.labels)
    texts = [
        _text(x, y + 4 + 15 * (row - (count - 1) / 2), label, "label")
        for row, label in enumerate(line.labels)
    ]
    return f'<path class="arrow" d="{path}" marker-end="url(#tip)"/>{"".join(texts)}'


def _rim(x: float, y: float, to_x: float, to_y: float, name: str) -> tuple[float, float]:
    """Returns where a line from the middle of a state leaves its box."""
    half_width, half_height = (11, 11) if name.startswith("[*]") else (66, 21)
    dx, dy = to_x - x, to_y - y
    scale = min(half_width / abs(dx) if dx else 9e9, half_height / abs(dy) if dy else 9e9)
    return x + dx * scale, y + dy * scale
