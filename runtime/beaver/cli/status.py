"""`beaver status`: the whole queue at a glance."""

from __future__ import annotations

from typing import Final

from beaver.cli import output
from beaver.cli.store import Store, on_store
from beaver.structs.views import ShipView, StatusView, StorageView, WorkerView
from beaver.text.durations import format_duration, format_size, format_time
from beaver.text.foreign import counted

STALL_MS_MAX: Final = 1_000.0
"""A loop that was blocked for longer is worth a line; `--json` always has the time."""

_LONG_RECOVERY_MS: Final = 100.0
"""Time of a recovery from which its phases are shown too."""


@on_store
def status_command(store: Store) -> None:
    """Show the whole queue at a glance.

    From the running server, or from the files where none runs.

    Examples:
      beaver status
      beaver status --json --data /srv/queue
    """
    with store.connect() as client:
        view = client.status()
    store.answer(view, lambda view: tell_status(view, store.place))


def tell_status(view: StatusView, data: str) -> None:
    """Writes a status for people."""
    if view.running:
        output.line(output.paint(f"a server runs on {data} (epoch {view.epoch})", "green"))
    else:
        source = f"a keeper (process {view.keeper})" if view.keeper else f"the files in {data}"
        who = "no server runs"
        if view.silent:
            who = f"a server (process {view.silent}) holds {data} but does not answer"
        output.line(output.paint(f"{who}; these figures are from {source}", "yellow"))
    if view.disk_full:
        output.line(output.paint("the disk is full: new jobs are refused", "red"))
    if view.halted:
        output.line(output.paint(f"nothing is dispatched until a restart; {view.halted}", "red"))
    if view.longest_stall_ms > STALL_MS_MAX:
        where = f" by {view.longest_stall_in}" if view.longest_stall_in else ""
        text = f"the server's event loop was blocked for {view.longest_stall_ms:.0f} ms{where}"
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
    if view.storage is not None and view.storage.archive_segments:
        _tell_storage(view.storage)
    for ship in view.ships:
        _tell_ship(ship)
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
    _tell_workers([worker for worker in view.workers if not worker.capacity])
    _tell_remote([worker for worker in view.workers if worker.capacity])


def _tell_workers(found: list[WorkerView]) -> None:
    """Writes the workers of the server's machine."""
    if found:
        output.line()
        workers = [
            (
                str(worker.id),
                str(worker.pid) if worker.ready else "-",
                worker.job or ("idle" if worker.ready else "starting"),
                format_duration(worker.since_ms) if worker.job else "-",
            )
            for worker in found
        ]
        output.table(("worker", "pid", "job", "for"), workers)
        leaving = [str(worker.id) for worker in found if worker.leaving]
        if leaving:
            output.line(
                f"of the code before the last reload: {', '.join(leaving)}; "
                "each ends with the job that it runs"
            )


def _tell_remote(found: list[WorkerView]) -> None:
    """Writes the remote workers."""
    if not found:
        return
    output.line()
    workers = [
        (
            str(worker.id),
            worker.name,
            f"{worker.jobs} of {worker.capacity}",
            format_duration(worker.lease_ms),
            "draining" if worker.draining else "",
        )
        for worker in found
    ]
    output.table(("remote worker", "name", "jobs", "lease ends in", ""), workers)


def _tell_storage(storage: StorageView) -> None:
    """Writes what the archive holds and costs."""
    since = f", since {format_time(storage.since_ms)}" if storage.since_ms else ""
    kept = ""
    if storage.retention_bytes:
        kept = (
            f"; kept for {format_duration(storage.retention_ms)} or up to "
            f"{format_size(storage.retention_bytes)}"
        )
    archive = f"archive {format_size(storage.archive_bytes)}"
    segments = counted(storage.archive_segments, "segment")
    output.line(f"history from seq {storage.first_seq}{since}: {archive} in {segments}{kept}")
    output.line(
        f"log {format_size(storage.log_bytes)}, snapshots {format_size(storage.snapshot_bytes)}, "
        f"index {format_size(storage.history_bytes)}; {format_size(storage.free_bytes)} free"
    )


def _tell_ship(ship: ShipView) -> None:
    """Writes how far the copy at a target is."""
    lag = (
        f"{counted(ship.lag_events, 'event')} behind for {ship.lag_seconds:.0f} s"
        if ship.lag_events
        else "up to date"
    )
    trouble = ship.error or ("" if ship.running else "no `beaver ship` runs for it")
    text = f"shipped to {ship.target} up to seq {ship.seq}, {lag}"
    output.line(output.paint(f"{text}; {trouble}", "red") if trouble else text)


def _phases(view: StatusView) -> str:
    """Returns where the time of a recovery went, where it was long enough to ask."""
    if view.recovery_ms < _LONG_RECOVERY_MS:
        return ""
    seconds: dict[str, float] = view.recovery.get("seconds", {})
    parts = [f"{name} {took_s * 1000:.0f}" for name, took_s in seconds.items()]
    return f" ({', '.join(parts)})"
