"""The table of settings: name, kind, default, bounds and meaning of each.

The command line takes its help from here, `beaver config` its listing, and the reference
page is generated from it, so that none of them can drift from what `config` accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from os import PathLike
from typing import Any, Final, Literal, TypedDict

import msgspec

from beaver.config.setting import WORKERS_MAX, Setting
from beaver.system.descriptors import CLIENTS_MIN, HTTP_CEILING, HTTP_MAX
from beaver_model.bounds import (
    ATTEMPTS_DEFAULT,
    ATTEMPTS_MAX,
    BATCH_BYTES_MAX,
    PAYLOAD_BYTES_CEILING,
    PAYLOAD_BYTES_MAX,
    TIMEOUT_MS_DEFAULT,
    TIMEOUT_MS_MAX,
    TOMBSTONES_MAX_DEFAULT,
)

CONCURRENCY_MAX: Final = 10_000
PREFETCH_MAX: Final = 1_024
HTTP_DEFAULT: Final = "127.0.0.1:9090"
_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000


def _table(*settings: Setting) -> dict[str, Setting]:
    return {
        setting.name: msgspec.structs.replace(setting, field=setting.field or setting.name)
        for setting in settings
    }


SETTINGS: Final = _table(
    Setting(
        name="data",
        kind="path",
        default="data",
        help="The data directory.",
    ),
    Setting(
        name="app",
        kind="app",
        default="",
        help="The application to serve, as module:app; without one, the built-in tasks.",
    ),
    Setting(
        name="workers",
        kind="int",
        default=0,
        least=1,
        most=WORKERS_MAX,
        help="Worker processes.",
    ),
    Setting(
        name="executor",
        kind="choice",
        default="process",
        choices=("process", "thread", "async"),
        help="How a worker runs jobs; only process can stop any job at its time limit.",
    ),
    Setting(
        name="concurrency",
        kind="int",
        default=10,
        least=1,
        most=CONCURRENCY_MAX,
        help="Jobs at once in one worker (thread and async executors).",
    ),
    Setting(
        name="prefetch",
        kind="int",
        default=0,
        most=PREFETCH_MAX,
        help="Jobs that a busy worker may hold; 0 adapts it to how long jobs run.",
        run_flag=False,
    ),
    Setting(
        name="timeout",
        field="timeout_ms",
        kind="duration",
        default=TIMEOUT_MS_DEFAULT,
        least=1,
        most=TIMEOUT_MS_MAX,
        help="Time limit of an attempt, unless the job or its task sets one.",
    ),
    Setting(
        name="max_attempts",
        kind="int",
        default=ATTEMPTS_DEFAULT,
        least=1,
        most=ATTEMPTS_MAX,
        help="Attempts of a job, unless the job or its task sets a number.",
    ),
    Setting(
        name="grace",
        field="grace_ms",
        kind="duration",
        default=30_000,
        most=_DAY_MS,
        help="Time for running jobs to finish when the server is told to stop.",
    ),
    Setting(
        name="start_timeout",
        field="start_timeout_ms",
        kind="duration",
        default=120_000,
        least=100,
        most=_DAY_MS,
        help="Time for a worker to start and import the application, before it is replaced.",
    ),
    Setting(
        name="lease",
        field="lease_ms",
        kind="duration",
        default=15_000,
        least=1_000,
        most=_HOUR_MS,
        help="A remote worker that is silent for so long loses its jobs.",
    ),
    Setting(
        name="heartbeat",
        field="heartbeat_ms",
        kind="duration",
        default=5_000,
        least=1_000,
        most=_HOUR_MS,
        help="How often remote workers are asked to report what they run; less than the lease.",
    ),
    Setting(
        name="snapshot",
        field="snapshot_ms",
        kind="duration",
        default=10_000,
        least=100,
        most=_DAY_MS,
        help="Minimum time between two snapshots.",
    ),
    Setting(
        name="burst",
        kind="bool",
        default=False,
        help="Exit once no job is left that can still run.",
    ),
    Setting(
        name="takeover",
        kind="bool",
        default=False,
        help="Take over from a running server, which finishes its running jobs and exits.",
    ),
    Setting(
        name="http",
        kind="http",
        default=HTTP_DEFAULT,
        help="Address of the HTTP API, metrics and health, or off; beyond loopback it needs TLS, "
        "or --http-insecure.",
    ),
    Setting(
        name="tls_cert",
        kind="file",
        default="",
        help="A file with the certificate of the HTTP server and those that it rests on, as PEM; "
        "read again when it is replaced.",
    ),
    Setting(
        name="tls_key",
        kind="file",
        default="",
        help="The file with the key of the certificate, as PEM.",
    ),
    Setting(
        name="http_insecure",
        kind="bool",
        default=False,
        help="Serve HTTP beyond loopback without TLS, where something else encrypts: whoever sees "
        "the traffic has the tokens in it.",
    ),
    Setting(
        name="http_host",
        kind="hosts",
        default=(),
        most=100,
        help="Another name by which clients reach the HTTP server, as in the URLs that they use; "
        "may be repeated.",
    ),
    Setting(
        name="http_connections",
        kind="int",
        default=HTTP_MAX,
        least=CLIENTS_MIN,
        most=HTTP_CEILING,
        help="Connections to HTTP at once; more than usual need descriptors (ulimit -n).",
    ),
    Setting(
        name="max_jobs",
        kind="int",
        default=0,
        help="Replace a worker after N jobs; 0 means never.",
    ),
    Setting(
        name="max_rss",
        field="max_rss_bytes",
        kind="size",
        default=0,
        help="Replace a worker that uses more memory than this; 0 means never.",
    ),
    Setting(
        name="allow_exec",
        kind="bool",
        default=False,
        help="Serve the exec task, which runs programs: anyone who can reach the socket can then "
        "run any program as the user of the server.",
    ),
    Setting(
        name="exec_allow",
        kind="programs",
        default=(),
        most=1_000,
        help="A program, by its absolute path, that exec may also run for admin tokens over HTTP, "
        "with any arguments; may be repeated.",
    ),
    Setting(
        name="segment_size",
        field="segment_bytes",
        kind="size",
        default=64 << 20,
        # A segment must hold the largest commit, and be addressable as one mapping.
        least=2 * BATCH_BYTES_MAX,
        most=4 << 30,
        help="Size of one segment of the log.",
        run_flag=False,
    ),
    Setting(
        name="retention_age",
        field="retention_ms",
        kind="duration",
        default=7 * _DAY_MS,
        help="How long sealed segments and history are kept.",
        run_flag=False,
    ),
    Setting(
        name="retention_size",
        field="retention_bytes",
        kind="size",
        default=10 * 10**9,
        help="How many bytes of sealed segments are kept.",
        run_flag=False,
    ),
    Setting(
        name="state_size_max",
        field="state_bytes_max",
        kind="size",
        default=0,
        help="Maximum memory of unfinished jobs; 0 means 35 % of the available memory.",
    ),
    Setting(
        name="payload_size_max",
        field="payload_bytes_max",
        kind="size",
        default=PAYLOAD_BYTES_MAX,
        least=2,
        # One job must fit in one commit.
        most=PAYLOAD_BYTES_CEILING,
        help="Maximum size of a payload as JSON, for every producer; at most 4 MiB.",
    ),
    Setting(
        name="tombstones_max",
        kind="int",
        default=TOMBSTONES_MAX_DEFAULT,
        most=1 << 32,
        help="Number of finished jobs that are remembered to detect duplicates.",
        run_flag=False,
    ),
    Setting(
        name="tombstones_age",
        field="tombstones_age_ms",
        kind="duration",
        default=0,
        help="How long finished jobs are remembered; 0 limits only their number.",
        run_flag=False,
    ),
    Setting(
        name="keeper_idle",
        field="keeper_idle_ms",
        kind="duration",
        default=30_000,
        most=_DAY_MS,
        help="How long a keeper, which producers start when no server runs, waits for another "
        "request before it exits; 0 starts none.",
        run_flag=False,
    ),
    Setting(
        name="commit",
        kind="choice",
        default="auto",
        choices=("auto", "inline", "writer"),
        help="How the log is written: inline, by a writer process, or auto, as the disk needs it.",
        run_flag=False,
    ),
    Setting(
        name="log_level",
        kind="choice",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="Minimum level that is logged to stderr.",
    ),
    Setting(
        name="log_format",
        kind="choice",
        default="text",
        choices=("text", "json"),
        help="Format of the log on stderr.",
    ),
    Setting(
        name="queues",
        kind="queues",
        default={},
        help="Per queue: weight, bytes_max, paused, durable_dispatch.",
        run_flag=False,
    ),
)
"""Every setting, by name, in the order in which they are shown."""

NEEDS_RESTART: Final = frozenset(
    {
        "data", "http", "tls_cert", "tls_key", "http_insecure", "http_host", "burst", "takeover",
        "http_connections", "commit", "segment_size",
    }
)  # fmt: skip
"""Settings that a reload does not change."""


class WorkerSettings(TypedDict, total=False):
    """Settings that `Beaver.run_worker` takes: the table above, typed.

    `data` and `app` are missing, which the application is itself.  Durations are seconds, or
    texts such as `"5m"`.
    """

    workers: int
    executor: Literal["process", "thread", "async"]
    concurrency: int
    prefetch: int
    timeout: float | str | timedelta
    max_attempts: int
    grace: float | str | timedelta
    start_timeout: float | str | timedelta
    lease: float | str | timedelta
    heartbeat: float | str | timedelta
    snapshot: float | str | timedelta
    burst: bool
    takeover: bool
    http: str
    tls_cert: str | PathLike[str]
    tls_key: str | PathLike[str]
    http_insecure: bool
    http_host: Sequence[str]
    http_connections: int
    max_jobs: int
    max_rss: int | str
    allow_exec: bool
    exec_allow: Sequence[str]
    segment_size: int | str
    retention_age: float | str | timedelta
    retention_size: int | str
    state_size_max: int | str
    payload_size_max: int | str
    tombstones_max: int
    tombstones_age: float | str | timedelta
    keeper_idle: float | str | timedelta
    commit: Literal["auto", "inline", "writer"]
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["text", "json"]
    queues: dict[str, dict[str, Any]]
