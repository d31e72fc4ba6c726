"""`beaver cancel`, `retry`, `discard`, `pause` and `resume`; of many jobs see `many`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from beaver.cli import completing, output
from beaver.cli.many import Choice, act, choosing
from beaver.cli.store import Store, on_store
from beaver.errors import BeaverError, InvalidInput, NotFound, StoreUnavailable
from beaver.text.foreign import counted
from beaver_model.bounds import PAYLOAD_BYTES_CEILING

Queue = Annotated[
    str,
    typer.Argument(
        metavar="QUEUE", help="The name of the queue.", autocompletion=completing.queues
    ),
]


def _argument(*states: str) -> Any:
    """Returns the argument for jobs, of which a shell offers those in these states."""
    return typer.Argument(
        metavar="JOB",
        help="The ids of the jobs; without any, filters choose them.",
        autocompletion=completing.jobs(*states),
    )


@on_store
@choosing
def cancel_command(
    store: Store,
    choice: Choice,
    jobs: Annotated[list[str] | None, _argument("pending", "in_flight")] = None,
) -> None:
    """Cancel jobs: by their ids, or all that fit filters.

    A pending job is cancelled at once; a running one is stopped first. If it completes before
    it can be stopped, it stays completed.

    Examples:
      beaver cancel order-7
      beaver cancel --queue mail --tag eu --dry-run
      beaver cancel --queue mail --tag eu --yes
    """
    _change(store, "cancel", choice, jobs, lambda client, job: client.cancel(job))


@on_store
@choosing
def retry_command(
    store: Store,
    choice: Choice,
    jobs: Annotated[list[str] | None, _argument("dead", "cancelled")] = None,
    payload: Annotated[
        str | None, typer.Option("--payload", metavar="JSON", help="Run it with another payload.")
    ] = None,
) -> None:
    """Run dead or cancelled jobs again, with all their attempts: by ids, or all that fit filters.

    Examples:
      beaver retry order-7
      beaver retry order-7 --payload '{"order": 7, "to": "ada@example.org"}'
      beaver retry --state dead --task mail.send --yes
    """
    edited: bytes | None = None
    if payload is not None:
        from beaver.text import jsontext

        if jobs is None or len(jobs) != 1:
            raise InvalidInput("--payload: only one job can be given another payload at once")
        raw = payload.strip().encode("utf-8", "surrogateescape")
        # Server or files check the payload against the bound that is set.
        edited = jsontext.check(raw, PAYLOAD_BYTES_CEILING, "--payload")
    _change(store, "retry", choice, jobs, lambda client, job: client.requeue(job, edited))


@on_store
@choosing
def discard_command(
    store: Store,
    choice: Choice,
    jobs: Annotated[list[str] | None, _argument("pending", "dead", "cancelled")] = None,
) -> None:
    """Remove pending, dead or cancelled jobs for good: by ids, or all that fit filters.

    Examples:
      beaver discard order-7
      beaver discard --state dead --until 2026-01-01T00:00:00Z --yes
    """
    _change(store, "discard", choice, jobs, lambda client, job: client.discard(job))


def _change(
    store: Store,
    action: str,
    choice: Choice,
    jobs: list[str] | None,
    change: Callable[[Any, str], str],
) -> None:
    """Changes the jobs that are named, or those that match.

    Raises:
        InvalidInput: Jobs are named, and filters given.
    """
    if not jobs:
        act(store, action, choice)
    elif choice.given:
        raise InvalidInput(f"{', '.join(choice.given)}: not with the ids of jobs")
    else:
        _each(store, jobs, change)


def _each(store: Store, jobs: list[str], change: Callable[[Any, str], str]) -> None:
    """Changes each job; one that is refused does not keep the others from their change."""
    first: BeaverError | None = None
    with store.connect() as client:
        for job in jobs:
            try:
                state = change(client, job)
            except StoreUnavailable:
                raise
            except BeaverError as error:
                if first is not None or len(jobs) > 1:
                    output.note(f"beaver: {error}")
                first = first or error
                continue
            if store.as_json:
                output.json_line({"id": job, "state": state})
            else:
                output.line(f"{job} {output.paint(state, output.STATE_COLOURS.get(state))}")
    if first is not None:
        if len(jobs) > 1:
            raise typer.Exit(first.exit_code)
        raise first


@on_store
def pause_command(
    store: Store,
    queue: Queue,
) -> None:
    """Pause a queue.

    Pending jobs wait; running jobs finish as usual. The queue stays paused until it is resumed,
    also after a restart. A queue without jobs can be paused too; a note says so.

    Examples:
      beaver pause mail
    """
    _set_paused(store, queue, True)


@on_store
def resume_command(
    store: Store,
    queue: Queue,
) -> None:
    """Let the jobs of a paused queue run again.

    Examples:
      beaver resume mail
    """
    _set_paused(store, queue, False)


def _set_paused(store: Store, queue: str, paused: bool) -> None:
    with store.connect() as client:
        try:
            client.list_jobs("", queue, "", 0, 1)
        except NotFound as unknown:
            if not paused:
                raise
            output.note(f"note: {unknown}")
        view = client.set_queue(queue, paused)
    if store.as_json:
        output.json_line({"queue": queue, "paused": view.paused, "pending": view.pending})
    else:
        state = "paused" if view.paused else "resumed"
        output.line(f"{queue} {state}, {counted(view.pending, 'job')} pending")
