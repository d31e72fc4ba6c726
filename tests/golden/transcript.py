"""A transcript: a text file of commands, each with what came of it.

    # Anything that a reader should know first.

    enqueue mail-1
    ----
    decided  2 ENQUEUE mail-1
    synced   seq 2
    told     mail-1 is pending

Above the line of dashes stand commands, one a line; those of one block are asked in one turn of
the loop.  Below it stands what was said, up to an empty line.  `rewritten` runs the commands and
returns the file with what is said now, so a test compares, and `--rewrite-golden` writes.

What lives here: the format.  What the commands do stands in `told`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

DASHES = "----"
Ask = Callable[[Sequence[str]], list[str]]
"""Asks the commands of a block and returns what was said."""


def rewritten(text: str, ask: Ask) -> str:
    """Returns a transcript with what its commands say now."""
    parts: list[str] = []
    for block in _blocks(text):
        lines = block
        if DASHES in block:
            asked = block[: block.index(DASHES)]
            commands = [line for line in asked if not line.startswith("#")]
            lines = [*asked, DASHES, *ask(commands)]
        else:
            assert all(line.startswith("#") for line in block), (
                f"a block of commands ends with {DASHES}: {block[0]}"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _blocks(text: str) -> Iterator[list[str]]:
    """Yields the parts between empty lines."""
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line:
            block.append(line)
        elif block:
            yield block
            block = []
