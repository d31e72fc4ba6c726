"""Writing to stdout and stderr: JSON, lines, tables, colours and progress.

Nothing is cut or wrapped.  Colours and progress appear only on a terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from beaver.text.foreign import printable

_CODES: Final = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "bold": 1, "dim": 2}
_ESCAPE: Final = chr(0xF0000 + int.from_bytes(os.urandom(2), "big") % 0xFFFD)
"""Stands for the escape character of a colour until the text is written: a private character
that no text of others can foresee, so that whatever else steers a terminal can be escaped."""
_encode: Final = msgspec.json.Encoder().encode

STATE_COLOURS: Final = {
    "pending": "cyan",
    "in_flight": "yellow",
    "completed": "green",
    "dead": "red",
    "cancelled": "dim",
}


def line(text: str = "") -> None:
    """Writes a line to stdout, with whatever cannot be seen in it escaped."""
    sys.stdout.write(printable(text).replace(_ESCAPE, "\x1b") + "\n")


def note(text: str) -> None:
    """Writes a line to stderr: what a person should know and a script need not."""
    sys.stdout.flush()
    sys.stderr.write(printable(text) + "\n")


def json_line(value: Any) -> None:
    """Writes a value as one line of JSON to stdout."""
    sys.stdout.write(_encode(value).decode() + "\n")


def paint(text: str, colour: str | None) -> str:
    """Returns coloured text if stdout is a terminal and colours are not disabled."""
    if colour is None or not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"{_ESCAPE}[{_CODES[colour]}m{text}{_ESCAPE}[0m"


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    colours: Sequence[str | None] = (),
) -> None:
    """Writes rows in columns as wide as their longest cell; numbers stand to the right.

    Args:
        titles: Heads of the columns.
        rows: Cells, already text.
        colours: A colour for each row; missing ones are plain.
    """
    cells = [[printable(cell.replace("\n", " "), "") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    right = [
        bool(cells) and all(_is_figure(row[index]) for row in cells) for index in range(len(titles))
    ]

    def laid_out(row: Sequence[str]) -> str:
        columns = zip(row, widths, right, strict=True)
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in columns).rstrip()

    line(paint(laid_out(titles), "bold"))
    for index, row in enumerate(cells):
        line(paint(laid_out(row), colours[index] if index < len(colours) else None))


def _is_figure(cell: str) -> bool:
    return not cell or cell == "-" or cell[0].isdigit()


@contextmanager
def bars(*columns: Any) -> Iterator[Any]:
    """Shows bars with these columns of `rich.progress` on stderr while the block runs."""
    # Imported only here: rich takes longer than most commands.
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        # Otherwise the bars would mix with what is written to stdout.
        redirect_stdout=False,
        redirect_stderr=False,
    ) as shown:
        yield shown


def _silent(done: int, of: int) -> None:
    """Shows nothing."""


@contextmanager
def progress(what: str, total: int, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """Shows how far long work is, on a terminal.

    Yields:
        A function that takes what is done and what there is to do, in bytes or in this unit.
    """
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn

    count = (MofNCompleteColumn(), TextColumn(unit)) if unit else (DownloadColumn(),)
    with bars(TextColumn("{task.description}"), BarColumn(), *count) as bar:
        task = bar.add_task(what, total=total or None)
        yield lambda done, of: bar.update(task, completed=done, total=of or None)


def _unseen(done: int, of: int, what: str) -> None:
    """Shows nothing."""


@contextmanager
def steps() -> Iterator[Callable[[int, int, str], None]]:
    """Shows on a terminal which part of long work is under way, and how many are to come.

    Yields:
        A function that takes the parts that are done, how many there are, and the next one.
    """
    if not sys.stderr.isatty():
        yield _unseen
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    elapsed, description = TimeElapsedColumn(), TextColumn("{task.description}")
    with bars(BarColumn(), MofNCompleteColumn(), elapsed, description) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, of, what: bar.update(
            task, completed=done, total=of or None, description=what
        )
