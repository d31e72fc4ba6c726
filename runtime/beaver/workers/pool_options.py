"""What a pool has to know before it starts, and what it accepts of the application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from beaver.errors import InvalidInput
from beaver.request.options import check_options
from beaver.structs.messages import TaskInfo
from beaver.task.programs import Programs
from beaver.text.foreign import counted
from beaver.workers import wire

TASKS_MAX: Final = 10_000
"""Tasks that an application may have."""


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which application its workers run, how, and under which mark."""

    workers: int
    mark: str
    """Mark of every process, by which the next start finds leftovers; see `kinship.store_mark`."""
    app: str = ""
    """`module:name`; empty for the built-in tasks alone."""
    executor: str = "process"
    """`process`, `thread` or `async`."""
    concurrency: int = 1
    """Attempts at once in one worker, for the thread and async executors."""
    max_jobs: int = 0
    """Attempts after which a worker is replaced; 0 for never."""
    max_rss_bytes: int = 0
    """Resident memory beyond which a worker is replaced; 0 for never."""
    programs: Programs = Programs()
    """What `exec` may run."""
    start_limit_ms: int = 120_000
    """How long the zygote may take to import the application."""
    log_level: str = "INFO"
    log_format: str = "text"
    """`text` or `json`: how the output of jobs is written."""

    def worker_config(self) -> wire.WorkerConfig:
        return wire.WorkerConfig(
            app=self.app,
            executor=self.executor,
            concurrency=max(1, self.concurrency),
            max_jobs=self.max_jobs,
            max_rss_bytes=self.max_rss_bytes,
            programs=self.programs,
            log_level=self.log_level,
            log_format=self.log_format,
        )


def check_tasks(tasks: Sequence[TaskInfo]) -> None:
    """Checks what a zygote says of the application's tasks.

    Raises:
        InvalidInput: They are too many, or one has options out of bounds.
    """
    if len(tasks) > TASKS_MAX:
        raise InvalidInput(f"{counted(len(tasks), 'task')}; an application has {TASKS_MAX} at most")
    for task in tasks:
        check_options(task.options)
