"""Traces: logs of the real program, checked against the specification event by event.

What lives here: reading them, from a store or from commits in memory.  The rules stand in
`traces.rules`.  The events' shapes are written here a second time; frames are found and
checked by the program's own reader, and what is in them is decoded here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from beaver.errors import Corruption
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import LogScan, segments
from beaver.ports import Disk
from beaver.system.disk import SystemDisk
from beaver_spec.traces.rules import LogStep, TraceVerdict, validate

SHAPES: Final[dict[int, tuple[str, dict[str, Any]]]] = {
    1: (
        "ENQUEUE",
        {
            "job": ...,
            "spec": ...,
            "payload": ...,
            "digest": ...,
            "run_at_ms": 0,
            "parent": "",
            "tags": [],
        },
    ),
    2: ("DISPATCH", {"job": ..., "worker": ...}),
    3: ("ACK", {"job": ..., "token": ..., "result": ...}),
    4: ("RETRY", {"job": ..., "token": ..., "run_at_ms": ..., "cause": ..., "error": ""}),
    5: (
        "TIMEOUT",
        {
            "job": ...,
            "token": ...,
            "run_at_ms": ...,
            "cause": ...,
            "suspect": False,
            "error": "",
        },
    ),
    6: ("RELEASE", {"job": ..., "token": ..., "run_at_ms": ..., "cause": ...}),
    7: ("DEAD", {"job": ..., "token": ..., "cause": ..., "error": ""}),
    8: ("CANCEL_REQUESTED", {"job": ...}),
    9: ("CANCEL", {"job": ..., "token": ..., "cause": "", "error": ""}),
    10: ("REQUEUE", {"job": ..., "payload": None}),
    11: ("DISCARD", {"job": ...}),
    12: (
        "QUEUE",
        {
            "queue": ...,
            "paused": ...,
            "weight": ...,
            "bytes_max": ...,
            "durable_dispatch": True,
        },
    ),
    13: ("BOOT", {"epoch": ..., "power_cut": ..., "writer": ""}),
    14: ("BOUNDS", {"tombstones_max": ..., "tombstones_age_ms": ...}),
    15: ("FORGET_QUEUE", {"queue": ...}),
}
"""Tag of each event, its name, and its fields in order with what their absence means.

`...` stands for a field that must be there.
"""


_COMMIT: Final = tuple[int, list[list[Any]]]


def steps_of(first_seq: int, time_ms: int, events: Iterable[Any]) -> list[LogStep]:
    """Returns the steps of one commit; `events` are arrays that begin with their tags.

    Events of the model will do: they are encoded as they are for the log.
    """
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(list(events)))
    return _steps(first_seq, time_ms, raw)


def read_steps(disk: Disk, path: str) -> tuple[int, Iterator[LogStep]]:
    """Returns the first seq of the log of a store, and its events.

    Raises:
        Corruption: The log is damaged.
        FileNotFoundError: There is no log, or a segment was pruned meanwhile.
    """
    layout = Layout(path)
    infos = segments(disk, layout)
    if not infos:
        raise FileNotFoundError(f"{path} holds no log")
    first_seq = infos[0].first_seq

    def read() -> Iterator[LogStep]:
        log = LogScan(disk, layout, infos, first_seq - 1)
        for frame in log:
            if frame.count:
                try:
                    time_ms, raw = msgspec.msgpack.decode(frame.payload, type=_COMMIT)
                except msgspec.MsgspecError as error:
                    where = log.scan.path if log.scan is not None else path
                    reason = f"the payload is no commit: {error}"
                    raise Corruption(where, frame.offset, frame.first_seq, reason) from error
                yield from _steps(frame.first_seq, time_ms, raw)

    return first_seq, read()


def validate_store(path: str, *, disk: Disk | None = None) -> TraceVerdict:
    """Checks the log of a store against the specification; it is not written to.

    Args:
        path: The data directory.
        disk: Where it lies; a simulated disk will do.
    """
    first_seq, steps = read_steps(disk or SystemDisk(), path)
    return validate(steps, first_seq=first_seq)


def _steps(first_seq: int, time_ms: int, raw: list[list[Any]]) -> list[LogStep]:
    return [
        LogStep(seq, time_ms, first_seq, *_event(event)) for seq, event in enumerate(raw, first_seq)
    ]


def _event(raw: list[Any]) -> tuple[str, dict[str, Any]]:
    """Returns name and fields; what is no event gets a name that no event has."""
    tag = raw[0] if raw else None
    if not isinstance(tag, int) or tag not in SHAPES:
        return f"tag {tag}", {}
    name, shape = SHAPES[tag]
    fields = dict(shape)
    fields.update(zip(shape, raw[1:], strict=False))
    if ... in fields.values():
        return f"{name} with {len(raw) - 1} fields", {}
    return name, fields
