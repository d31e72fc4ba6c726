"""Actions on many jobs: the flags that say which, and carrying them out while a person watches.

What may not live here: the commands (`operating`), and which jobs fit (`inspect.matching`).
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Concatenate, Final, NamedTuple

import typer

from beaver.cli import completing, output
from beaver.cli.store import Store, on_store
from beaver.errors import BeaverError, InvalidInput
from beaver.structs.views import BulkView
from beaver.text.foreign import counted

POLL_S: Final = (0.02, 0.5)
"""Least and most time between two looks at how far it is."""

_DONE: Final = {"cancel": "cancelled", "retry": "put back", "discard": "discarded"}

_OF_BOTH: Final = ("jobs", "payload")
"""What a command is told besides which jobs match."""


class Choice(NamedTuple):
    """What a command line says about many jobs at once."""

    where: dict[str, Any]
    """Filters that were given, as `client.bulk` takes them."""
    dry_run: bool
    yes: bool

    @property
    def given(self) -> tuple[str, ...]:
        """The flags that go with many jobs only."""
        flags = (("--dry-run", self.dry_run), ("--yes", self.yes))
        return (*(f"--{name}" for name in self.where), *(flag for flag, is_set in flags if is_set))


def _flags(
    *,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="All jobs in this state; filters go together.",
            autocompletion=completing.states,
        ),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue", metavar="NAME", help="All of this queue.", autocompletion=completing.queues
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="NAME", help="All of this task.", autocompletion=completing.tasks
        ),
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="All with this tag.")
    ] = None,
    parent: Annotated[
        str | None, typer.Option("--parent", metavar="JOB", help="All children of this job.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="TEXT", help="All with this in their payload or error."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="All that came in at this time or later: ISO 8601 or ms.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="WHEN", help="All that came in before this time."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the jobs that match, and change nothing.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Change the jobs that match without a question.")
    ] = False,
) -> None:
    """Shows, by its signature, the flags that choose many jobs."""


_FLAGS: Final = tuple(inspect.signature(_flags, eval_str=True).parameters.values())


def choosing(command: Callable[Concatenate[Store, Choice, ...], None]) -> Callable[..., None]:
    """Gives a command the flags that choose many jobs, in place of a `Choice`."""

    @wraps(command)
    def run(store: Store, *, dry_run: bool, yes: bool, **more: Any) -> None:
        own = {name: more.pop(name) for name in _OF_BOTH if name in more}
        # An empty one is given, too: `--queue "$Q"` must not come to mean every queue.
        where = {name: value for name, value in more.items() if value is not None}
        command(store, Choice(where, dry_run, yes), **own)

    signature = inspect.signature(command, eval_str=True)
    first, _, *own = signature.parameters.values()
    named = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    run.__signature__ = signature.replace(parameters=[first, *named, *_FLAGS])  # type: ignore[attr-defined]
    return run


def act(store: Store, action: str, choice: Choice) -> None:
    """Carries out an action on all jobs that match, and tells how it went.

    Raises:
        InvalidInput: There is no filter; or nobody said that it may be done.
    """
    if not choice.where:
        raise InvalidInput(
            f"{', '.join(choice.given)}: which jobs? Give ids, or filters such as --queue or --tag"
            if choice.given
            else "the ids of jobs are expected, or filters such as --queue or --tag"
        )
    with store.connection() as client:
        if choice.dry_run or not choice.yes:
            counted_view = client.bulk(action, **choice.where, dry_run=True)
            if choice.dry_run:
                store.answer(counted_view, _tell)
                return
            if counted_view.matched:
                _ask(action, counted_view.matched)
        store.answer(_follow(client, client.bulk(action, **choice.where)), _tell)


def _ask(action: str, count: int) -> None:
    """Asks whoever sits at the terminal; where nobody does, it has to be said by a flag."""
    if not sys.stdin.isatty():
        raise InvalidInput(
            f"{counted(count, 'job')} would be {_DONE[action]}: nothing was changed\n"
            "Say --yes to do it, or --dry-run to count them."
        )
    sys.stderr.write(f"{action} {counted(count, 'job')}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        output.note("nothing was changed")
        raise typer.Abort


def _follow(client: Any, view: BulkView) -> BulkView:
    """Returns how an action went, once it is done."""
    pause_s, longest_s = POLL_S
    try:
        with output.progress(f"{view.action} {counted(view.matched, 'job')}", 0, "jobs") as advance:
            while view.state == "running":
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, longest_s)
                view = client.bulk_status(view.bulk)
                advance(view.done + view.refused, view.matched)
    except (BeaverError, KeyboardInterrupt):
        output.note(f"note: it goes on while a server runs; `beaver bulk {view.bulk}` tells")
        raise
    return view


def _tell(view: BulkView) -> None:
    """Tells people of an action."""
    word = _DONE.get(view.action, view.action)
    if view.state == "counted":
        output.line(f"{counted(view.matched, 'job')} would be {word}; nothing was changed")
        return
    told = f"{counted(view.done, 'job')} {word}"
    if view.state == "running":
        told += f" of {view.matched} so far"
    if view.refused:
        told += f", {view.refused} left alone: they had changed meanwhile"
    output.line(told)


@on_store
def bulk_command(
    store: Store,
    bulk: Annotated[
        str, typer.Argument(metavar="ID", help="The id of the action, as it was told.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done.")] = False,
) -> None:
    """Tell how far a cancel, retry or discard of many jobs is.

    Examples:
      beaver bulk 019a5e3c2f10d4c0ffee12ab
    """
    with store.connection() as client:
        view = client.bulk_status(bulk)
        store.answer(_follow(client, view) if wait else view, _tell)
