"""What a frame's payload holds: one commit as MessagePack.

A payload is `[time_ms, [event, ...]]`.  An event is an array that begins with its tag, as
`beaver_model.events` defines it; the n-th event has the frame's first seq plus n, and all
share the time.  In a journal that several writers may reach it is
`[time_ms, [event, ...], [epoch, writer, number]]`: who made it (`port.Stamp`).  What may not
live here: frames, files, and any judgement of the events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec

from beaver.errors import NewerFormat
from beaver.journal.port import Stamp
from beaver_model.bounds import TIME_MS_MAX
from beaver_model.events import ALL_EVENTS, AnyEvent

_encode: Final = msgspec.msgpack.Encoder().encode
_Time = Annotated[int, msgspec.Meta(ge=0, le=TIME_MS_MAX)]
_decode: Final = msgspec.msgpack.Decoder(tuple[_Time, list[AnyEvent]]).decode
_decode_stamped: Final = msgspec.msgpack.Decoder(tuple[_Time, list[AnyEvent], Stamp]).decode
_T = TypeVar("_T")
_TAGS: Final = frozenset(event.__struct_config__.tag for event in ALL_EVENTS)


class Undecodable(ValueError):
    """A payload with a good CRC is no commit: corruption, for whoever knows file and offset."""


def encode_commit(time_ms: int, events: Sequence[AnyEvent], stamp: Stamp | None = None) -> bytes:
    """Returns the payload of one commit."""
    return _encode((time_ms, events) if stamp is None else (time_ms, events, stamp))


def decode_commit(payload: bytes) -> tuple[int, list[AnyEvent]]:
    """Returns the time and the events of a commit.

    Raises:
        NewerFormat: It holds an event that this release does not know.
        Undecodable: It is no commit.  Nothing else is ever raised.
    """
    return _decoded(_decode, payload)


def decode_stamped(payload: bytes) -> tuple[int, list[AnyEvent], Stamp]:
    """Returns time, events and stamp of a commit that has one.  Raises as `decode_commit`."""
    return _decoded(_decode_stamped, payload)


def _decoded(decode: Callable[[bytes], _T], payload: bytes) -> _T:
    try:
        return decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        unknown = _unknown_tag(payload)
        if unknown is not None:
            raise NewerFormat(
                f"the log holds an event with tag {unknown}, which this release does not know; "
                "it was written by a newer version of Beaver: use that version"
            ) from error
        raise Undecodable(f"the payload is no commit: {error}") from error


def _unknown_tag(payload: bytes) -> int | None:
    """Returns the first tag in a payload that no event of this release has, or `None`."""
    try:
        commit: Any = msgspec.msgpack.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, RecursionError):
        return None
    if not (isinstance(commit, list) and len(commit) >= 2 and isinstance(commit[1], list)):
        return None
    for event in commit[1]:
        tag = event[0] if isinstance(event, list) and event else None
        if isinstance(tag, int) and not isinstance(tag, bool) and tag > 0 and tag not in _TAGS:
            return tag
    return None
