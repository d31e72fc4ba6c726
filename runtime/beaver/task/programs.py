"""Programs: what a job of `exec` asks for, and which it may run.

`allow_exec` lets jobs of this machine run any program.  `exec_allow` lists the programs that jobs
of other origins may run; without `allow_exec` jobs of this machine have the same list.
The HTTP API asks before it takes a job in, and the worker asks again before it runs one: the list
that counts is that of today.

What may not live here: running them (`builtins`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from beaver.errors import InvalidInput
from beaver_model.rows import Origin

EXEC: Final = "exec"


class ExecPayload(msgspec.Struct, forbid_unknown_fields=True):
    """The payload of `exec`."""

    argv: list[str]
    cwd: str | None = None
    env: dict[str, str] = {}


class Programs(msgspec.Struct, frozen=True):
    """What may be run."""

    any_of_ours: bool = False
    """Jobs that came over the local socket may run any."""
    listed: tuple[str, ...] = ()
    """The only ones for everybody else: absolute paths."""

    def __bool__(self) -> bool:
        """True where `exec` is served at all."""
        return self.any_of_ours or bool(self.listed)

    def check(self, payload: bytes, origin: int) -> ExecPayload:
        """Returns what a job asks for, where that may be run.

        Raises:
            InvalidInput: It is wrong, or may not be run.
        """
        if origin == Origin.JOB:
            raise InvalidInput(
                f"{EXEC} runs no job that another job has enqueued; use the local socket"
            )
        if origin == Origin.LOCAL and self.any_of_ours:
            return _read(payload)
        if not self.listed:
            raise InvalidInput(
                f"{EXEC} takes jobs from the local socket only; "
                "exec_allow lists programs that may be run over HTTP"
            )
        program = _read(payload)
        _check_listed(program, self.listed, origin)
        return program


def _read(payload: bytes) -> ExecPayload:
    try:
        program = msgspec.json.decode(payload, type=ExecPayload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the payload of {EXEC} is wrong: {error}") from None
    if not program.argv or any("\0" in argument for argument in program.argv):
        raise InvalidInput(f"`argv` of {EXEC} must name a program, without zero bytes")
    return program


def _check_listed(program: ExecPayload, listed: Collection[str], origin: int) -> None:
    if program.argv[0] not in listed:
        whose = "over HTTP" if origin == Origin.HTTP else "without allow_exec"
        raise InvalidInput(
            f"{EXEC}: {program.argv[0]!r:.200} is none of the programs that may be run {whose} "
            "(exec_allow); the first of `argv` must be one of them, letter by letter"
        )
    # With them a program can be made to do anything: LD_PRELOAD, a Makefile.
    if program.env or program.cwd is not None:
        raise InvalidInput(
            f"{EXEC}: a job that is held to exec_allow may set no `env` and no `cwd`"
        )
