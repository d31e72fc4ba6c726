"""Requests: what a producer sends for one job, made, checked, and turned into the model's.

Every rule on the content of a job stands here, whichever way it comes in: from Python
(`make_request`), as JSON (`request_from_json`), or over a socket (`Resolver.job`, which trusts no
client and fills in what a request leaves open: see `resolving`).

A request's digest says whether two requests with one id ask for the same.  It is taken over
what was sent, in canonical form: options that were left open stay open in it, keys are in
order, and white space is gone.  So a resent `delay=5` is the same request, a day later too.

What may not live here: connections, the log, the state.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from beaver import jsontext
from beaver.durations import parse_duration_ms, parse_time_ms
from beaver.errors import InvalidInput
from beaver.messages import Backoff, Options, Request
from beaver.options import (
    backoff_from_json,
    backoff_from_python,
    backoff_to_json,
    check_id,
    check_name,
    check_options,
    check_range,
    check_tags,
)
from beaver.resolving import Resolver
from beaver_model.bounds import (
    DIGEST_BYTES,
    PAYLOAD_BYTES_MAX,
    TIME_MS_MAX,
)
from beaver_model.hashing import blake2b

__all__ = [
    "KEYS",
    "TASK_DEFAULT",
    "Resolver",
    "build_request",
    "check_id",
    "check_name",
    "draw_id",
    "make_request",
    "request_bytes",
    "request_from_json",
    "request_to_json",
]

KEYS: Final = (
    "id",
    "task",
    "payload",
    "queue",
    "priority",
    "run_at",
    "delay",
    "timeout_ms",
    "max_attempts",
    "backoff",
    "tags",
)
"""Keys of a job in JSON."""

TASK_DEFAULT: Final = "echo"
"""The task of a job in JSON that names none, as in the original file format."""

_LATER_KEYS: Final = frozenset(
    {"unique", "after", "concurrency_key", "expires", "expires_at", "schedule", "deadline"}
)
_MEMO_MAX: Final = 10_000
_OVERHEAD_BYTES: Final = 48
"""What an ENQUEUE event takes beside what the request holds."""
_encode_options: Final = msgspec.msgpack.Encoder().encode
_decode_options: Final = msgspec.msgpack.Decoder(Options).decode


_DRAWN_AHEAD: Final = 128
_RANDOM_CHARS: Final = 22
"""Characters of a UUID from its version on: `7xxx-yxxx-xxxxxxxxxxxx`."""
_VARIANT: Final = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)
_random: Final[list[str]] = []
_drawn = (0, "")
"""The millisecond of the last id, and its text."""
os.register_at_fork(after_in_child=_random.clear)


def draw_id() -> str:
    """Returns a new UUIDv7: its time comes first, so ids sort by when they were drawn.

    The random bits come from the kernel, many at a time: a call to it costs more than all
    the rest.  A forked child throws away what its parent has drawn ahead.
    """
    global _drawn  # noqa: PLW0603 - a memo
    try:
        random = _random.pop()
    except IndexError:
        random, *ahead = _draw_ahead()
        _random.extend(ahead)
    time_ms = time.time_ns() // 1_000_000
    last_ms, text = _drawn
    if time_ms != last_ms:
        digits = f"{time_ms:012x}"
        text = f"{digits[:8]}-{digits[8:]}-"
        _drawn = time_ms, text
    return text + random


def _draw_ahead() -> Iterator[str]:
    """Yields the random parts of many ids, with the bits of version 7 and variant set."""
    count, step = _DRAWN_AHEAD, _RANDOM_CHARS
    chars = bytearray(os.urandom(count * step // 2).hex().encode())
    chars[0::step] = b"7" * count
    chars[4::step] = chars[9::step] = b"-" * count
    chars[5::step] = chars[5::step].translate(_VARIANT)
    text = chars.decode()
    for at in range(0, count * step, step):
        yield text[at : at + step]


# -- making requests ----------------------------------------------------------------------


def make_request(
    task: str,
    payload: Any = None,
    *,
    id: str | None = None,  # noqa: A002 - the key's name in every surface
    queue: str | None = None,
    priority: int | None = None,
    run_at: datetime | str | int | None = None,
    delay: timedelta | str | float | None = None,
    timeout: timedelta | str | float | None = None,
    max_attempts: int | None = None,
    backoff: Backoff | Mapping[str, Any] | timedelta | str | float | None = None,
    tags: Sequence[str] = (),
    payload_bytes_max: int = PAYLOAD_BYTES_MAX,
) -> Request:
    """Returns a checked request for one job.

    Args:
        task: Name of the task.
        payload: Any JSON value; tuples become arrays.
        id: Identity of the job; a UUIDv7 is drawn where there is none.
        queue: Name of its queue.
        priority: 0 (first) to 9 (last).
        run_at: Not before this time: a `datetime` with a zone, ISO 8601, or ms since the epoch.
        delay: Not before this long after it came in.  Here as in `timeout` and `backoff`,
            a number means seconds, and `"5m"` or a `timedelta` says it otherwise.
        timeout: Limit of one attempt, from the start of user code.
        max_attempts: Attempts, the first included.
        backoff: A fixed wait between attempts, or a mapping as in a job file
            (`{"kind": "exponential", "base_ms": 1000, ...}`).
        tags: Up to 16 words to find it by.
        payload_bytes_max: Bound on the JSON of the payload.

    Raises:
        InvalidInput: A value is wrong; the message names it.
    """
    return build_request(
        task,
        jsontext.encode(payload, payload_bytes_max, "payload"),
        job_id=id,
        queue=queue,
        priority=priority,
        run_at_ms=None if run_at is None else parse_time_ms(run_at, "run_at"),
        delay_ms=None if delay is None else parse_duration_ms(delay, "delay"),
        timeout_ms=None if timeout is None else parse_duration_ms(timeout, "timeout"),
        max_attempts=max_attempts,
        backoff=None if backoff is None else backoff_from_python(backoff),
        tags=tags,
    )


def build_request(
    task: str,
    payload: bytes,
    *,
    job_id: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    run_at_ms: int | None = None,
    delay_ms: int | None = None,
    timeout_ms: int | None = None,
    max_attempts: int | None = None,
    backoff: Backoff | None = None,
    tags: Sequence[str] = (),
) -> Request:
    """Returns a request from values in ms and a payload that `jsontext` has checked.

    Raises:
        InvalidInput: A value is wrong; the message names it.
    """
    if delay_ms is not None and run_at_ms is not None:
        raise InvalidInput("run_at and delay: only one of them may be given")
    if delay_ms is not None:
        check_range("delay", delay_ms, 0, TIME_MS_MAX, "ms")
    checked_tags = check_tags(tags) if tags else ()
    options, head = _options_and_head((task, queue, priority, timeout_ms, max_attempts, backoff))
    return Request(
        draw_id() if job_id is None else check_id(job_id),
        options,
        payload,
        _digest(head, payload, run_at_ms, delay_ms, checked_tags),
        run_at_ms or 0,
        delay_ms or 0,
        checked_tags,
    )


_heads: dict[tuple[Any, ...], tuple[bytes, blake2b]] = {}


def _options_and_head(fields: tuple[Any, ...]) -> tuple[bytes, blake2b]:
    """Returns the bytes of `Options(*fields)`, and their canonical form hashed; both by a memo.

    The types stand in the key, since `True == 1 == 1.0` would find a checked entry.
    """
    key = (fields, type(fields[2]), type(fields[3]), type(fields[4]))
    try:
        known = _heads.get(key)
    except TypeError:
        known = None  # A list or an object somewhere: refused just below.
    if known is None:
        options = Options(*fields)
        check_options(options)
        if len(_heads) >= _MEMO_MAX:
            _heads.clear()
        head = blake2b(_canonical_options(options) + b"\n", digest_size=DIGEST_BYTES)
        known = _heads[key] = (_encode_options(options), head)
    return known


def _canonical_options(options: Options) -> bytes:
    """Returns the options that were given, by name: what is added later changes no digest."""
    given = {
        name: msgspec.structs.asdict(value) if isinstance(value, Backoff) else value
        for name, value in msgspec.structs.asdict(options).items()
        if value is not None
    }
    return jsontext.canonical(given)


def _digest(
    head: blake2b,
    payload: bytes,
    run_at_ms: int | None,
    delay_ms: int | None,
    tags: tuple[str, ...],
) -> bytes:
    """BLAKE2b-96 over three lines: options, the rest but the id, payload; each canonical."""
    rest = b""
    if run_at_ms or delay_ms or tags:
        given = {"delay_ms": delay_ms, "run_at_ms": run_at_ms, "tags": tags}
        rest = jsontext.canonical({name: value for name, value in given.items() if value})
    digest = head.copy()
    digest.update(rest + b"\n" + jsontext.canonical_of(payload))
    return digest.digest()


# -- from JSON ----------------------------------------------------------------------------


def request_from_json(
    raw: bytes,
    *,
    where: str = "",
    payload_bytes_max: int = PAYLOAD_BYTES_MAX,
    need_id: bool = False,
) -> Request:
    """Returns a checked request from the JSON text of one job, as in a job file.

    The payload is kept as its very bytes, with line breaks between tokens made spaces.

    Args:
        raw: JSON text of an object with keys out of `KEYS`.
        where: Names the job in an error: `job 3`, `line 7`.
        payload_bytes_max: Bound on the JSON of the payload.
        need_id: Draws no id, so the job must have one.

    Raises:
        InvalidInput: The text is no such object; the message names `where` and the key.
    """
    try:
        return _from_json(raw, payload_bytes_max, need_id)
    except InvalidInput as error:
        if not where:
            raise
        raise InvalidInput(f"{where}: {error}") from None


def _from_json(raw: bytes, payload_bytes_max: int, need_id: bool) -> Request:
    job = jsontext.parse_object(raw)
    unknown = next((key for key in job if key not in KEYS), None)
    if unknown is not None:
        raise InvalidInput(_unknown_key(unknown))
    if need_id and "id" not in job:
        raise InvalidInput("id: each job needs one, so that the same file can be sent again")
    payload = b"null"
    if job.get("payload") is not None:
        payload = jsontext.check(jsontext.member(raw, "payload"), payload_bytes_max, "payload")
    for key, value in job.items():
        if value is None and key != "payload":
            raise InvalidInput(f"{key}: null is not allowed; leave the key out")
    delay, run_at, backoff = job.get("delay"), job.get("run_at"), job.get("backoff")
    return build_request(
        job.get("task", TASK_DEFAULT),
        payload,
        job_id=job.get("id"),
        queue=job.get("queue"),
        priority=job.get("priority"),
        run_at_ms=None if run_at is None else parse_time_ms(run_at, "run_at"),
        delay_ms=None if delay is None else parse_duration_ms(delay, "delay"),
        timeout_ms=job.get("timeout_ms"),
        max_attempts=job.get("max_attempts"),
        backoff=None if backoff is None else backoff_from_json(backoff),
        tags=check_tags(job.get("tags", ())),
    )


def _unknown_key(key: str) -> str:
    if key in _LATER_KEYS:
        return f"{key}: this option is not available yet"
    from difflib import get_close_matches

    near = get_close_matches(key, KEYS, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(KEYS)}"
    return f"{key!r:.80}: unknown key{hint}"


def request_to_json(request: Request) -> bytes:
    """Returns a request as one line of a job file; reading it gives an equal request."""
    options = _decode_options(request.options)
    job: dict[str, Any] = {"id": request.id, "task": options.task}
    for name in ("queue", "priority", "timeout_ms", "max_attempts"):
        if (value := getattr(options, name)) is not None:
            job[name] = value
    if options.backoff is not None:
        job["backoff"] = backoff_to_json(options.backoff)
    if request.run_at_ms:
        job["run_at"] = request.run_at_ms
    if request.delay_ms:
        job["delay"] = f"{request.delay_ms}ms"
    if request.tags:
        job["tags"] = request.tags
    job["payload"] = msgspec.Raw(request.payload)
    return msgspec.json.encode(job)


def request_bytes(request: Request) -> int:
    """Returns about how many bytes a request takes in a commit."""
    tags = sum(map(len, request.tags))
    return len(request.id) + len(request.options) + len(request.payload) + tags + _OVERHEAD_BYTES
