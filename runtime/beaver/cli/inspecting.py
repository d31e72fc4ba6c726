"""`beaver status`, `list`, `show` and `explain`: reading, which never writes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any, Final

import typer

from beaver.cli import completing, flags, output
from beaver.durations import format_duration, format_time, parse_time_ms
from beaver.errors import InvalidInput
from beaver.views import ExplainView, JobView, StatusView

FINISHED: Final = ("completed", "discarded")
"""States whose jobs are listed from the log."""
PAGE = 5_000
"""Jobs that one question asks for."""


STRETCH_MS_MAX: Final = 1_000.0
"""A loop that heard nobody for longer is worth a line; `--json` has the figure always."""

_LONG_RECOVERY_MS: Final = 100.0
"""Time of a recovery from which its phases are shown too."""


def connect(data: str) -> AbstractContextManager[Any]:
    """Returns a client: to the server if one runs, else to the files."""
    from beaver.opening import open_client

    return open_client(data)


def status_command(
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Show the whole queue at a glance.

    From the running server, or from the files where none runs.

    Examples:
      beaver status
      beaver status --json --data /srv/queue
    """
    settings = flags.configuration(data, config)
    with connect(settings.data) as client:
        view = client.status()
    if as_json:
        output.json_line(view)
    else:
        tell_status(view, settings.data)


def tell_status(view: StatusView, data: str) -> None:
    """Writes a status for people."""
    if view.running:
        output.line(output.paint(f"a server runs on {data} (epoch {view.epoch})", "green"))
    else:
        source = f"a keeper (process {view.keeper})" if view.keeper else f"the files in {data}"
        output.line(output.paint(f"no server runs; these figures are from {source}", "yellow"))
    if view.disk_full:
        output.line(output.paint("the disk is full: new jobs are refused", "red"))
    if view.halted:
        output.line(output.paint(f"nothing is dispatched until a restart; {view.halted}", "red"))
    if view.longest_stretch_ms > STRETCH_MS_MAX:
        where = f" by {view.longest_stretch_in}" if view.longest_stretch_in else ""
        text = f"the server's loop was held up for {view.longest_stretch_ms:.0f} ms{where}"
        output.line(output.paint(text, "yellow"))
    if view.starts_overdue:
        output.line(
            output.paint(f"workers killed because they hung at start: {view.starts_overdue}", "red")
        )
    scheduled = f" ({view.scheduled} of them later)" if view.scheduled else ""
    output.line(
        f"pending {view.pending}{scheduled}, in flight {view.in_flight}, completed "
        f"{view.completed}, dead {view.dead}, cancelled {view.cancelled}"
    )
    output.line(f"last seq {view.last_seq}, recovered in {view.recovery_ms:.0f} ms{_phases(view)}")
    if view.queues:
        output.line()
        titles = ("queue", "pending", "in flight", "completed", "dead", "cancelled", "oldest", "")
        rows = [
            (
                name,
                *map(str, (q.pending, q.in_flight, q.completed, q.dead, q.cancelled)),
                format_duration(q.oldest_pending_ms) if q.oldest_pending_ms else "-",
                "paused" if q.paused else "",
            )
            for name, q in view.queues.items()
        ]
        output.table(titles, rows)
    if view.workers:
        output.line()
        workers = [
            (
                str(worker.id),
                str(worker.pid) if worker.ready else "-",
                worker.job or ("idle" if worker.ready else "starting"),
                format_duration(worker.since_ms) if worker.job else "-",
            )
            for worker in view.workers
        ]
        output.table(("worker", "pid", "job", "for"), workers)
        leaving = [str(worker.id) for worker in view.workers if worker.leaving]
        if leaving:
            output.line(
                f"of the code before the last reload: {', '.join(leaving)}; "
                "each ends with the job that it runs"
            )


def _phases(view: StatusView) -> str:
    """Returns where the time of a recovery went, where it was long enough to ask."""
    if view.recovery_ms < _LONG_RECOVERY_MS:
        return ""
    seconds: dict[str, float] = view.recovery.get("seconds", {})
    parts = [f"{name} {took_s * 1000:.0f}" for name, took_s in seconds.items()]
    return f" ({', '.join(parts)})"


