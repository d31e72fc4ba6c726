"""Beaver: a durable job queue.

`from beaver import Beaver` and the other names below load only what they need: a worker
that asks for `Retry` loads no client, and the command line loads neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from beaver.api.app import Beaver
    from beaver.api.handle import Handle
    from beaver.api.job import AsyncContextJob, AsyncJob, ContextJob, Job
    from beaver.client.asynchronous import AsyncClient
    from beaver.client.blocking import Client
    from beaver.errors import (
        AccessDenied,
        AppImportError,
        BeaverError,
        BindError,
        Conflict,
        Corruption,
        CrewFailed,
        DiskFull,
        Endless,
        HelperFailed,
        InvalidInput,
        JobFailed,
        LogLost,
        LostLeadership,
        NewerFormat,
        NoServer,
        NotFound,
        QueueFull,
        ServerGone,
        ServerLeft,
        StorageFailed,
        StoreUnavailable,
        WaitTimeout,
    )
    from beaver.task.context import JobContext, current
    from beaver.task.directives import (
        Cancel,
        CancelRequested,
        Dead,
        Retry,
        Snooze,
        SoftStop,
        TimeLimit,
    )

_HOMES: Final = {
    "api.app": ("Beaver",),
    "client.asynchronous": ("AsyncClient",),
    "client.blocking": ("Client",),
    "task.context": ("JobContext", "current"),
    "errors": (
        "AccessDenied",
        "AppImportError",
        "BeaverError",
        "BindError",
        "Conflict",
        "Corruption",
        "CrewFailed",
        "DiskFull",
        "Endless",
        "HelperFailed",
        "InvalidInput",
        "JobFailed",
        "LogLost",
        "LostLeadership",
        "NewerFormat",
        "NoServer",
        "NotFound",
        "QueueFull",
        "ServerGone",
        "ServerLeft",
        "StorageFailed",
        "StoreUnavailable",
        "WaitTimeout",
    ),
    "api.handle": ("Handle",),
    "api.job": ("AsyncContextJob", "AsyncJob", "ContextJob", "Job"),
    "task.directives": (
        "Cancel",
        "CancelRequested",
        "Dead",
        "Retry",
        "Snooze",
        "SoftStop",
        "TimeLimit",
    ),
}
"""Where each public name lives; a test compares this with the imports above."""

_MODULE_OF: Final = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("beaver-raft")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'beaver' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"beaver.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF, "__version__"])


__all__ = [
    "AccessDenied",
    "AppImportError",
    "AsyncClient",
    "AsyncContextJob",
    "AsyncJob",
    "Beaver",
    "BeaverError",
    "BindError",
    "Cancel",
    "CancelRequested",
    "Client",
    "Conflict",
    "ContextJob",
    "Corruption",
    "CrewFailed",
    "Dead",
    "DiskFull",
    "Endless",
    "Handle",
    "HelperFailed",
    "InvalidInput",
    "Job",
    "JobContext",
    "JobFailed",
    "LogLost",
    "LostLeadership",
    "NewerFormat",
    "NoServer",
    "NotFound",
    "QueueFull",
    "Retry",
    "ServerGone",
    "ServerLeft",
    "Snooze",
    "SoftStop",
    "StorageFailed",
    "StoreUnavailable",
    "TimeLimit",
    "WaitTimeout",
    "current",
]
