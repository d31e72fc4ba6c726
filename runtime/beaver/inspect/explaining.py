"""Why a job does not run now, in a sentence."""

from __future__ import annotations

from beaver.structs.views import ExplainView
from beaver.text.durations import format_time
from beaver_model.policy import WAITING


def why_sentence(view: ExplainView, *, running: bool = True) -> str:
    """Returns in a sentence why the job does not run now, or what runs it.

    Args:
        view: The job, explained.
        running: True if a server runs; otherwise jobs that are in flight do not run.
    """
    reason = view.waiting
    if reason == "running" and not running:
        return (
            f"It was on worker {view.held_by} when the server ended; the next one gives it back, "
            "or tries it again if it had started."
        )
    if view.disk_full and reason == "slot":
        return "It does not run now: the disk is full, and jobs run only as the log has room."
    if view.disk_full and reason == "running":
        return (
            f"It is running on worker {view.held_by}, or it has ended and that waits for room in "
            "the log: the disk is full."
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
