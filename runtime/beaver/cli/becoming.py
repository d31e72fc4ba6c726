"""Restarts a server's process once its settings are known.

Parsing a command line needs typer, which with its imports holds 9 MB for the whole life of a
process that never parses another.  If the flags are plain, typer is not needed (see `plain`) and
the server runs at once.  Otherwise `beaver run` checks its settings, passes them in an unnamed
file, and executes Python again in the same process, with the same command line to be seen in
`ps`.  The second time nothing but the server is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from beaver.cli.failing import EXIT_INTERRUPTED, report, report_bug
from beaver.cli.plain import Plain
from beaver.config.layers import Config, load_config
from beaver.errors import BeaverError, DiskFull

VARIABLE: Final = "BEAVER_SERVE"
"""Number of the descriptor that holds the settings; gone from the environment at once."""


class Handover(msgspec.Struct):
    """What the new program receives."""

    config: Config
    debug: bool
    asked: dict[str, Any] = {}
    """The flags, by setting."""
    file: str | None = None
    """The file that `--config` names."""


def be_server(plain: Plain) -> int:
    """Runs the server in this program; returns its exit code.

    Raises:
        BeaverError: A setting is wrong, or the server could not start.
    """

    def configured() -> Config:
        return load_config(plain.asked, file=plain.file)

    config = configured()
    from beaver.server.serve import run

    return run(config, configured)


def become_server(told: Handover) -> NoReturn:
    """Replaces this program by the server; its exit code is the server's."""
    fd = _unnamed_file(msgspec.json.encode(told))
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ[VARIABLE] = str(fd)
    # A command that was installed does not look for modules where it is called, `-m` would.
    here = sys.path[:1] in ([""], [str(Path.cwd())])
    flags = [*_interpreter_flags(), *([] if here else ["-P"])]
    os.execv(  # noqa: S606 - the same interpreter, no shell
        sys.executable, [sys.executable, *flags, "-m", "beaver", *sys.argv[1:]]
    )


def _interpreter_flags() -> list[str]:
    """Returns the flags that this interpreter was started with (`-I`, `-O`, `-X dev`, ...)."""
    import subprocess

    return list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined] # noqa: SLF001


def _unnamed_file(content: bytes) -> int:
    """Returns a descriptor that the new program inherits.

    In memory where that can be: a server starts on a full disk, too, and where the data
    directory is the only place that may be written.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("beaver-settings")
    else:
        import tempfile

        with tempfile.TemporaryFile() as unnamed:
            fd = os.dup(unnamed.fileno())
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(content)
    except OSError as error:
        raise DiskFull(f"no room for {len(content)} bytes of settings: {error.strerror}") from error
    os.lseek(fd, 0, os.SEEK_SET)
    os.set_inheritable(fd, True)
    return fd


def serve() -> int:
    """Runs the server with the settings that were handed over; returns the exit code."""
    with os.fdopen(int(os.environ.pop(VARIABLE)), "rb") as file:
        told = msgspec.json.decode(file.read(), type=Handover)
    from beaver.server.serve import run

    try:
        return run(told.config, lambda: load_config(told.asked, file=told.file))
    except BeaverError as error:
        return report(error, str(error), error.exit_code, told.debug)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - as in `main`
        return report_bug(error, told.debug)
