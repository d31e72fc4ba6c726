"""The limits that users may reach, and the hint that a refusal gives for each.

The numbers stand in `beaver_model.bounds` and in `settings`, once; here stands what each of them
bounds and how it is raised.  Refusals take their last words from here, and the reference page is
generated from it, so neither can say something else.
"""

from __future__ import annotations

import sys
from typing import Final, NamedTuple

from beaver_model.bounds import (
    ATTEMPTS_MAX,
    BACKOFF_MS_MAX,
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    CHILDREN_BYTES_MAX,
    CHILDREN_MAX,
    ERROR_BYTES_MAX,
    ID_BYTES_MAX,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_CEILING,
    PAYLOAD_BYTES_MAX,
    PAYLOAD_DEPTH_MAX,
    QUEUES_MAX,
    RESULT_BYTES_MAX,
    SNOOZES_MAX,
    TAGS_MAX,
    TIMEOUT_MS_MAX,
    TOMBSTONES_MAX_DEFAULT,
    WEIGHT_MAX,
)

SQLITE_PATH_BYTES: Final = 512
"""Longest path that SQLite opens, including the longest suffix of its own files."""
SOCKET_PATH_BYTES: Final = 107 if sys.platform == "linux" else 103
"""Longest address of a local socket that the kernel accepts."""


class Limit(NamedTuple):
    """One limit."""

    bounds: str
    """The bounded quantity."""
    value: int
    unit: str = ""
    setting: str = ""
    """Name of the setting that changes it; none does where this is empty."""
    ceiling: int = 0
    """Largest value of that setting, where there is one."""
    otherwise: str = ""
    """How to exceed it."""

    @property
    def hint(self) -> str:
        """The end of a refusal: how to raise the limit, or what else to do."""
        if not self.setting:
            return f"no setting changes that{f': {self.otherwise}' if self.otherwise else ''}"
        where = f"{self.setting}: in beaver.yaml, or as {variable(self.setting)}"
        if self.setting.startswith("queues"):
            where = f"{self.setting}: in beaver.yaml, or by `app.client.set_queue`"
        ceiling = f", up to {self.ceiling}" if self.ceiling else ""
        return f"the setting is {where}{ceiling}"


def variable(setting: str) -> str:
    """Returns the name of a setting in the environment."""
    return f"BEAVER_{setting.upper()}"


_SEVERAL: Final = "enqueue them by several calls; a file, by `beaver enqueue --chunked`"
_STORE: Final = "store it elsewhere and send its place"

LIMITS: Final = {
    "payload": Limit(
        "JSON of one payload",
        PAYLOAD_BYTES_MAX,
        "bytes",
        "payload_size_max",
        PAYLOAD_BYTES_CEILING,
    ),
    "payload_ceiling": Limit(
        "JSON of one payload, whatever is set: a job must fit into one commit",
        PAYLOAD_BYTES_CEILING,
        "bytes",
        otherwise=_STORE,
    ),
    "depth": Limit("arrays and objects within each other, in a payload", PAYLOAD_DEPTH_MAX),
    "result": Limit("JSON of one result", RESULT_BYTES_MAX, "bytes", otherwise=_STORE),
    "error": Limit("kept of one error's text: its head and its tail", ERROR_BYTES_MAX, "bytes"),
    "batch_jobs": Limit("jobs of one commit", BATCH_JOBS_MAX, otherwise=_SEVERAL),
    "batch_bytes": Limit(
        "jobs of one commit together",
        BATCH_BYTES_MAX,
        "bytes",
        otherwise=_SEVERAL,
    ),
    "children": Limit(
        "jobs that one attempt enqueues",
        CHILDREN_MAX,
        otherwise="let a child enqueue the rest",
    ),
    "children_bytes": Limit(
        "jobs that one attempt enqueues, together",
        CHILDREN_BYTES_MAX,
        "bytes",
        otherwise="let a child enqueue the rest",
    ),
    "id": Limit("the id of a job", ID_BYTES_MAX, "bytes"),
    "name": Limit("the name of a task, a queue or a tag", NAME_BYTES_MAX, "bytes"),
    "tags": Limit("tags of one job", TAGS_MAX),
    "attempts": Limit("`max_attempts` of a job", ATTEMPTS_MAX),
    "timeout": Limit("`timeout` of an attempt", TIMEOUT_MS_MAX, "ms"),
    "backoff": Limit("wait between two attempts", BACKOFF_MS_MAX, "ms"),
    "snoozes": Limit("snoozes of one job; the next one makes it dead", SNOOZES_MAX),
    "tokens": Limit("tokens of a store, for HTTP", 1_000, otherwise="revoke some"),
    "queues": Limit("queues that a store knows at once", QUEUES_MAX),
    "weight": Limit("`weight` of a queue", WEIGHT_MAX),
    "state": Limit(
        "memory of unfinished jobs; 0 is 35 % of what there is", 0, "bytes", "state_size_max"
    ),
    "queue_bytes": Limit(
        "unfinished jobs of one queue; 0 is no limit", 0, "bytes", "queues: NAME: bytes_max"
    ),
    "path": Limit(
        "the path of a data directory, links resolved",
        SQLITE_PATH_BYTES - len("/history.db-journal"),
        "bytes",
        otherwise="use a shorter one, or mount it at one",
    ),
    "socket_path": Limit(
        "the path in a `unix:` URL",
        SOCKET_PATH_BYTES,
        "bytes",
        otherwise="name the data directory, whose server has a socket at a short path",
    ),
    "tombstones": Limit(
        "finished jobs that are remembered to find duplicates",
        TOMBSTONES_MAX_DEFAULT,
        "",
        "tombstones_max",
        1 << 32,
    ),
}
"""By a short name."""


def hint(name: str) -> str:
    """Returns what a refusal says of a limit."""
    return LIMITS[name].hint
