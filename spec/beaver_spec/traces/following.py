"""Traces: logs of the real program, checked against the specification event by event.

What lives here: reading them, from a store or from commits in memory.  The rules stand in
`traces.rules`.  The events' shapes are written here a second time; frames are found and
checked by the program's own reader, and what is in them is decoded here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from beaver.errors import Corruption
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import LogScan, SegmentInfo, segments
from beaver.ports import Disk
from beaver.system.disk import SystemDisk
from beaver_spec.traces.rules import LogStep, TraceVerdict, Validator, validate

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
    8: ("CANCEL_REQUESTED", {"job": ..., "by": ""}),
    9: ("CANCEL", {"job": ..., "token": ..., "cause": "", "error": "", "by": ""}),
    10: ("REQUEUE", {"job": ..., "payload": None, "by": ""}),
    11: ("DISCARD", {"job": ..., "by": ""}),
    12: (
        "QUEUE",
        {
            "queue": ...,
            "paused": ...,
            "weight": ...,
            "bytes_max": ...,
            "durable_dispatch": True,
            "by": "",
        },
    ),
    13: ("BOOT", {"epoch": ..., "power_cut": ..., "writer": ""}),
    14: ("BOUNDS", {"tombstones_max": ..., "tombstones_age_ms": ...}),
    15: ("FORGET_QUEUE", {"queue": ...}),
}
"""Tag of each event, its name, and its fields in order with what their absence means.

`...` stands for a field that must be there.
"""

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(("spec", "digest", "result"), (bytes,)),
    "payload": (bytes,),
    "tags": (list,),
    **dict.fromkeys(("job", "parent", "cause", "error", "queue", "writer", "by"), (str,)),
    **dict.fromkeys(("run_at_ms", "worker", "token", "weight", "bytes_max", "epoch"), (int,)),
    **dict.fromkeys(("tombstones_max", "tombstones_age_ms"), (int,)),
    **dict.fromkeys(("suspect", "paused", "durable_dispatch", "power_cut"), (bool,)),
}
_FORMS: Final = {
    tag: (name, tuple(shape), (int, *(_TYPES[field][0] for field in shape)))
    for tag, (name, shape) in SHAPES.items()
}
"""Of each event: its name, its fields, and the types of an array that has them all."""


_decode: Final = msgspec.msgpack.Decoder(tuple[int, list[list[Any]]]).decode


def steps_of(first_seq: int, time_ms: int, events: Iterable[Any]) -> list[LogStep]:
    """Returns the steps of one commit; `events` are arrays that begin with their tags.

    Events of the model will do: they are encoded as they are for the log.
    """
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(list(events)))
    return _steps(first_seq, time_ms, raw)


class Opinion:
    """What the specification says of a log, frame by frame: a second one beside the model's."""

    def __init__(self, first_seq: int) -> None:
        """Begins with the first seq of the log; see `Validator`."""
        self._validator = Validator(first_seq=first_seq)

    def of(self, first_seq: int, payload: bytes) -> tuple[int, str] | None:
        """Returns seq and reason of what cannot stand in the next frame, or `None`."""
        validator = self._validator
        try:
            time_ms, raw = _decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return first_seq, f"the payload is no commit: {error}"
        for seq, event in enumerate(raw, first_seq):
            step = LogStep(seq, time_ms, first_seq, *_event(event))
            reason = validator.step(step)
            if reason is not None:
                return seq, f"{step.name}: {reason}"
        left = validator.end()
        return None if left is None else (validator.last_seq, left)


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
                where = log.scan.path if log.scan is not None else path
                try:
                    time_ms, raw = _decode(frame.payload)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    reason = f"the payload is no commit: {error}"
                    raise Corruption(where, frame.offset, frame.first_seq, reason) from error
                if len(raw) != frame.count:
                    reason = f"the frame counts {frame.count} events, and holds {len(raw)}"
                    raise Corruption(where, frame.offset, frame.first_seq, reason)
                yield from _steps(frame.first_seq, time_ms, raw)

    return first_seq, read()


def judged(disk: Disk, layout: Layout, infos: Sequence[SegmentInfo]) -> list[str]:
    """Returns what is against the specification in a log: nothing, or the first such event.

    Raises:
        Corruption: The log is damaged.
    """
    first_seq = infos[0].first_seq
    opinion, log = Opinion(first_seq), LogScan(disk, layout, infos, first_seq - 1)
    for frame in log:
        found = opinion.of(frame.first_seq, frame.payload) if frame.count else None
        if found is not None and log.scan is not None:
            seq, reason = found
            return [f"seq {seq}: {reason} ({log.scan.path} at offset {frame.offset})"]
    return []


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
    if type(tag) is not int or tag not in SHAPES:
        return f"tag {tag}", {}
    name, names, types = _FORMS[tag]
    if tuple(map(type, raw)) == types:
        return name, dict(zip(names, raw[1:], strict=False))
    shape = SHAPES[tag][1]
    fields = dict(shape)
    fields.update(zip(shape, raw[1:], strict=False))
    if ... in fields.values():
        return f"{name} with {len(raw) - 1} fields", {}
    for field, value in fields.items():
        if type(value) not in _TYPES[field] and not (name == "REQUEUE" and value is None):
            return f"{name} with a {field} that is a {type(value).__name__}", {}
    return name, fields
