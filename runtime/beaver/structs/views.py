"""Views of the queue: plain structs, the same over the socket and as JSON."""

from __future__ import annotations

from typing import Any, Final

import msgspec

ABSENT: Final = msgspec.Raw(b"")
"""Stands for no JSON at all: a field with it is left out."""


_SHOWN_CHARS: Final = 200
"""Characters of a payload, a result or an error shown in a `repr`."""


class View(msgspec.Struct):
    """A struct whose `repr` is for people: fields that differ from their default, JSON as text."""

    def __repr__(self) -> str:
        shown = [
            f"{field.name}={_shown(value)}"
            for field in msgspec.structs.fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(value: Any) -> str:
    if isinstance(value, msgspec.Raw):
        text = bytes(value).decode("utf-8", "backslashreplace")
    else:
        text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"


class JobView(View, omit_defaults=True):
    """A job as `show` and `list` give it.  Times are ms since the epoch, 0 if there is none.

    A field that is not known is `None`, and absent from the JSON: for a job that has ended,
    whatever the log no longer holds.
    """

    id: str
    seq: int
    """Seq of its ENQUEUE."""
    state: str
    """`pending`, `in_flight`, `completed`, `dead`, `cancelled` or `discarded`."""
    task: str | None = None
    queue: str | None = None
    priority: int | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    timeout_ms: int | None = None
    ready_ms: int | None = None
    """Time from which it may run; unset once the job has ended."""
    worker: int | None = None
    """The worker that holds it; unset once the job has ended."""
    token: int | None = None
    generation: int | None = None
    cancel_requested: bool | None = None
    suspect: bool | None = None
    cause: str | None = None
    error: str | None = None
    """Cause and error of the last attempt that did not complete."""
    parent: str | None = None
    tags: tuple[str, ...] | None = None
    payload: msgspec.Raw = ABSENT
    result: msgspec.Raw = ABSENT
    """The result of a completed job."""
    waiting: str | None = None
    """Why it does not run now; a key of `beaver_model.policy.WAITING`."""
    enqueued_ms: int | None = None
    """When it was enqueued; only for jobs that have ended."""
    finished_ms: int | None = None
    """When it completed or was discarded."""
    end_seq: int | None = None
    """Seq of the event that ended it."""
    as_of_seq: int | None = None
    """A job that has ended is described from the log up to this seq."""


class QueueView(View):
    """A queue as `status` gives it."""

    pending: int = 0
    in_flight: int = 0
    completed: int = 0
    dead: int = 0
    cancelled: int = 0
    paused: bool = False
    weight: int = 10
    oldest_pending_ms: int = 0
    """How long the oldest ready job has waited, in ms."""
    durable_dispatch: bool = True
    """Its jobs start only once their DISPATCH is on disk."""


class WorkerView(View):
    """A worker as `status` gives it."""

    id: int
    pid: int
    job: str | None = None
    since_ms: int = 0
    """How long it has run this job, in ms."""
    ready: bool = True
    """It accepts jobs; otherwise it is starting, or waits for its replacement."""
    leaving: bool = False
    """It was started before the last reload, and ends with its current job."""
    name: str = ""
    """What a remote worker calls itself; those of the server's machine have none."""
    lease_ms: int = 0
    """How long a remote worker may yet be silent before it loses its jobs."""
    capacity: int = 0
    """Jobs that a remote worker may hold."""
    jobs: int = 0
    """Jobs that a remote worker holds."""
    tasks: tuple[str, ...] = ()
    """What a remote worker can run."""
    queues: tuple[str, ...] | None = None
    """Whose jobs a remote worker takes; null for all."""
    draining: bool = False
    """A remote worker gets nothing more, and is told to leave."""


class StorageView(View):
    """What the files of a store hold and take.  Times are ms since the epoch."""

    archive_bytes: int
    """Sealed segments: what results, history and `explain` are read from."""
    archive_segments: int
    first_seq: int
    """The log begins here; events before it are no longer kept."""
    since_ms: int
    """When that was; 0 where there is no event."""
    log_bytes: int
    """The active segment, room ahead included."""
    snapshot_bytes: int
    history_bytes: int
    retention_bytes: int = 0
    """The archive is pruned beyond this size; 0 where no server says."""
    retention_ms: int = 0
    """Events are pruned beyond this age; 0 where no server says."""
    free_bytes: int = 0
    last_known_ms: int = 0
    """A stamp near the end of the log."""


class ShipView(View):
    """A copy of the log elsewhere, as its shipper says."""

    target: str
    seq: int
    """The target holds everything up to here."""
    lag_events: int = 0
    lag_seconds: float = 0.0
    """How old the first event is that the target does not hold."""
    running: bool = False
    """Its shipper lives."""
    error: str = ""
    """What keeps it from going on."""


class StatusView(View):
    """The whole queue at a glance."""

    pending: int
    in_flight: int
    completed: int
    dead: int
    cancelled: int
    running: bool
    """A server answered; otherwise the numbers come from a keeper or the files."""
    last_seq: int
    recovery_ms: float
    keeper: int = 0
    """Pid of the keeper that answered: it accepts jobs and runs none."""
    silent: int = 0
    """Pid of a server that holds the store and did not answer."""
    scheduled: int = 0
    epoch: int = 0
    store: str = ""
    disk_full: bool = False
    halted: str = ""
    """Why nothing is dispatched until a restart: the violated invariant."""
    state_bytes: int = 0
    commit_path: str = ""
    """How commits are written now: `inline`, or by a `writer` process."""
    queues: dict[str, QueueView] = {}
    workers: list[WorkerView] = []
    remote_attempts: int = 0
    """Jobs that remote workers hold."""
    remote_pulls: int = 0
    """Requests of remote workers that wait for a job."""
    leases_expired: int = 0
    """Jobs that were taken from remote workers which were silent for their lease."""
    starts_overdue: int = 0
    """Workers that were killed because they did not get ready in time."""
    longest_stall_ms: float = 0.0
    """Longest time for which the event loop was blocked, since the server was ready."""
    longest_stall_in: str = ""
    """What ran then, if the stall was long enough to be sampled."""
    recovery: dict[str, Any] = {}
    """The findings of recovery, and how long each phase took."""
    version: str = ""
    """Version of the server that answered."""
    storage: StorageView | None = None
    ships: list[ShipView] = []


class ReloadView(View):
    """The result of a reload."""

    workers: int
    """New workers."""
    tasks: tuple[str, ...]
    """The tasks that they know."""
    leaving: int = 0
    """Former workers that still run a job."""
    restart: tuple[str, ...] = ()
    """Settings that were changed, and act only after a restart."""


class EventView(View, omit_defaults=True):
    """One event of the log, as `replay --json` and `explain` give it."""

    seq: int
    time_ms: int
    event: str
    job: str | None
    attempt: int | None = None
    token: int | None = None
    worker: int | None = None
    cause: str | None = None
    error: str | None = None
    result: msgspec.Raw = ABSENT
    task: str | None = None
    queue: str | None = None
    payload: msgspec.Raw = ABSENT
    priority: int | None = None
    max_attempts: int | None = None
    timeout_ms: int | None = None
    run_at: int | None = None
    parent: str | None = None
    tags: tuple[str, ...] | None = None
    by: str | None = None
    """Who asked for it: `token:ID:NAME` over HTTP (`token:ID` of an ENQUEUE), `uid:N` on this
    machine."""
    details: dict[str, Any] | None = None
    """Fields of events that belong to no job."""


class ExplainView(View):
    """Everything known about one job."""

    job: JobView
    events: list[EventView]
    history_from_seq: int = 1
    """Events before this seq are no longer kept."""
    as_of_seq: int = 0
    """The events are those up to this seq."""
    lagging: bool = False
    """There may be later ones: the index is too far behind to search the rest of the log."""
    waiting: str = ""
    """A key of `beaver_model.policy.WAITING`."""
    waiting_until_ms: int = 0
    held_by: int = 0
    """Worker that holds it, or 0."""
    near_tasks: tuple[str, ...] = ()
    """Known tasks with a similar name, if no worker knows the job's task."""
    disk_full: bool = False
    """Jobs run, and their ends are written, only as the log has room."""


class BulkView(View):
    """An action on many jobs, and how far it is."""

    action: str
    """`cancel`, `retry` or `discard`."""
    matched: int
    """Jobs that it is for."""
    state: str
    """`counted` where the jobs were only counted, else `running` or `done`."""
    bulk: str = ""
    """Its id; empty where nothing of it is kept."""
    done: int = 0
    refused: int = 0
    """Jobs that had changed meanwhile so that the action was not possible."""
    by: str = ""
    created_ms: int = 0


class ResultView(View):
    """How a job ended."""

    id: str
    state: str
    """`completed`, `dead`, `cancelled`, `discarded`, or `expired` where its result is gone."""
    result: msgspec.Raw = msgspec.Raw(b"null")
    cause: str = ""
    error: str = ""


class AcceptedBriefly(msgspec.Struct, array_like=True, gc=False):
    """The usual answer for an accepted job: all but the last field of `Accepted`."""

    id: str
    seq: int
    """Seq of its ENQUEUE, also if it existed."""
    created: bool


class Accepted(AcceptedBriefly, array_like=True, gc=False):
    """The answer for an accepted job."""

    unknown_task: tuple[str, ...] = ()
    """Name of its task if no worker of the server knows it, followed by similar known ones."""

    @property
    def warning(self) -> str:
        """The warning for a task that no worker knows; empty if one does."""
        if not self.unknown_task:
            return ""
        task, *like = self.unknown_task
        hint = f"; did you mean {' or '.join(like)}?" if like else "."
        return f"no worker of the server knows task {task!r}{hint} Its jobs wait until one does."
