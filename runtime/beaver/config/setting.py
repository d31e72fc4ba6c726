"""One setting: how it is written in each layer, what it may be, and a parser for each kind.

The settings themselves stand in `settings`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from beaver.errors import InvalidInput
from beaver.request.options import check_range
from beaver.text.durations import duration_text, parse_duration_ms, parse_size_bytes, size_text
from beaver.text.names import check_name
from beaver.text.near import unknown_name
from beaver_model.bounds import QUEUES_MAX, WEIGHT_MAX

DEFAULT: Final = "default"
"""Origin of a value that was not set."""

WORKERS_MAX: Final = 1_024
_FAR: Final = 1 << 53
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})
_APP: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")
_HOST: Final = re.compile(r"\[[0-9a-fA-F:]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_HOST_BYTES_MAX: Final = 253
_ADDRESS: Final = re.compile(r"(?:(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):)?([0-9]{1,5})")


class QueueConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """Settings of one queue; `None` keeps what the store remembers."""

    weight: int | None = None
    bytes_max: int | None = None
    paused: bool | None = None
    durable_dispatch: bool | None = None


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting: how it is written in each layer, and what it may be."""

    name: str
    field: str = ""
    """Field of `Config`; the name where no unit follows it."""
    kind: str
    """One of `_PARSERS`."""
    default: Any
    help: str
    least: int = 0
    most: int = _FAR
    choices: tuple[str, ...] = ()
    run_flag: bool = True
    """`beaver run` has a flag of this name."""
    in_file: bool = True

    @property
    def is_list(self) -> bool:
        """Its flag may be repeated."""
        return self.kind in ("hosts", "programs")

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Name in the environment; a mapping has none."""
        return "" if self.kind == "queues" else "BEAVER_" + self.name.upper()

    def default_value(self) -> Any:
        """Returns the default; that of `workers` depends on the machine."""
        return cores() if self.name == "workers" else self.default

    def default_text(self) -> str:
        """Returns the default as people would write it."""
        if self.name == "workers":
            return "one per core"
        if self.kind == "duration":
            return duration_text(self.default)
        if self.kind == "size":
            return size_text(self.default)
        if self.kind == "bool":
            return "on" if self.default else "off"
        return str(self.default) if self.default not in ("", {}, ()) else "none"

    def allowed_text(self) -> str:
        """Returns which values are allowed, as people would write them; empty where all are."""
        if self.choices:
            return ", ".join(self.choices)
        write: Callable[[int], str] = {"duration": duration_text, "size": size_text}.get(
            self.kind, "{:,}".format
        )
        if self.kind not in ("int", "duration", "size"):
            return ""
        if self.most == _FAR:
            return f"{write(self.least)} or more" if self.least else ""
        return f"{write(self.least)} to {write(self.most)}"

    def parse(self, raw: Any, label: str) -> Any:
        """Returns the value that some layer gives in its own form.

        Raises:
            InvalidInput: It is not of this kind or out of bounds; the message begins with
                `label`.
        """
        return _PARSERS[self.kind](self, raw, label)


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), WORKERS_MAX)
    return min(os.cpu_count() or 1, WORKERS_MAX)


# -- a parser for each kind ---------------------------------------------------------------


def _parse_int(setting: Setting, raw: Any, label: str) -> int:
    if isinstance(raw, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", raw.strip()):
        raw = int(raw)
    return check_range(label, raw, setting.least, setting.most)


def _parse_bool(setting: Setting, raw: Any, label: str) -> bool:
    if isinstance(raw, bool):
        return raw
    text = raw.strip().lower() if isinstance(raw, str) else None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidInput(f"{label}: true or false is expected, found {raw!r:.60}")


def _parse_duration(setting: Setting, raw: Any, label: str) -> int:
    value = parse_duration_ms(raw, label)
    if not setting.least <= value <= setting.most:
        least, most = duration_text(setting.least), duration_text(setting.most)
        raise InvalidInput(f"{label}: {least} to {most} is allowed, found {raw}")
    return value


def _parse_size(setting: Setting, raw: Any, label: str) -> int:
    value = parse_size_bytes(raw, label)
    if not setting.least <= value <= setting.most:
        least, most = size_text(setting.least), size_text(setting.most)
        raise InvalidInput(f"{label}: {least} to {most} is allowed, found {raw}")
    return value


def _parse_choice(setting: Setting, raw: Any, label: str) -> str:
    if raw not in setting.choices:
        hint = unknown_name(str(raw), setting.choices)
        allowed = ", ".join(setting.choices)
        raise InvalidInput(f"{label}: one of {allowed} is expected, found {raw!r:.60}{hint}")
    return str(raw)


def _parse_path(setting: Setting, raw: Any, label: str) -> str:
    if not isinstance(raw, (str, os.PathLike)):
        raise InvalidInput(f"{label}: a path is expected, found {raw!r:.60}")
    path = os.fspath(raw)
    if not path or "\0" in path:
        raise InvalidInput(f"{label}: a path is expected, found {path!r}")
    return path


def _parse_app(setting: Setting, raw: Any, label: str) -> str:
    if not isinstance(raw, str) or (raw and not _APP.fullmatch(raw)):
        raise InvalidInput(f"{label}: module:app is expected, found {raw!r:.200}")
    return raw


def _parse_http(setting: Setting, raw: Any, label: str) -> str:
    """Reads `off`, a port, or an address."""
    if raw is False or raw == "off":  # YAML reads a bare `off` as false.
        return "off"
    match = _ADDRESS.fullmatch(str(raw)) if not isinstance(raw, bool) else None
    if match is None or int(match[2]) > 65_535:
        raise InvalidInput(f"{label}: host:port or off is expected, found {raw!r:.60}")
    return f"{match[1] or '127.0.0.1'}:{int(match[2])}"


def _parse_file(setting: Setting, raw: Any, label: str) -> str:
    return "" if raw == "" else _parse_path(setting, raw, label)


def _parse_hosts(setting: Setting, raw: Any, label: str) -> tuple[str, ...]:
    hosts = _items(raw, label)
    if len(hosts) > setting.most:
        raise InvalidInput(f"{label}: at most {setting.most} are allowed, found {len(hosts)}")
    for host in hosts:
        if not _HOST.fullmatch(host) or len(host) > _HOST_BYTES_MAX:
            raise InvalidInput(
                f"{label}: a name such as queue.example.org is expected, without port, scheme or "
                f"`*`, found {host!r:.200}"
            )
    return tuple(host.lower() for host in hosts)


def _items(raw: Any, label: str) -> list[str]:
    """Returns the texts of a list; in one text they stand between commas."""
    items = raw if isinstance(raw, list | tuple) else [raw]
    if not all(isinstance(item, str) for item in items):
        raise InvalidInput(f"{label}: a text or a list of texts is expected, found {raw!r:.60}")
    found = [part.strip() for item in items for part in item.split(",")]
    return list(dict.fromkeys(filter(None, found)))


def _parse_programs(setting: Setting, raw: Any, label: str) -> tuple[str, ...]:
    programs = _items(raw, label)
    if len(programs) > setting.most:
        raise InvalidInput(f"{label}: at most {setting.most} are allowed, found {len(programs)}")
    for program in programs:
        if not program.startswith("/") or os.path.normpath(program) != program:
            raise InvalidInput(
                f"{label}: an absolute path without `..` is expected, found {program!r:.200}"
            )
    return tuple(programs)


def _parse_queues(setting: Setting, raw: Any, label: str) -> dict[str, QueueConfig]:
    if not isinstance(raw, dict):
        raise InvalidInput(f"{label}: a mapping of queue names is expected, found {raw!r:.60}")
    if len(raw) > QUEUES_MAX:
        raise InvalidInput(f"{label}: at most {QUEUES_MAX} queues are allowed, found {len(raw)}")
    queues: dict[str, QueueConfig] = {}
    for name, settings in raw.items():
        at = f"{label}: {name}"
        check_name(name, label)
        if settings is None:
            settings = {}  # noqa: PLW2901 - a bare `name:` has nothing to say
        if not isinstance(settings, dict):
            raise InvalidInput(f"{at}: a mapping is expected, found {settings!r:.60}")
        known = QueueConfig.__struct_fields__
        for key in settings:
            if key not in known:
                hint = unknown_name(str(key), known) or f"; known are {', '.join(known)}"
                raise InvalidInput(f"{at}: {key!r:.80}: unknown key{hint}")
        weight, bytes_max = settings.get("weight"), settings.get("bytes_max")
        paused, durable = settings.get("paused"), settings.get("durable_dispatch")
        queues[name] = QueueConfig(
            None if weight is None else check_range(f"{at}: weight", weight, 1, WEIGHT_MAX),
            None if bytes_max is None else parse_size_bytes(bytes_max, f"{at}: bytes_max"),
            None if paused is None else _parse_bool(setting, paused, f"{at}: paused"),
            None if durable is None else _parse_bool(setting, durable, f"{at}: durable_dispatch"),
        )
    return queues


_PARSERS: Final = {
    "int": _parse_int,
    "bool": _parse_bool,
    "duration": _parse_duration,
    "size": _parse_size,
    "choice": _parse_choice,
    "path": _parse_path,
    "app": _parse_app,
    "http": _parse_http,
    "file": _parse_file,
    "hosts": _parse_hosts,
    "programs": _parse_programs,
    "queues": _parse_queues,
}
