"""The command `beaver`: which commands there are, and what becomes of an error.

Every error ends in one to three lines on stderr and the exit code of its class; a traceback
appears only with `--debug`.  What may not live here: what the commands do.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, Final

from beaver.cli import output
from beaver.errors import UNUSABLE, AppImportError, BeaverError, StoreUnavailable
from beaver.system.standard import open_standard_descriptors

EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_BUG: Final = 70

COMPLETING: Final = "_BEAVER_COMPLETE"
"""Set by a shell that wants to know how a command line may go on."""

COMMANDS: Final = {
    "run": "serving",
    "reload": "serving",
    "enqueue": "producing",
    "status": "status",
    "list": "list_jobs",
    "show": "show_job",
    "explain": "show_job",
    "cancel": "operating",
    "retry": "operating",
    "discard": "operating",
    "pause": "operating",
    "resume": "operating",
    "replay": "replays",
    "verify": "replays",
    "config": "configuring",
    "bench": "benching",
    "check": "checking",
    "simulate": "simulating",
    "audit": "simulating",
}
"""Each command and the module of `beaver.cli` that holds it."""

_COMMON: Final = {"--data": True, "--config": True, "--json": False, "--debug": False}
"""Flags that may also stand before the command; True where a value follows."""


def _hoist(arguments: list[str]) -> list[str]:
    """Moves common flags that stand before the command behind its name."""
    index = 0
    while index < len(arguments):
        name, _, _ = arguments[index].partition("=")
        if name not in _COMMON:
            break
        index += 2 if _COMMON[name] and "=" not in arguments[index] else 1
    if 0 < index < len(arguments) and arguments[index] in COMMANDS:
        return [arguments[index], *arguments[:index], *arguments[index + 1 :]]
    return arguments


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    open_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not end a command.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    arguments = _hoist(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if "--json" in arguments:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    asked = arguments[0] if arguments else ""
    # One command is built unless all are listed: each takes about a millisecond.
    names = [asked] if asked in COMMANDS else list(COMMANDS)
    debug = "--debug" in arguments or bool(os.environ.get("BEAVER_DEBUG"))
    try:
        if asked == "run" and COMPLETING not in os.environ:
            from beaver.cli.plain import read_plain

            plain = read_plain(arguments[1:])
            if plain is not None:
                from beaver.cli.becoming import be_server

                return be_server(plain)
        from beaver.cli.commands import build

        code = build(names)(arguments, prog_name="beaver", standalone_mode=False)
    except BeaverError as error:
        return report(error, str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as ended:
        code = ended.code  # The completions of typer end so.
    except OSError as error:
        if error.errno not in UNUSABLE or error.filename is None:
            return report_bug(error, debug)
        what = f"cannot use {error.filename}: {error.strerror}"
        return report(error, what, StoreUnavailable.exit_code, debug)
    except Exception as error:  # noqa: BLE001 - the last place that can say it in one line
        if type(error).__name__ == "Abort":
            return EXIT_INTERRUPTED  # So typer passes it on.
        if hasattr(error, "format_message"):
            return report(error, _usage(error, asked), EXIT_USAGE, debug)
        return report_bug(error, debug)
    return code if isinstance(code, int) else 0


def _usage(error: Any, asked: str) -> str:
    command = f"beaver {asked}" if asked in COMMANDS else "beaver"
    return f"{error.format_message()}\nTry `{command} --help`."


def _bug(error: Exception) -> str:
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        return what
    return f"{what}\nThis is a bug in Beaver; please report it with what --debug shows."


def _without_traceback(message: str) -> str:
    """Returns what failed, where, and why, of a message that holds a traceback."""
    lines = message.splitlines()
    if not any(line.startswith("Traceback") for line in lines):
        return message
    places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
    where = f" {places[-1]}" if places else ""
    return f"{lines[0]}{where}\n{lines[-1]}\nRun it again with --debug for the traceback."


def report_bug(error: Exception, debug: bool) -> int:
    """Tells of an error that nobody has foreseen; returns the exit code."""
    return report(error, _bug(error), EXIT_BUG, debug)


def report(error: BaseException, message: str, code: int, debug: bool) -> int:
    """Tells of an error in a few lines, or with its traceback; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    elif isinstance(error, AppImportError):
        message = _without_traceback(message)
    output.note(f"beaver: {message}")
    return code