def list_command(
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
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
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
    settings = flags.configuration(data, config)
    with connect(settings.data) as client:

        def ask(after: int, limit: int) -> list[JobView]:
            jobs: list[JobView] = client.list_jobs(state, queue, task, after, limit, tag, *times)
            return jobs

        jobs, more = _pages(ask, after, limit)
        nothing = "" if jobs or as_json else _nothing(client, state, bool(queue or task or tag))
    if as_json:
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


def show_command(
    job: Annotated[
        str,
        typer.Argument(metavar="JOB", help="The id of the job.", autocompletion=completing.jobs()),
    ],
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Show one job as it is now.

    Examples:
      beaver show order-7
      beaver show order-7 --json | jq .payload
    """
    settings = flags.configuration(data, config)
    with connect(settings.data) as client:
        view = client.show(job)
    if as_json:
        output.json_line(view)
    else:
        _tell_job(view)


def _tell_job(view: JobView) -> None:
    facts: list[tuple[str, str]] = [
        ("id", view.id),
        ("state", output.paint(view.state, output.STATE_COLOURS.get(view.state))),
        ("seq", str(view.seq)),
    ]
    if view.task:
        facts += [
            ("task", view.task),
            ("queue", f"{view.queue} (priority {view.priority})"),
            ("attempt", f"{view.attempt} of {view.max_attempts}"),
            ("timeout", format_duration(view.timeout_ms or 0)),
            ("payload", bytes(view.payload).decode("utf-8", "replace")),
        ]
    if view.state == "completed" and view.task:
        facts.append(("result", bytes(view.result).decode("utf-8", "replace")))
    if view.ready_ms and view.state == "pending":
        facts.append(("ready", format_time(view.ready_ms)))
    if view.worker:
        facts.append(("worker", f"{view.worker} (token {view.token})"))
    rare = {
        "generation": str(view.generation or ""),
        "cancel requested": "yes" if view.cancel_requested else "",
        "suspect": "yes: the machine went down while it ran" if view.suspect else "",
        "cause": view.cause or "",
        "error": view.error or "",
        "parent": view.parent or "",
        "tags": ", ".join(view.tags or ()),
        "came in": "" if view.enqueued_ms is None else format_time(view.enqueued_ms),
        "finished": "" if view.finished_ms is None else format_time(view.finished_ms),
    }
    facts += [(name, value) for name, value in rare.items() if value]
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        output.line(f"{name.ljust(width)}  {value.replace(chr(10), chr(10) + ' ' * (width + 2))}")


def explain_command(
    job: Annotated[
        str,
        typer.Argument(metavar="JOB", help="The id of the job.", autocompletion=completing.jobs()),
    ],
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Show all that happened to a job, and why it is not running now.

    Examples:
      beaver explain order-7
    """
    settings = flags.configuration(data, config)
    with connect(settings.data) as client:
        view = client.explain(job)
        running = client.runs_jobs
    if as_json:
        output.json_line(view)
        return
    _tell_explanation(view, running=running)
    if not running and view.waiting != "finished":
        output.line(f"No server runs; `beaver run --data {settings.data}` starts one.")


def _tell_explanation(view: ExplainView, *, running: bool) -> None:
    from beaver.listing import event_line

    _tell_job(view.job)
    output.line()
    if view.history_from_seq > view.job.seq and not _is_whole(view):
        output.line(f"(events before seq {view.history_from_seq} are no longer kept)")
    for event in view.events:
        output.line(event_line(event))
    if view.lagging:
        output.line(f"(events after seq {view.as_of_seq} are not known yet; ask again in a while)")
    output.line()
    output.line(why_sentence(view, running=running))


def _is_whole(view: ExplainView) -> bool:
    return bool(view.events) and view.events[0].seq == view.job.seq


def why_sentence(view: ExplainView, *, running: bool = True) -> str:
    """Returns in a sentence why the job does not run now, or what runs it.

    Args:
        view: The job, explained.
        running: A server runs; what stood in flight when the last one ended does not.
    """
    from beaver_model.policy import WAITING

    reason = view.waiting
    if reason == "running" and not running:
        return (
            f"It was on worker {view.held_by} when the server ended; the next one gives it back, "
            "or tries it again if it had started."
        )
    if reason == "running":
        return f"It is running on worker {view.held_by}."
    if reason == "finished":
        return f"It has ended: {view.job.state}."
    if reason == "time":
        return f"It waits for its time: {format_time(view.waiting_until_ms)}."
    if reason == "paused":
        return f"Its queue {view.job.queue} is paused; `beaver resume {view.job.queue}` goes on."
    if reason == "unknown_task":
        near = f" Similar tasks: {', '.join(view.near_tasks)}." if view.near_tasks else ""
        return f"No worker knows its task {view.job.task}.{near}"
    return f"It does not run now: {WAITING.get(reason, reason)}."
