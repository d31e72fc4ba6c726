"""A flame graph as SVG, drawn by hand: widths are time, and what stands above was called."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 1_200
ROW: Final = 17
TOP: Final = 40
LETTER: Final = 6.2
LEAST: Final = 0.4
"""Pixels below which a frame is not drawn."""

Stacks = Mapping[tuple[str, ...], float]
"""Time by stack, outermost frame first."""


class _Frame:
    """One frame with all that was called from it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.value = 0.0
        self.called: dict[str, _Frame] = {}

    def add(self, stack: tuple[str, ...], value: float) -> None:
        self.value += value
        if stack:
            self.called.setdefault(stack[0], _Frame(stack[0])).add(stack[1:], value)

    def depth(self) -> int:
        return 1 + max((frame.depth() for frame in self.called.values()), default=0)


def flame(title: str, stacks: Stacks, unit: str) -> str:
    """Returns an SVG document.

    Args:
        title: Stands above it.
        stacks: The samples.
        unit: Unit of the values, for the tooltips.
    """
    root = _Frame("all")
    for stack, value in stacks.items():
        root.add(stack, value)
    height = TOP + ROW * root.depth() + 10
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="monospace" font-size="10">'
    )
    parts = [
        opening,
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="22" font-family="sans-serif" font-size="14">{escape(title)}</text>',
    ]
    _draw(parts, root, 0.0, height - ROW - 5, WIDTH / root.value if root.value else 0, root, unit)
    return "\n".join([*parts, "</svg>\n"])


def _draw(
    parts: list[str], frame: _Frame, x: float, y: float, scale: float, root: _Frame, unit: str
) -> None:
    width = frame.value * scale
    if width < LEAST:
        return
    told = f"{frame.name}: {frame.value:,.2f} {unit}, {frame.value / root.value:.1%}"
    parts.append(
        f'<g><title>{escape(told)}</title><rect x="{x:.1f}" y="{y:.0f}" width="{width:.1f}" '
        f'height="{ROW - 1}" fill="{_colour(frame.name)}" rx="1"/>'
    )
    letters = int((width - 4) / LETTER)
    if letters >= 3:
        name = frame.name.rpartition(":")[2]
        shown = name if len(name) <= letters else name[: letters - 1] + "…"
        parts.append(f'<text x="{x + 3:.1f}" y="{y + 12:.0f}">{escape(shown)}</text>')
    parts.append("</g>")
    for called in sorted(frame.called.values(), key=lambda f: f.name):
        _draw(parts, called, x, y - ROW, scale, root, unit)
        x += called.value * scale


def _colour(name: str) -> str:
    """Returns the colour of a frame's module: the same in every picture."""
    hue = zlib.crc32(name.rpartition(":")[0].encode()) % 360
    return f"hsl({hue} 62% 74%)"
