"""The common part of commands that use a store: flags, client, answer.

What may not live here: what one command asks, and how its answer looks.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, NamedTuple, TypeVar

from beaver.cli import flags, output
from beaver.errors import InvalidInput

if TYPE_CHECKING:
    from beaver.client.connection import Connection

View = TypeVar("View")


def connect(data: str) -> AbstractContextManager[Any]:
    """Returns a client: to the server if one runs, else to the files."""
    from beaver.client.opening import open_client

    return open_client(data)


def url_of(url: str | None, data: str | None) -> str:
    """Returns the URL that a command is to ask; empty where it asks a directory.

    What stands in the command line goes before the environment.

    Raises:
        InvalidInput: Both a directory and a URL stand in it.
    """
    if url and data:
        raise InvalidInput(f"--url {url} and --data {data}: only one of them can be asked")
    return url or ("" if data else os.environ.get("BEAVER_URL", ""))


class Store(NamedTuple):
    """The store that a command was pointed at, and the form in which its answer is wanted."""

    data: str
    as_json: bool
    url: str = ""
    """Of its server, where that is to be asked by HTTP."""
    ca_file: str | None = None

    @property
    def place(self) -> str:
        """What people call it."""
        return self.url or self.data

    def connect(self) -> AbstractContextManager[Any]:
        """Returns a client of it."""
        if not self.url:
            return connect(self.data)
        from beaver.client.http.pool import HttpClient

        return HttpClient(self.url, ca_file=self.ca_file)

    def connection(self) -> Connection:
        """Returns what goes on asking it, across restarts."""
        from beaver.client.choosing import connection_to

        return connection_to(self.place, {"ca_file": self.ca_file} if self.url else {})

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
    url: flags.Url = None,
    ca_file: flags.CaFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Shows, by its signature, the flags of every command on a store, in the order of the help."""


_FLAGS: Final = tuple(inspect.signature(_flags, eval_str=True).parameters.values())
_LOCAL: Final = tuple(flag for flag in _FLAGS if flag.name not in ("url", "ca_file"))

Command = Callable[Concatenate[Store, ...], None]


def on_store(command: Command) -> Callable[..., None]:
    """Gives a command the flags that say which store, and how it answers, in place of a `Store`."""
    return _flagged(command, _FLAGS)


def on_directory(command: Command) -> Callable[..., None]:
    """The same for a command that works on files, so that no URL will do."""
    return _flagged(command, _LOCAL)


def _flagged(command: Command, flags_: tuple[inspect.Parameter, ...]) -> Callable[..., None]:
    far = flags_ is _FLAGS

    @wraps(command)
    def run(
        *,
        data: str | None,
        config: str | None,
        as_json: bool,
        debug: bool,
        url: str | None = None,
        ca_file: str | None = None,
        **own: Any,
    ) -> None:
        asked = url_of(url, data) if far else ""
        if ca_file is not None and not asked:
            raise InvalidInput("--ca-file goes with --url https://...")
        found = flags.configuration(data, config).data
        command(Store(found, as_json, asked, ca_file), **own)

    signature = inspect.signature(command, eval_str=True)
    _, *own = signature.parameters.values()
    named = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    run.__signature__ = signature.replace(parameters=[*named, *flags_])  # type: ignore[attr-defined]
    return run
