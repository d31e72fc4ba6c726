"""Configuration: one table of settings, and the layers that give them values.

Defaults < YAML file < environment (`BEAVER_*`) < flags.  The result is one frozen, validated
`Config` that knows where each value came from.  A key that nobody knows is refused with the
name it was probably meant to be; nothing is ignored.

A setting has one name in every layer: `max_attempts` in YAML, `BEAVER_MAX_ATTEMPTS` in the
environment, `--max-attempts` on the command line.  The fields of `Config` carry units
(`timeout_ms`), since code reads them.

What may not live here: what the settings do.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from beaver.config.setting import DEFAULT, QueueConfig, Setting
from beaver.config.settings import SETTINGS
from beaver.errors import InvalidInput
from beaver.request.resolving import Resolver
from beaver.structs.messages import Options
from beaver.system.memory import memory_bytes
from beaver.text.durations import duration_text, size_text
from beaver.text.near import unknown_name

FILE_DEFAULT: Final = "beaver.yaml"
"""Read from the working directory where no file is named."""

STATE_PERCENT: Final = 35
"""Share of the memory that the state may take; helper and workers need theirs."""

HEARTBEATS: Final = 3
"""By default at least so many heartbeats fall into a lease."""

_INTERNAL: Final = frozenset(
    {
        "BEAVER_CA_FILE",
        "BEAVER_CONFIG",
        "BEAVER_DEBUG",
        "BEAVER_OUTBOX_DB",
        "BEAVER_STORE",
        "BEAVER_TOKEN",
        "BEAVER_URL",
        "BEAVER_GENERATION",
        "BEAVER_WORKER",
        "BEAVER_SERVE",
    }
)
"""Variables that are no settings: they name the file, or mark our own processes."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, validated.  Times are ms, sizes bytes; 0 means as each one says."""

    data: str
    """The data directory."""
    app: str
    """`module:app`, or empty for the built-in tasks."""
    workers: int
    executor: str
    """`process`, `thread` or `async`."""
    concurrency: int
    """Jobs at once in one worker process (thread and async executors)."""
    prefetch: int
    """Attempts that a busy worker may hold; 0 adapts it to how long jobs run."""
    timeout_ms: int
    max_attempts: int
    grace_ms: int
    start_timeout_ms: int
    """Time that a worker gets to become ready, the import of the application included."""
    lease_ms: int
    """Silence after which a remote worker has lost its jobs."""
    heartbeat_ms: int
    """How often remote workers are to report."""
    snapshot_ms: int
    burst: bool
    takeover: bool
    """Wait for a server that holds the store, and ask it to leave."""
    http: str
    """`host:port`, or `off`."""
    tls_cert: str
    """Path of the certificate; empty without TLS."""
    tls_key: str
    http_insecure: bool
    """Somebody has said that HTTP needs no TLS beyond loopback."""
    http_host: tuple[str, ...]
    """Names of the HTTP server beside its address."""
    http_connections: int
    max_jobs: int
    """Jobs after which a worker is replaced; 0 never."""
    max_rss_bytes: int
    """Memory above which a worker is replaced; 0 never."""
    allow_exec: bool
    exec_allow: tuple[str, ...]
    """Programs that jobs of `exec` may run over HTTP, and without `allow_exec`."""
    commit: str
    """How the log is written: `auto`, `inline` (on the loop) or `writer` (by a process)."""
    segment_bytes: int
    retention_ms: int
    retention_bytes: int
    state_bytes_max: int
    """Bound on the memory of the state; 0 is 35 % of the machine's or the cgroup's."""
    payload_bytes_max: int
    tombstones_max: int
    tombstones_age_ms: int
    """Age at which a finished job is forgotten; 0: only the number bounds them."""
    keeper_idle_ms: int
    """Shortest idle time after which a keeper ends; with 0 no keeper is started."""
    log_level: str
    log_format: str
    """`text` or `json`."""
    queues: dict[str, QueueConfig]
    origins: dict[str, str]
    """Where the value of each field came from: `default`, a file, a variable or a flag."""

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port to listen on, or `None` where HTTP is off."""
        if self.http == "off":
            return None
        host, _, port = self.http.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def http_is_explicit(self) -> bool:
        """True where somebody asked for this address, so that no other port will do."""
        return self.origins["http"] != DEFAULT

    def resolver(self, tasks: Mapping[str, Options] | None = None) -> Resolver:
        """Returns a resolver with these settings as defaults behind the options of the tasks."""
        return Resolver(
            timeout_ms=self.timeout_ms,
            max_attempts=self.max_attempts,
            tasks=tasks,
            payload_bytes_max=self.payload_bytes_max,
        )

    @property
    def state_bytes_bound(self) -> int:
        """The bound on the memory of the state that is in force, worked out where it is 0."""
        return self.state_bytes_max or memory_bytes() * STATE_PERCENT // 100


def load_config(
    flags: Mapping[str, Any] | None = None,
    *,
    file: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Returns the configuration from all layers.

    Args:
        flags: Values by setting name; `None` means not given.
        file: The YAML file; else `BEAVER_CONFIG` names it, else `beaver.yaml` is read if the
            working directory has one.
        environ: The environment; by default that of the process.

    Raises:
        InvalidInput: A file cannot be read, or a key or value in some layer is wrong.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS.values():
        values[setting.field] = setting.default_value()
        origins[setting.field] = DEFAULT
    layers = (_from_file(file, environ), _from_environ(environ), _from_flags(flags))
    for layer in layers:
        for setting, raw, origin, label in layer:
            values[setting.field] = setting.parse(raw, label)
            origins[setting.field] = origin
    _fit_heartbeat(values, origins)
    return Config(**values, origins=origins)


def _fit_heartbeat(values: dict[str, Any], origins: dict[str, str]) -> None:
    """Heartbeats come within a lease: the default follows the lease, what was set is checked."""
    lease_ms, heartbeat_ms = values["lease_ms"], values["heartbeat_ms"]
    if origins["heartbeat_ms"] == DEFAULT:
        values["heartbeat_ms"] = min(heartbeat_ms, lease_ms // HEARTBEATS)
    elif heartbeat_ms > lease_ms:
        raise InvalidInput(
            f"heartbeat is {duration_text(heartbeat_ms)}, and a worker that is silent for the "
            f"lease of {duration_text(lease_ms)} loses its jobs: make it shorter, or the lease "
            "longer"
        )


_Layer = list[tuple[Setting, Any, str, str]]
"""Setting, raw value, origin, and its name in errors."""


def _from_flags(flags: Mapping[str, Any] | None) -> _Layer:
    layer: _Layer = []
    for name, raw in (flags or {}).items():
        if raw is not None:
            setting = SETTINGS[name]
            layer.append((setting, raw, setting.flag, setting.flag))
    return layer


def _from_environ(environ: Mapping[str, str]) -> _Layer:
    layer: _Layer = []
    known = {setting.variable: setting for setting in SETTINGS.values() if setting.variable}
    for variable in sorted(environ):
        if variable in known:
            layer.append((known[variable], environ[variable], variable, variable))
        elif variable.startswith("BEAVER_") and variable not in _INTERNAL:
            # A stranger's variable may begin so too: only what looks like a slip is refused.
            hint = unknown_name(variable, tuple(known), cutoff=0.85)
            if hint:
                raise InvalidInput(f"{variable}: no such setting in the environment{hint}")
    return layer


def _from_file(file: str | None, environ: Mapping[str, str]) -> _Layer:
    path = file or environ.get("BEAVER_CONFIG")
    if path is None:
        if not os.path.lexists(FILE_DEFAULT):
            return []
        _refuse_foreign(FILE_DEFAULT)
        path = FILE_DEFAULT
    layer: _Layer = []
    for key, raw in _read_yaml(path).items():
        setting = SETTINGS.get(key) if isinstance(key, str) else None
        if setting is None or not setting.in_file:
            names = tuple(name for name, known in SETTINGS.items() if known.in_file)
            hint = unknown_name(str(key), names) or f"; known are {', '.join(names)}"
            raise InvalidInput(f"{path}: {key!r:.80}: unknown key{hint}")
        layer.append((setting, raw, path, f"{path}: {key}"))
    return layer


def _refuse_foreign(path: str) -> None:
    """Checks a file that was not named explicitly: in /tmp, say, anybody may put one."""
    from beaver.system.ownership import is_trusted, user_name

    try:
        found = (os.lstat(path), os.stat(path))  # noqa: PTH116 - pathlib costs import time
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from None
    for owner in (entry.st_uid for entry in found if not is_trusted(entry.st_uid)):
        raise InvalidInput(
            f"{path} in the working directory belongs to user {user_name(owner)}, and is not read\n"
            f"Name it with --config {path}, if it is meant."
        )
    if not stat.S_ISREG(found[1].st_mode):
        raise InvalidInput(f"{path} in the working directory is no regular file")


def _read_yaml(path: str) -> dict[Any, Any]:
    from beaver.config.yamlfile import read_yaml

    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidInput(f"{path}: a mapping of settings is expected")
    return content


def shown(config: Config, setting: Setting) -> Any:
    """Returns a value of `config` in the form in which a YAML file would have it."""
    value = getattr(config, setting.field)
    if setting.kind == "duration":
        return duration_text(value)
    if setting.kind == "size":
        return size_text(value)
    if setting.kind == "queues":
        return msgspec.to_builtins(value)
    return value
