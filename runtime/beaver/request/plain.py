"""Requests from JSON that has nothing unusual, in a quarter of the time.

What is not plain is left to `requests`, which alone says what is wrong: escapes in strings,
options that few jobs have, repeated keys, values out of bounds.

A repeated key is the one fault that `msgspec` does not see: the last one wins.  It is seen by
counting quotes.  Where a text holds no backslash each quote begins or ends a string, and what
was read from it is written with the very same strings; so as many quotes are written as were
read, unless a key was lost with its two.

What may not live here: a rule of its own.  Both ways give the same request for the same text, or
none; tests compare them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from beaver.errors import InvalidInput
from beaver.request.templates import options_and_head
from beaver.structs.messages import Request
from beaver.system.ids import draw_id
from beaver.text import jsontext
from beaver.text.names import check_id

UNSET: Final = msgspec.UNSET
_BACKSLASH, _QUOTE = b'\\"'
_NULL: Final = msgspec.Raw(b"null")


class _Plain(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A job with the options that most jobs have; `Any` keeps 5.0 apart from 5."""

    id: str | msgspec.UnsetType = UNSET
    task: str | msgspec.UnsetType = UNSET
    payload: msgspec.Raw | msgspec.UnsetType = UNSET
    queue: str | msgspec.UnsetType = UNSET
    priority: Any = UNSET
    timeout_ms: Any = UNSET
    max_attempts: Any = UNSET


_decode: Final = msgspec.json.Decoder(_Plain).decode
_encode: Final = msgspec.json.Encoder().encode


def plain_request(
    raw: bytes, payload_bytes_max: int, need_id: bool, task_default: str
) -> Request | None:
    """Returns the request that a JSON text is; `None` where it is not plain, or wrong."""
    if _BACKSLASH in raw:
        return None
    try:
        job = _decode(raw)
        payload = _NULL if job.payload is UNSET else job.payload
        text = bytes(payload)
        if not jsontext.is_small(text, payload_bytes_max):
            return None
        canonical = jsontext.canonical_of(text)
        if canonical.count(_QUOTE) != text.count(_QUOTE) or (
            _encode(job).count(_QUOTE) != raw.count(_QUOTE)
        ):
            return None
        given = (job.queue, job.priority, job.timeout_ms, job.max_attempts)
        if None in given or (need_id and job.id is UNSET):
            return None
        fields = tuple(None if value is UNSET else value for value in given)
        task = task_default if job.task is UNSET else job.task
        options, head = options_and_head((task, *fields, None))
        job_id = draw_id() if job.id is UNSET else check_id(job.id)
    except (msgspec.MsgspecError, ValueError, RecursionError, InvalidInput):
        return None
    # The second line of what is hashed is empty; see `Template.request`.
    digest = head.copy()
    digest.update(b"\n" + canonical)
    return Request(job_id, options, jsontext.on_one_line(text), digest.digest())
