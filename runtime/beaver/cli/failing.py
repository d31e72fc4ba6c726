"""How a command fails: what it prints on stderr, and its exit code."""

from __future__ import annotations

import traceback
from typing import Final

from beaver.cli import output
from beaver.errors import AppImportError

EXIT_INTERRUPTED: Final = 130
EXIT_BUG: Final = 70


def _bug(error: Exception) -> str:
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        return what
    return f"{what}\nThis is a bug in Beaver; please report it with what --debug shows."


def _without_traceback(message: str) -> str:
    """Shortens a message with a traceback to what failed, where, and why."""
    lines = message.splitlines()
    if not any(line.startswith("Traceback") for line in lines):
        return message
    places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
    where = f" {places[-1]}" if places else ""
    return f"{lines[0]}{where}\n{lines[-1]}\nRun it again with --debug for the traceback."


def report_bug(error: Exception, debug: bool) -> int:
    """Reports an unexpected error; returns the exit code."""
    return report(error, _bug(error), EXIT_BUG, debug)


def report(error: BaseException, message: str, code: int, debug: bool) -> int:
    """Reports an error in a few lines, or with its traceback; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    elif isinstance(error, AppImportError):
        message = _without_traceback(message)
    output.note(f"beaver: {message}")
    return code
