"""A document as a session: its files are written, its commands run, their output compared.

One `bash` runs all commands of a document in a scratch directory, as a reader's shell would,
so a server that is started with `&` stays.  What differs from run to run (times, ids, pids,
paths) is normalised on both sides.

    python -m tests.docs.session docs/tutorial.md      rewrites outputs that have changed
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.docs.markdown import Block, Command, blocks, commands

DEADLINE_S = 15.0
NOT_RUN = "not run"
NUMBERS_VARY = "numbers vary"
HOME = "/home/ada/queue"
"""Where the reader of our documents works."""

OPTIONAL_TOOLS = ("jq", "curl")
"""Commands that use one of these are left out where it is not installed."""

PORT = "127.0.0.1:9090"

_NORMAL: tuple[tuple[str, str], ...] = (
    (r"by=uid:\d+", "by=uid:U"),
    (r"log \S+ \S+, snapshots .* free$", "SIZES"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+", "TIME"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\b[0-9a-f]{32}\b", "HEX"),
    (r"; listening on .*", ""),
    (r"\b(\d+(\.\d+)?(ms|m|s))+(?=[\s:]|$)", "SPAN"),
    (r"\b\d+(\.\d+)? (ms|bytes)\b", r"N \2"),
    (r"\"(time_ms|ready_ms|started_ms|run_at)\":\d+", r'"\1":N'),
    (r"\b(worker)=\d+", r"\1=N"),
    (r"on worker \d+", "on worker N"),
    (r"\d+\.\d+(e[+-]\d+)?", "N"),
    (r"\s+", " "),
)


_LOOKS = re.compile(
    r"(sleep [\d.]+; )?(beaver (status|list|show|explain|replay|verify)|cat|grep|tail|curl|jq)\b"
)
"""Commands that only look: they are asked again until the program has come so far."""


def normal(line: str, *, numbers: bool = True) -> str:
    """Returns a line without what differs from run to run."""
    for pattern, replacement in _NORMAL:
        line = re.sub(pattern, replacement, line)
    return (line if numbers else re.sub(r"\d+", "N", line)).strip()


def matches(expected: list[str], found: list[str]) -> bool:
    """True where the lines are the same; `...` stands for any number of them."""
    if not expected:
        return not found
    if expected[0] == "...":
        return any(matches(expected[1:], found[skip:]) for skip in range(len(found) + 1))
    return bool(found) and expected[0] == found[0] and matches(expected[1:], found[1:])


class Shell:
    """A `bash` in a scratch directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = f"127.0.0.1:{probe.getsockname()[1]}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BEAVER_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**kept, "PATH": path, "BEAVER_HTTP": self.port, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._count = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._write("kill $(jobs -p) 2>/dev/null; wait")
            assert self._bash.stdin is not None
            self._bash.stdin.close()
            self._bash.wait(20.0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.wait()
            self._reader.join(5.0)
            assert self._bash.stdout is not None
            self._bash.stdout.close()

    def _read(self) -> None:
        assert self._bash.stdout is not None
        for line in iter(self._bash.stdout.readline, b""):
            self._lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    def _write(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{text}\n".encode())
        self._bash.stdin.flush()

    def run(self, text: str, wanted: Callable[[list[str]], bool] = lambda lines: True) -> list[str]:
        """Runs a command; returns its lines once it has ended and `wanted` is content with them.

        A command that is put into the background prints later: so it is waited for what is
        wanted, with a deadline.
        """
        self._count += 1
        mark = f"::done {self._count}::"
        start = len(self._lines)
        self._write(f"{text.replace(PORT, self.port)}\necho; echo '{mark}'")
        in_background = text.rstrip().endswith("&")
        deadline = time.monotonic() + DEADLINE_S
        while True:
            seen = self._lines[start:]
            lines = self._tidy(seen)
            if mark in seen and (wanted(lines) or not in_background):
                return lines
            if time.monotonic() > deadline or self._bash.poll() is not None:
                return lines
            time.sleep(0.01)

    def _tidy(self, lines: list[str]) -> list[str]:
        """Returns what a reader would see, without what the shell says of killed jobs."""
        noise = r"^::done \d+::$|line \d+: +\d+ (Killed|Terminated)"
        out = [
            line.replace(str(self.directory), HOME).replace(self.port, PORT)
            for line in lines
            if not re.search(noise, line)
        ]
        while out and not out[-1].strip():
            out.pop()
        return out


class Session:
    """Runs a document; `problems` says where it and the program differ."""

    def __init__(
        self,
        document: Path,
        directory: Path,
        *,
        consoles: bool = True,
        patience_s: float = DEADLINE_S,
    ) -> None:
        """Prepares to run a document.

        Args:
            document: The file.
            directory: An empty directory to work in.
            consoles: Run the `console` blocks too.
            patience_s: How long a command that looks is asked again.
        """
        self.document = document
        self._patience_s = patience_s
        self._directory = directory
        self._consoles = consoles
        self.problems: list[str] = []
        self.printed: list[tuple[Command, list[str]]] = []
        """Commands whose output is not what the document says, with what they printed."""
        self.ran = 0
        """Commands and scripts that were run."""

    def run(self) -> Self:
        with Shell(self._directory) as shell:
            for block in blocks(self.document.read_text()):
                if block.note == NOT_RUN:
                    continue
                if block.file_name is not None:
                    path = self._directory / block.file_name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(block.text)
                if block.kind == "python" and not (block.file_name and self._consoles):
                    self._script(shell, block)
                elif block.kind == "console" and self._consoles:
                    for command in commands(block):
                        self._command(shell, block, command)
        return self

    def _script(self, shell: Shell, block: Block) -> None:
        name = block.file_name
        if name is None:
            name = f"block_{block.line}.py"
            (self._directory / name).write_text(block.text)
        lines = shell.run(f"python {name} || echo FAILED")
        self.ran += 1
        if "FAILED" in lines:
            self._problem(block.line, name, [], lines)

    def _command(self, shell: Shell, block: Block, command: Command) -> None:
        for tool in OPTIONAL_TOOLS:
            if re.search(rf"\b{tool}\b", command.text) and shutil.which(tool) is None:
                return
        numbers = block.note != NUMBERS_VARY

        def tidy(lines: list[str]) -> list[str]:
            return [normal(line, numbers=numbers) for line in lines]

        expected = tidy(command.expected)
        deadline = time.monotonic() + self._patience_s
        while True:
            lines = shell.run(command.text, lambda found: matches(expected, tidy(found)))
            right = matches(expected, tidy(lines))
            asks_again = bool(expected) and _LOOKS.match(command.text)
            if right or not asks_again or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        self.ran += 1
        if not right:
            self.printed.append((command, lines))
            self._problem(command.line, command.text, command.expected, lines)

    def _problem(self, line: int, what: str, expected: list[str], found: list[str]) -> None:
        self.problems.append(
            f"{self.document.name}:{line}: {what}\n"
            + "".join(f"    - {text}\n" for text in expected)
            + "".join(f"    + {text}\n" for text in found)
        )


def rewrite(session: Session) -> None:
    """Puts what the commands printed into the document, where it says something else."""
    lines = session.document.read_text().split("\n")
    for command, printed in reversed(session.printed):
        first = command.line + command.text.count("\n")
        lines[first : first + len(command.expected)] = printed
    session.document.write_text("\n".join(lines))


def main() -> None:
    """Runs documents and rewrites their outputs; what failed otherwise is printed."""
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory(prefix="beaver-docs-") as scratch:
            session = Session(Path(name).resolve(), Path(scratch), patience_s=4.0).run()
        print("\n".join(session.problems))
        rewrite(session)


if __name__ == "__main__":
    main()
