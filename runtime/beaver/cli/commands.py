"""The commands as typer knows them.

Typer is large, so a command line that needs none of it (see `plain`) does not load this module.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from beaver.cli import output

EXIT_BROKEN_PIPE: Final = 141

EXAMPLES: Final = """
  beaver run                                     serve the built-in tasks
  beaver run -A shop:app --workers 4             serve the tasks of shop.py
  beaver enqueue send_receipt '{"order": 7}'     enqueue a job
  beaver enqueue --file jobs.json                enqueue a file, all or none
  beaver status                                  the whole queue at a glance
  beaver explain JOB                             all that happened to a job, and why it waits
"""


class Group(TyperGroup):
    """The root command; a broken pipe of stdout ends a command quietly."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was asked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader of our output has closed it, as in `beaver replay data | head`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        return result


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        output.line(f"beaver {metadata.version('beaver-raft')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A durable job queue.  `beaver COMMAND --help` tells more about a command."""


def build(commands: Mapping[str, str]) -> typer.Typer:
    """Returns the application with these commands, in their order.

    Args:
        commands: Each with the module of `beaver.cli` that holds it.
    """
    app = typer.Typer(
        cls=Group,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=_examples(EXAMPLES),
    )
    app.callback()(_root)
    for name, module in commands.items():
        command = getattr(import_module(f"beaver.cli.{module}"), f"{name}_command")
        text, _, examples = (command.__doc__ or "").partition("Examples:\n")
        app.command(name, help=text.strip(), epilog=_examples(examples))(command)
    return app


def _examples(text: str) -> str | None:
    """Returns examples as an epilog, marked so that its lines stay as they are."""
    lines = textwrap.dedent(text).strip().splitlines()
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)]) if lines else None
