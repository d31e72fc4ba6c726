"""The command `beaver`: which commands there are, and what becomes of an error.

Every error ends in one to three lines on stderr and the exit code of its class; a traceback
appears only with `--debug`.  What may not live here: what the commands do.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from beaver.cli.failing import EXIT_INTERRUPTED, report, report_bug
from beaver.errors import UNUSABLE, BeaverError, StoreUnavailable
from beaver.system.standard import open_standard_descriptors

EXIT_USAGE: Final = 2

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
    "bulk": "many",
    "pause": "operating",
    "resume": "operating",
    "replay": "replays",
    "verify": "replays",
    "backup": "backing",
    "restore": "backing",
    "ship": "ship",
    "compact": "compact",
    "outbox": "outbox",
    "token": "token",
    "ui": "ui",
    "config": "configuring",
    "doctor": "doctor",
    "bench": "benching",
    "check": "checking",
    "simulate": "simulating",
    "audit": "simulating",
}
"""Each command and the module of `beaver.cli` that holds it."""

_COMMON: Final = {
    "--data": True,
    "--config": True,
    "--url": True,
    "--ca-file": True,
    "--json": False,
    "--debug": False,
}
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
    commands = {asked: COMMANDS[asked]} if asked in COMMANDS else COMMANDS
    debug = "--debug" in arguments or bool(os.environ.get("BEAVER_DEBUG"))
    try:
        if asked == "run" and COMPLETING not in os.environ:
            from beaver.cli.plain import read_plain

            plain = read_plain(arguments[1:])
            if plain is not None:
                from beaver.cli.becoming import be_server

                return be_server(plain)
        from beaver.cli.commands import build

        code = build(commands)(arguments, prog_name="beaver", standalone_mode=False)
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
