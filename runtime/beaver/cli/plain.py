"""The flags of `beaver run` where they are plain, read without what parses command lines.

Typer takes longer to load than the rest of a start before recovery.  So what nearly every
`beaver run` says, flags with their values, each once unless it may be repeated, is read here, from
the same table of settings that the options are made of. Everything else (help, a mistake, a value
that begins with a dash) is left to typer, which also writes the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from beaver.config.settings import SETTINGS

_SHORT: Final = {"-A": "app"}


class Plain(NamedTuple):
    """The flags of the command line."""

    asked: dict[str, Any]
    """Values by the name of their setting."""
    file: str | None
    """The value of `--config`."""
    debug: bool


def read_plain(arguments: Sequence[str]) -> Plain | None:
    """Returns what the arguments behind `beaver run` say; `None` where they are not plain."""
    values = {s.flag: s.name for s in SETTINGS.values() if s.run_flag and s.kind != "bool"}
    values |= {"--data": "data", "--config": "config", **_SHORT}
    lists = {s.name for s in SETTINGS.values() if s.is_list}
    switches = {s.flag: s.name for s in SETTINGS.values() if s.run_flag and s.kind == "bool"}
    found: dict[str, Any] = {}
    left = iter(arguments)
    for argument in left:
        flag, equals, value = argument.partition("=")
        on = not flag.startswith("--no-")
        positive = flag if on else f"--{flag[5:]}"
        if flag in values:
            name = values[flag]
            if not equals:
                value = next(left, "")
            if not value or value.startswith("-") or (equals and flag in _SHORT):
                return None
            known: Any = value
        elif not equals and flag == "--debug":
            name, known = "debug", True
        elif not equals and positive in switches:
            name, known = switches[positive], on
        else:
            return None
        if name in lists:
            known = [*found.pop(name, []), known]
        if name in found:
            return None
        found[name] = known
    return Plain(found, found.pop("config", None), found.pop("debug", False))
