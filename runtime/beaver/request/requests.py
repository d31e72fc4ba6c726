"""Requests: what a producer sends for one job, made, checked, and turned into the model's.

Every rule on the content of a job stands here, whichever way it comes in: from Python
(`make_request`), as JSON (`request_from_json`), or over a socket (`Resolver.job`, which trusts no
client and fills in what a request leaves open: see `resolving`).

What makes it one is a `templates.Template`, which also takes its digest.

What may not live here: connections, the log, the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, Unpack

import msgspec

from beaver.errors import InvalidInput
from beaver.request.job_options import DeclaredOptions, Duration
from beaver.request.options import (
    backoff_from_json,
    backoff_from_python,
    backoff_to_json,
    check_range,
    check_tags,
)
from beaver.request.plain import plain_request
from beaver.request.templates import Template
from beaver.structs.messages import Backoff, Options, Request
from beaver.text import jsontext
from beaver.text.durations import parse_duration_ms, parse_time_ms
from beaver.text.names import check_id
from beaver.text.near import unknown_name
from beaver_model.bounds import PAYLOAD_BYTES_CEILING, PAYLOAD_BYTES_MAX, TIME_MS_MAX

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
OVERHEAD_BYTES: Final = 48
"""Bytes of an ENQUEUE event beside those of its request."""
_decode_options: Final = msgspec.msgpack.Decoder(Options).decode


# -- making requests ----------------------------------------------------------------------


class Given(DeclaredOptions, total=False):
    """Options of a job by the names that JSON has; what they mean stands in `make_template`."""

    id: str | None
    run_at: datetime | str | int | None
    delay: Duration | None
    tags: Sequence[str]


class GivenMs(TypedDict, total=False):
    """The same in ms, as JSON gives them."""

    job_id: str | None
    queue: str | None
    priority: int | None
    run_at_ms: int | None
    delay_ms: int | None
    timeout_ms: int | None
    max_attempts: int | None
    backoff: Backoff | None
    tags: Sequence[str]


def make_request(
    task: str,
    payload: Any = None,
    *,
    payload_bytes_max: int = PAYLOAD_BYTES_CEILING,
    **options: Unpack[Given],
) -> Request:
    """Returns a checked request for one job.

    Args:
        task: Name of the task.
        payload: Any JSON value; tuples become arrays.
        payload_bytes_max: Bound on the JSON of the payload: what could be set at most, since
            whoever takes it in (server or files) knows what is set.
        **options: As those of `make_template`.

    Raises:
        InvalidInput: A value is wrong; the message names it.
    """
    return make_template(task, **options).fill(payload, payload_bytes_max)


def make_template(
    task: str,
    *,
    id: str | None = None,  # noqa: A002 - the key's name in every surface
    queue: str | None = None,
    priority: int | None = None,
    run_at: datetime | str | int | None = None,
    delay: Duration | None = None,
    timeout: Duration | None = None,
    max_attempts: int | None = None,
    backoff: Backoff | Mapping[str, Any] | timedelta | str | None = None,
    tags: Sequence[str] = (),
) -> Template:
    """Returns what jobs with these options have in common.

    Args:
        task: Name of the task.
        id: Identity of the job; a UUIDv7 is drawn where there is none.
        queue: Name of its queue.
        priority: 0 (first) to 9 (last).
        run_at: Not before this time: a `datetime` with a zone, ISO 8601, or ms since the epoch.
        delay: Least time between enqueueing and start: a number of seconds, `"5m"`, or a
            `timedelta`.
        timeout: Limit of one attempt, from the start of user code.
        max_attempts: Attempts, the first included.
        backoff: A fixed wait between attempts (`"5s"`, a `timedelta`), or a mapping as in a job
            file (`{"kind": "exponential", "base_ms": 1000, ...}`).
        tags: Up to 16 words to find it by.

    Raises:
        InvalidInput: A value is wrong; the message names it.
    """
    return build_template(
        task,
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


def build_request(task: str, payload: bytes, **options: Unpack[GivenMs]) -> Request:
    """Returns a request from values in ms and a payload that `jsontext` has checked.

    Raises:
        InvalidInput: A value is wrong; the message names it.
    """
    return build_template(task, **options).request(payload, jsontext.canonical_of(payload))


def build_template(
    task: str,
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
) -> Template:
    """Returns a template from values in ms.

    Raises:
        InvalidInput: A value is wrong; the message names it.
    """
    if delay_ms is not None and run_at_ms is not None:
        raise InvalidInput("run_at and delay: only one of them may be given")
    if delay_ms is not None:
        check_range("delay", delay_ms, 0, TIME_MS_MAX, "ms")
    return Template(
        (task, queue, priority, timeout_ms, max_attempts, backoff),
        None if job_id is None else check_id(job_id),
        run_at_ms,
        delay_ms,
        check_tags(tags) if tags else (),
    )


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
        need_id: Requires an id; otherwise one is drawn where it is missing.

    Raises:
        InvalidInput: The text is no such object; the message names `where` and the key.
    """
    plain = plain_request(raw, payload_bytes_max, need_id, TASK_DEFAULT)
    if plain is not None:
        return plain
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
    hint = unknown_name(key, KEYS) or f"; known are {', '.join(KEYS)}"
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
    size = len(request.id) + len(request.options) + len(request.payload) + OVERHEAD_BYTES
    return size + sum([len(tag.encode()) for tag in request.tags]) if request.tags else size
