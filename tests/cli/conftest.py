"""What the tests of the command line share: the command itself, and a server to talk to."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from beaver.cli.main import main

READY_S = 20


class Outcome(NamedTuple):
    """What a command has said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        """Each line of stdout as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def one(self) -> Any:
        """The one line of stdout as JSON."""
        (value,) = self.json
        return value


class Command(Protocol):
    """Runs a command in this process; `stdin` is what it may read."""

    def __call__(self, *arguments: object, stdin: str | bytes = b"") -> Outcome: ...


class Serving(subprocess.Popen[str]):
    """A server, and its ready line."""

    ready = ""


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BEAVER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def beaver(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    def run(*arguments: object, stdin: str | bytes = b"") -> Outcome:
        text = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        sys.stdout.flush()
        said = capfd.readouterr()
        return Outcome(code, said.out, said.err)

    return run


@contextmanager
def serving(*arguments: object, data: str | Path = "data") -> Iterator[Serving]:
    """A server, from its ready line to its end; it is killed if a test leaves it running."""
    command = [sys.executable, "-m", "beaver", "run", "--data", str(data), "--workers", "1"]
    process = Serving(
        [*command, "--http", "off", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(READY_S, process.kill)
    guard.start()
    assert process.stdout is not None
    process.ready = process.stdout.readline()
    guard.cancel()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=READY_S)


def everything_in(directory: str | Path) -> dict[str, tuple[int, bytes | None]]:
    """Names, sizes, times and bytes of all files: equal before and after means untouched."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(Path(directory).rglob("*"))
    }
