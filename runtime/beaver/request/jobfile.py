"""Job files: a JSON array of jobs, or JSON lines, read once and checked whole.

Lines are read one at a time, so a file of any size can be sent in chunks.  An array is read
whole, since JSON has no other way.  Whatever is wrong is refused with the index of the job
(from 0) or its line (from 1), and the key.

What may not live here: sending.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import msgspec

from beaver.errors import InvalidInput
from beaver.limits import hint
from beaver.request.requests import request_bytes, request_from_json, request_to_json
from beaver.structs.messages import Request
from beaver.system.regular import create_regular
from beaver.text import jsontext
from beaver_model.bounds import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    PAYLOAD_BYTES_MAX,
    PAYLOAD_DEPTH_MAX,
)

ARRAY_BYTES_MAX: Final = 1 << 30
"""A longer array is refused: JSON lines take any number of jobs."""

LINE_SLACK_BYTES: Final = 1 << 20
"""Bytes that a line may hold beside its payload."""

CHUNK_JOBS: Final = 2_000
CHUNK_BYTES: Final = 1 << 20
"""Bytes of one chunk.  A chunk is one commit, and far below its bound, so that others get their
turn."""

_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = b" \t\r\n"
_decode_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_requests(
    stream: BinaryIO,
    *,
    payload_bytes_max: int = PAYLOAD_BYTES_MAX,
    need_ids: bool = False,
) -> Iterator[Request]:
    """Yields a checked request for each job of a file.

    Args:
        stream: The file, at its beginning; it is read once, from front to back.
        payload_bytes_max: Bound on the JSON of one payload.
        need_ids: Refuses a job without an id, as sending in chunks must.

    Raises:
        InvalidInput: A job is wrong, or an id stands twice; the message names it.
    """
    seen: set[str] = set()
    for where, raw in _read_jobs(stream, payload_bytes_max + LINE_SLACK_BYTES):
        request = request_from_json(
            raw, where=where, payload_bytes_max=payload_bytes_max, need_id=need_ids
        )
        if request.id in seen:
            raise InvalidInput(f"{where}: id: {request.id!r} stands twice in this file")
        seen.add(request.id)
        yield request


def _read_jobs(stream: BinaryIO, line_bytes_max: int) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the JSON text of each job."""
    number, start = 0, b""
    while not start:
        line = stream.readline(line_bytes_max + 1)
        number += 1
        if not line:
            return
        if number == 1:
            line = line.removeprefix(_BOM)
        start = line.strip(_SPACE)
    if start.startswith(b"["):
        yield from _array_jobs(line + _read_rest(stream), number - 1)
        return
    while line:
        if len(line) > line_bytes_max:
            raise InvalidInput(
                f"line {number}: longer than {line_bytes_max} bytes, of which its payload may "
                f"have {line_bytes_max - LINE_SLACK_BYTES}; {hint('payload')}"
            )
        if text := line.strip(_SPACE):
            yield f"line {number}", text
        line = stream.readline(line_bytes_max + 1)
        number += 1


def _read_rest(stream: BinaryIO) -> bytes:
    rest = stream.read(ARRAY_BYTES_MAX + 1)
    if len(rest) > ARRAY_BYTES_MAX:
        raise InvalidInput(
            f"an array of more than {ARRAY_BYTES_MAX} bytes; write one job a line instead"
        )
    return rest


def _array_jobs(text: bytes, lines_before: int) -> Iterator[tuple[str, bytes]]:
    try:
        jobs = _decode_array(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(_what_is_wrong(text, lines_before, error)) from None
    for index, raw in enumerate(jobs):
        yield f"index {index}", bytes(raw)


def _what_is_wrong(text: bytes, lines_before: int, error: Exception) -> str:
    """Finds the first job of an array that is not JSON, and says where and why."""
    document = text.decode("utf-8", "surrogateescape")
    # Loosely: what is no JSON in a single value is told by the strict reader, with its key.
    read = json.JSONDecoder(parse_constant=str, parse_int=len).raw_decode
    index, position, more = 0, _skip_space(document, document.index("[") + 1), True
    try:
        while more:
            start = position
            _, position = read(document, position)
            job = document[start:position].encode("utf-8", "surrogateescape")
            jsontext.check(job, len(job), "")
            position, more = _next_job(document, position)
            index += more
    except InvalidInput as wrong:
        return f"index {index}: {wrong}"
    except json.JSONDecodeError as wrong:
        line = wrong.lineno + lines_before
        return f"index {index}: not JSON: {wrong.msg} at line {line} column {wrong.colno}"
    except RecursionError:
        return f"index {index}: nested deeper than {PAYLOAD_DEPTH_MAX}"
    return f"not JSON: {error}"


def _next_job(document: str, position: int) -> tuple[int, bool]:
    """Steps over the comma behind a job; False where the array ends as it should."""
    position = _skip_space(document, position)
    mark = document[position : position + 1]
    if mark == ",":
        return _skip_space(document, position + 1), True
    if mark != "]":
        raise json.JSONDecodeError("Expecting ',' or ']'", document, position)
    position = _skip_space(document, position + 1)
    if position < len(document):
        raise json.JSONDecodeError("More text after the array", document, position)
    return position, False


def _skip_space(document: str, position: int) -> int:
    while position < len(document) and document[position] in " \t\r\n":
        position += 1
    return position


# -- commits ------------------------------------------------------------------------------


def one_commit(requests: Iterable[Request]) -> list[Request]:
    """Returns all requests, which must fit into one commit.

    Raises:
        InvalidInput: They do not; nothing beyond the bound is read.
    """
    batch: list[Request] = []
    size = 0
    for request in requests:
        batch.append(request)
        size += request_bytes(request)
        if len(batch) > BATCH_JOBS_MAX or (size > BATCH_BYTES_MAX and len(batch) > 1):
            raise InvalidInput(
                f"more than {BATCH_JOBS_MAX} jobs or {BATCH_BYTES_MAX >> 20} MiB do not fit into "
                "one commit; nothing was enqueued\n"
                "Give every job an id and use --chunked, which can be sent again."
            )
    return batch


def chunks(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Yields the requests in batches, each to be one commit."""
    batch: list[Request] = []
    size = 0
    for request in requests:
        added = request_bytes(request)
        if batch and (len(batch) >= CHUNK_JOBS or size + added > CHUNK_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += added
    if batch:
        yield batch


def write_requests(path: str, requests: Iterable[Request]) -> None:
    """Writes requests as JSON lines to a new or emptied file, private to its owner (0600).

    Raises:
        OSError: It cannot be written.
    """
    with create_regular(path) as file:
        for request in requests:
            file.write(request_to_json(request) + b"\n")


def retry_path(path: str) -> str:
    """Returns the path for requests of a job file whose outcome is not known."""
    return f"{path}.retry.jsonl"
