"""The README's commands, as somebody pastes them: in order, into one shell, on a new directory."""

from __future__ import annotations

from pathlib import Path

from tests.docs.markdown import ROOT, Block, blocks, commands
from tests.docs.session import NOT_RUN, Shell
from tests.support.program import events, status

FAILED = "failed with "


def told() -> list[Block]:
    """The blocks that a reader comes to, the installation behind him."""
    return [b for b in blocks((ROOT / "README.md").read_text()) if b.note != NOT_RUN]


def check(directory: Path, output: str) -> None:
    """What a reader of these commands should have by then."""
    data = directory / "data"
    assert FAILED not in output
    assert "Traceback" not in output
    assert "receipt for 7 sent to ada@example.org" in output
    assert "enqueued task-001" in output
    ended = {e["job"] for e in events(data) if e["event"] == "ACK"}
    assert len(ended) == 2
    assert "task-001" in ended
    view = status(data)
    assert (view["running"], view["pending"], view["in_flight"]) == (False, 0, 0)


def test_every_command_works_one_after_the_other(tmp_path: Path) -> None:
    """Each one ends with 0, and the second server takes the place of the first."""
    printed: list[str] = []
    with Shell(tmp_path) as shell:
        for block in told():
            if block.file_name is not None:
                (tmp_path / block.file_name).write_text(block.text)
            elif block.kind == "console":
                for command in commands(block):
                    background = command.text.endswith("&")
                    guard = "" if background else f" || echo {FAILED} $? {command.line}"
                    printed += shell.run(command.text + guard)
    check(tmp_path, "\n".join(printed))


def test_all_of_it_works_when_it_is_pasted_at_once(tmp_path: Path) -> None:
    """Nobody waits for a ready line between two commands."""
    lines = ["set -m"]  # As in a shell that somebody types into: jobs have numbers.
    for block in told():
        if block.file_name is not None:
            (tmp_path / block.file_name).write_text(block.text)
        elif block.kind == "console":
            lines += [command.text for command in commands(block)]
    with Shell(tmp_path) as shell:
        output = "\n".join(shell.run("\n".join(lines)))
    check(tmp_path, output)
