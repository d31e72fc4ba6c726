"""Shell completions: states, queues, tasks and jobs.

Runs at each press of the tab key, so it is quick or offers nothing: it asks a running server, reads
files only where that takes no time, and stays silent on errors.  It never writes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import typer

from beaver.cli import flags

FILES_BYTES_MAX: Final = 4 << 20
"""Files of a store without a server are read up to this size: some ten milliseconds."""
JOBS_MAX: Final = 100
"""How many jobs are offered."""
_LISTED: Final = 1_000

Offers = Callable[[typer.Context, str], list[Any]]


def states(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offers the states that `list` knows."""
    from beaver.inspect.finding import STATES

    return [state for state in STATES if state.startswith(incomplete)]


def queues(ctx: typer.Context, incomplete: str) -> list[Any]:
    """Offers the queues of the store, with what waits in each."""
    status = _asked(ctx, lambda client: client.status())
    return [
        (name, f"{queue.pending} pending")
        for name, queue in (status.queues if status is not None else {}).items()
        if name.startswith(incomplete)
    ]


def tasks(ctx: typer.Context, incomplete: str) -> list[Any]:
    """Offers the tasks of the jobs that the store holds."""
    return sorted(
        {job.task for job in _jobs(ctx, "") if job.task and job.task.startswith(incomplete)}
    )


def jobs(*wanted: str) -> Offers:
    """Returns what offers the ids of jobs in these states; of all that have a row without any."""

    def offer(ctx: typer.Context, incomplete: str) -> list[Any]:
        given = ctx.params.get("jobs") or ()
        found = [job for state in wanted or ("",) for job in _jobs(ctx, state)]
        return [
            (job.id, f"{job.state} {job.task}".strip())
            for job in found
            if job.id.startswith(incomplete) and job.id not in given
        ][:JOBS_MAX]

    return offer


def _jobs(ctx: typer.Context, state: str) -> list[Any]:
    return _asked(ctx, lambda client: client.list_jobs(state=state, limit=_LISTED)) or []


def _asked(ctx: typer.Context, question: Callable[[Any], Any]) -> Any:
    """Returns the answer of the store; `None` where it would take long, or none comes."""
    try:
        from beaver.cli.store import Store, url_of

        url = url_of(ctx.params.get("url"), ctx.params.get("data"))
        settings = flags.configuration(ctx.params.get("data"), ctx.params.get("config"))
        if url:
            with Store(settings.data, False, url, ctx.params.get("ca_file")).connect() as client:
                return question(client)
        with Store(settings.data, False).connect() as client:
            from_files = getattr(client, "greeting", None) is None
            if from_files and _size_of(settings.data) > FILES_BYTES_MAX:
                return None
            return question(client)
    except Exception:  # noqa: BLE001 - a tab key shows no errors
        return None


def _size_of(data: str) -> int:
    from beaver.journal.wal.layout import Layout

    layout = Layout(data)
    paths = [path for path in map(Path, (layout.log, layout.snapshot)) if path.exists()]
    return sum(path.stat().st_size for path in paths)
