"""`beaver list`: jobs, from the state or from the log, in pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from beaver.cli import completing, output
from beaver.cli.store import Store, on_store
from beaver.errors import InvalidInput
from beaver.structs.views import JobView
from beaver.text.durations import format_time, parse_time_ms

FINISHED: Final = ("completed", "discarded")
"""States whose jobs are listed from the log."""
PAGE = 5_000
"""Jobs that one question asks for."""


@on_store
def list_command(
    store: Store,
    state: Annotated[
        str,
        typer.Option(
            "--state",
            metavar="STATE",
            help="pending, in_flight, completed, dead, cancelled or discarded "
            "[default: all but completed and discarded].",
            autocompletion=completing.states,
        ),
    ] = "",
    queue: Annotated[
        str,
        typer.Option(
            "--queue", metavar="NAME", help="Only this queue.", autocompletion=completing.queues
        ),
    ] = "",
    task: Annotated[
        str,
        typer.Option(
            "--task", metavar="NAME", help="Only this task.", autocompletion=completing.tasks
        ),
    ] = "",
    tag: Annotated[str, typer.Option("--tag", metavar="TAG", help="Only with this tag.")] = "",
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Only jobs that finished at this time or later: ISO 8601 or ms.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="WHEN", help="Only jobs that finished before this time."),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            metavar="N",
            help="List at most N jobs; 0 lists all [default: 100].",
            show_default=False,
        ),
    ] = 100,
    after: Annotated[
        int,
        typer.Option(
            "--after",
            metavar="SEQ",
            help="Only jobs that came in, or finished, after this seq.",
            show_default=False,
        ),
    ] = 0,
) -> None:
    """List jobs in the order in which they came in.

    Completed and discarded jobs are listed only by `--state`: from the log, in the order in
    which they ended.

    Examples:
      beaver list
      beaver list --state dead --json
      beaver list --queue mail --tag eu --limit 0
      beaver list --state completed --task mail.send --since 2026-01-01T00:00:00Z
    """
    if limit < 0 or after < 0:
        raise InvalidInput("--limit and --after: 0 or more is expected")
    times = [
        None if text is None else parse_time_ms(text, name)
        for name, text in (("--since", since), ("--until", until))
    ]
    with store.connect() as client:

        def ask(after: int, limit: int) -> list[JobView]:
            jobs: list[JobView] = client.list_jobs(state, queue, task, after, limit, tag, *times)
            return jobs

        jobs, more = _pages(ask, after, limit)
        nothing = (
            "" if jobs or store.as_json else _nothing(client, state, bool(queue or task or tag))
        )
    if store.as_json:
        for job in jobs:
            output.json_line(job)
    elif state in FINISHED and jobs:
        _tell_finished(jobs)
    elif jobs:
        rows = [
            (str(j.seq), j.id, j.state, j.task or "", j.queue or "", _attempts(j), _why(j))
            for j in jobs
        ]
        colours = [output.STATE_COLOURS.get(job.state) for job in jobs]
        output.table(("seq", "id", "state", "task", "queue", "attempt", ""), rows, colours)
    else:
        output.line(nothing)
    if more:
        output.note(f"there may be more: --after {_place(jobs[-1])}, or --limit 0 for all")


def _tell_finished(jobs: list[JobView]) -> None:
    rows = [
        (
            str(_place(job)),
            job.id,
            job.task or "-",
            job.queue or "-",
            _attempts(job),
            "-" if job.finished_ms is None else format_time(job.finished_ms),
        )
        for job in jobs
    ]
    output.table(("end", "id", "task", "queue", "attempt", "finished"), rows)
    output.note(f"as of seq {jobs[-1].as_of_seq}")


def _nothing(client: Any, state: str, filtered: bool) -> str:
    """Returns what is said where nothing was found."""
    view = client.status()
    if state in FINISHED:
        return f"no such jobs, as of seq {view.last_seq}"
    if state or not view.completed:
        return "no such jobs"
    what = "no such jobs" if filtered else "no jobs"
    return (
        f"{what} among those that wait, run, died or were cancelled; {view.completed} have "
        "completed: `beaver list --state completed` lists them"
    )


def _place(job: JobView) -> int:
    """Returns the seq after which a list goes on behind a job."""
    return job.seq if job.end_seq is None else job.end_seq


def _pages(
    ask: Callable[[int, int], list[JobView]], after: int, limit: int
) -> tuple[list[JobView], bool]:
    """Returns jobs up to the limit, asked for in pages, and whether there may be more."""
    jobs: list[JobView] = []
    while not limit or len(jobs) < limit:
        wanted = min(PAGE, limit - len(jobs)) if limit else PAGE
        page = ask(_place(jobs[-1]) if jobs else after, wanted)
        jobs += page
        if not page:
            return jobs, False
    return jobs, True


def _attempts(job: JobView) -> str:
    return f"{job.attempt}/{job.max_attempts}" if job.max_attempts else "-"


def _why(job: JobView) -> str:
    if job.state == "in_flight":
        return f"on worker {job.worker}"
    if job.state == "pending" and job.waiting == "time":
        return f"runs at {format_time(job.ready_ms or 0)}"
    if job.state in ("dead", "cancelled"):
        return job.cause or ""
    return "" if job.waiting in ("finished", "slot") else job.waiting or ""
