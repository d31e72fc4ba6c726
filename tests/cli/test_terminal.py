"""On a terminal there are colours and progress; what a script reads stays the same."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def on_a_terminal(*arguments: str, stream: str, **environment: str) -> tuple[str, str]:
    """Runs a command with `stream` ("stdout" or "stderr") on a terminal.

    Returns:
        What the terminal got, and what came out of the other stream.
    """
    terminal, slave = pty.openpty()
    is_stdout = stream == "stdout"
    process = subprocess.Popen(
        [sys.executable, "-m", "beaver", *arguments],
        stdout=slave if is_stdout else subprocess.PIPE,
        stderr=subprocess.PIPE if is_stdout else slave,
        env={**os.environ, "TERM": "xterm", **environment},
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # Linux says so when the other end is closed.
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    return shown.decode(), (err if is_stdout else out).decode()


@pytest.fixture
def store(beaver: Command) -> None:
    beaver("enqueue", "--file", "-", stdin="\n".join(f'{{"id": "job-{n}"}}' for n in range(3_000)))


def test_states_are_coloured_unless_nobody_wants_that(store: None) -> None:
    shown, _ = on_a_terminal("list", "--limit", "1", stream="stdout")
    assert "\x1b[36m" in shown
    plain, _ = on_a_terminal("list", "--limit", "1", stream="stdout", NO_COLOR="1")
    assert "\x1b" not in plain


@pytest.mark.parametrize("command", [["replay", "--check"], ["verify"]])
def test_progress_is_shown_on_the_terminal_and_the_verdict_is_the_same(
    beaver: Command, store: None, command: list[str]
) -> None:
    shown, out = on_a_terminal(*command, "--json", stream="stderr")
    assert "ing data" in shown
    assert out == beaver(*command, "--json").out


def test_a_simulation_counts_its_runs() -> None:
    shown, _ = on_a_terminal("simulate", "--seeds", "40", stream="stderr")
    assert "simulating" in shown
    assert re.search(r"\d+/40 runs", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown))


def test_progress_of_chunks_is_shown(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("\n".join(f'{{"id": "job-{n}"}}' for n in range(3_000)))
    shown, out = on_a_terminal("enqueue", "--file", "jobs", "--chunked", stream="stderr")
    assert "enqueueing jobs" in shown
    assert out == "3000 jobs enqueued (seq 1 to 3000)\n"
