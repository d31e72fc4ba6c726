"""`beaver show` and `explain`: one job, as it is and as it came to be so."""

from __future__ import annotations

from typing import Annotated

import typer

from beaver.cli import completing, output
from beaver.cli.store import Store, on_store
from beaver.structs.views import ExplainView, JobView
from beaver.text.durations import format_duration, format_time

Job = Annotated[
    str,
    typer.Argument(metavar="JOB", help="The id of the job.", autocompletion=completing.jobs()),
]


@on_store
def show_command(store: Store, job: Job) -> None:
    """Show one job as it is now.

    Examples:
      beaver show order-7
      beaver show order-7 --json | jq .payload
    """
    with store.connect() as client:
        view = client.show(job)
    store.answer(view, _tell_job)


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


@on_store
def explain_command(store: Store, job: Job) -> None:
    """Show all that happened to a job, and why it is not running now.

    Examples:
      beaver explain order-7
    """
    with store.connect() as client:
        view = client.explain(job)
        running = client.runs_jobs
    if store.as_json:
        output.json_line(view)
        return
    _tell_explanation(view, running=running)
    if not running and view.waiting != "finished":
        from beaver.journal.wal.lock import silent_server

        if pid := silent_server(store.data):
            output.line(f"A server (process {pid}) holds {store.data} but does not answer.")
        else:
            output.line(f"No server runs; `beaver run --data {store.data}` starts one.")


def _tell_explanation(view: ExplainView, *, running: bool) -> None:
    from beaver.inspect.explaining import why_sentence
    from beaver.inspect.listing import event_line

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
