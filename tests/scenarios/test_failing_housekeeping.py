"""Housekeeping that cannot do its work says so once: what, where, and what to do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.program import beaver, enqueue, eventually, serving


@contextmanager
def directory_at(path: Path) -> Iterator[None]:
    """What nobody can open as a file, not even root."""
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.unlink(missing_ok=True)
    path.mkdir()
    yield
    path.rmdir()


def test_a_history_that_cannot_be_written_is_told_in_one_line_and_is_made_when_it_can(
    tmp_path: Path,
) -> None:
    """The line names the directory, the file and the way out; nothing else depends on it."""
    data = tmp_path / "data"
    history = data / "history.db"
    with serving(data, "--workers", "1") as server:
        enqueue(data, {"id": "a"})
        server.drained(1)
        eventually(history.exists, "the history is there")
        with directory_at(history):
            enqueue(data, {"id": "b"})
            server.drained(2)
            eventually(lambda: told(server.stderr), "the trouble is told")
            enqueue(data, {"id": "c"})
            server.drained(3)
            assert "ACK" in beaver("explain", "b", "--data", str(data))
        eventually(history.is_file, "the history is made anew")
        (line,) = told(server.stderr)
    assert f"bringing up the history of {data.resolve()} failed: Is a directory: {history}" in line
    assert "it is tried again" in line
    assert "remove history.db" in line
    assert not doubled(line)


def told(lines: list[str]) -> list[str]:
    return [line for line in lines if "the history of" in line]


def doubled(line: str) -> list[str]:
    """Words that stand twice in a row, as where each layer of an error names itself."""
    words = line.replace(":", "").split()
    return [word for word, following in itertools.pairwise(words) if word == following]
