"""Lifecycles and crashes as transcripts: what was asked, and all that was said.

`pytest tests/golden --rewrite-golden` writes what is said now; the commit says why it changed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.markdown import spans
from tests.golden.told import Store
from tests.golden.transcript import DASHES, rewritten

HERE = Path(__file__).parent
TRANSCRIPTS = sorted((HERE / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_store_still_says_what_the_transcript_tells(
    path: Path, request: pytest.FixtureRequest
) -> None:
    """Events, recovery, answers and their order are as they were written down."""
    told = path.read_text()
    now = rewritten(told, Store().ask)
    if request.config.getoption("--rewrite-golden"):
        path.write_text(now)
        return
    assert now.splitlines() == told.splitlines(), (
        f"{path.name} tells something else; where that is meant: pytest tests/golden "
        "--rewrite-golden, and say in the commit why"
    )


def test_a_changed_transcript_fails() -> None:
    """A word more, a line less, another order of lines: each is seen."""
    told = TRANSCRIPTS[0].read_text()
    now = rewritten(told, Store().ask)
    lines = told.splitlines()
    start = lines.index(DASHES) + 1
    assert now.splitlines() == lines
    for changed in (
        [*lines[:start], lines[start] + ".", *lines[start + 1 :]],
        [*lines[:start], *lines[start + 1 :]],
        [*lines[:start], lines[start + 1], lines[start], *lines[start + 2 :]],
    ):
        again = rewritten("\n".join(changed), Store().ask)
        assert again.splitlines() == lines, "what is said does not depend on what was told"
        assert again.splitlines() != changed


def test_every_command_is_in_a_transcript_and_in_the_list() -> None:
    """None is there that no story needs, and a reader finds each in the README."""
    used = {
        line.split()[0]
        for path in TRANSCRIPTS
        for block in path.read_text().split("\n\n")
        if DASHES in block
        for line in block.partition(DASHES)[0].splitlines()
        if not line.startswith("#")
    }
    assert used == set(Store.COMMANDS)
    listed = {span.split()[0] for span in spans((HERE / "README.md").read_text())}
    assert used <= listed


def test_a_block_without_its_dashes_is_no_comment() -> None:
    """A slip of the writer does not make a command silently disappear."""
    with pytest.raises(AssertionError, match="a block of commands ends with"):
        rewritten("# a story\n\nstart\n", Store().ask)
