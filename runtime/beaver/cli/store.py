"""The common part of commands that use a store: flags, client, answer.

What may not live here: what one command asks, and how its answer looks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Concatenate, Final, NamedTuple, TypeVar

from beaver.cli import flags, output

View = TypeVar("View")


def connect(data: str) -> AbstractContextManager[Any]:
    """Returns a client: to the server if one runs, else to the files."""
    from beaver.client.opening import open_client

    return open_client(data)


class Store(NamedTuple):
    """The store that a command was pointed at, and the form in which its answer is wanted."""

    data: str
    as_json: bool

    def connect(self) -> AbstractContextManager[Any]:
        """Returns a client of it."""
        return connect(self.data)

    def answer(self, view: View, tell: Callable[[View], None]) -> None:
        """Writes what was found: as JSON where that was asked for, else for people."""
        if self.as_json:
            output.json_line(view)
        else:
            tell(view)


def _flags(
    *,
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Stands for the flags that every command on a store has, in the order of its help."""


_FLAGS: Final = tuple(inspect.signature(_flags, eval_str=True).parameters.values())


def on_store(command: Callable[Concatenate[Store, ...], None]) -> Callable[..., None]:
    """Gives a command `--data`, `--config`, `--json` and `--debug` in the place of its `Store`."""

    @wraps(command)
    def run(
        *, data: str | None, config: str | None, as_json: bool, debug: bool, **own: Any
    ) -> None:
        command(Store(flags.configuration(data, config).data, as_json), **own)

    signature = inspect.signature(command, eval_str=True)
    _, *own = signature.parameters.values()
    named = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    run.__signature__ = signature.replace(parameters=[*named, *_FLAGS])  # type: ignore[attr-defined]
    return run
