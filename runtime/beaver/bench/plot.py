"""A plot of rates as SVG, drawn by hand: one group of bars a row, on a logarithmic axis."""

from __future__ import annotations

import math
from typing import Final
from xml.sax.saxutils import escape

from beaver.bench.rows import BEAVER, COMPARED, ROWS, Figures

WIDTH: Final = 860
LABEL_WIDTH: Final = 250
VALUE_WIDTH: Final = 70
BAR: Final = 11
GAP: Final = 14
TOP: Final = 64
BOTTOM: Final = 28
COLOURS: Final = (
    "#b4531f", "#4c78a8", "#72b7b2", "#54a24b", "#9d755d", "#b279a2", "#8c8c8c", "#d4a72c",
)  # fmt: skip
"""The first is Beaver's."""


def plot(figures: Figures) -> str:
    """Returns an SVG document with the median rates of every subject."""
    subjects = figures.subjects()
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(subjects)}
    keys = [key for key in COMPARED if ROWS[key].unit == "jobs/s"]
    values = [v for key in keys for name in subjects if (v := figures.median(name, key))]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    span = WIDTH - LABEL_WIDTH - VALUE_WIDTH

    def x_of(value: float) -> float:
        return LABEL_WIDTH + span * (math.log10(value) - low) / max(1, high - low)

    bars: list[str] = []
    y = float(TOP)
    for key in keys:
        shown = [(n, v) for n in subjects if (v := figures.median(n, key)) is not None]
        middle = y + BAR * len(shown) / 2 + 4
        bars.append(_text(LABEL_WIDTH - 10, middle, ROWS[key].label, anchor="end"))
        for name, value in shown:
            width = max(1.0, x_of(value) - LABEL_WIDTH)
            title = f"<title>{escape(name)}: {value:,.0f} jobs/s</title>"
            bars.append(
                f'<rect x="{LABEL_WIDTH}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 1}" '
                f'fill="{colours[name]}">{title}</rect>'
            )
            weight = "bold" if name == BEAVER else "normal"
            bars.append(
                _text(LABEL_WIDTH + width + 4, y + BAR - 2, f"{value:,.0f}", size=9, weight=weight)
            )
            y += BAR
        y += GAP
    height = y + BOTTOM
    grid = []
    for power in range(low, high + 1):
        x = x_of(10**power)
        grid.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{y:.1f}" stroke="#ccc"/>')
        grid.append(_text(x, y + 14, f"{10**power:,}", anchor="middle", size=10))
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" font-family="sans-serif">'
    )
    background = '<rect width="100%" height="100%" fill="white"/>'
    title = _text(LABEL_WIDTH, 18, "Jobs a second, each synced before it is acknowledged", size=13)
    return "\n".join([opening, background, title, *_legend(colours), *grid, *bars, "</svg>\n"])


def _legend(colours: dict[str, str]) -> list[str]:
    parts, x = [], float(LABEL_WIDTH)
    for name, colour in colours.items():
        parts.append(f'<rect x="{x:.0f}" y="30" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 14, 39, name, size=11))
        x += 26 + 6.4 * len(name)
    return parts


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="#222">{escape(text)}</text>'
    )
