"""Requests for new jobs as they are received: counted and bounded, then decoded.

These are by far the most frequent requests, so nothing is examined twice, and what surely fits is
not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from beaver.errors import InvalidInput
from beaver.limits import hint
from beaver.request.operations import ENQUEUE
from beaver.request.requests import OVERHEAD_BYTES, request_bytes
from beaver.structs.messages import Request
from beaver.text.foreign import counted
from beaver_model.bounds import BATCH_BYTES_MAX, BATCH_JOBS_MAX


def read_requests(body: Any) -> list[Request]:
    """Returns the jobs that the body of an `enqueue` asks for.

    Raises:
        InvalidInput: They are too many or too large for one commit, or no requests.
    """
    if type(body) is msgspec.Raw and len(body) <= BATCH_JOBS_MAX:
        few: list[Request] = ENQUEUE.arguments(body).jobs  # Each takes a byte at least.
        return few
    count = _batch_jobs(body)
    if count > BATCH_JOBS_MAX:
        # Before they are made: of a few bytes each, millions fit into one frame.
        raise InvalidInput(
            f"{counted(count, 'job')} in one commit; at most {BATCH_JOBS_MAX} fit; "
            f"{hint('batch_jobs')}"
        )
    requests: list[Request] = ENQUEUE.arguments(body).jobs
    if (
        type(body) is not msgspec.Raw
        or len(body) + OVERHEAD_BYTES * len(requests) > BATCH_BYTES_MAX
    ):
        check_bytes(requests)
    return requests


def check_bytes(requests: Sequence[Request]) -> None:
    """Checks that requests fit into one commit.

    Raises:
        InvalidInput: They do not.
    """
    size = sum(map(request_bytes, requests)) if len(requests) > 1 else 0
    if size > BATCH_BYTES_MAX:
        raise InvalidInput(
            f"jobs of {size} bytes in one commit; at most {BATCH_BYTES_MAX} fit; "
            f"{hint('batch_bytes')}"
        )


def _batch_jobs(body: Any) -> int:
    """Returns how many jobs an `enqueue` announces, where that may be too many."""
    if type(body) is not msgspec.Raw:
        return len(body[0]) if body and isinstance(body, list) and isinstance(body[0], list) else 0
    head = bytes(memoryview(body)[:6])
    width = {b"\x91\xdc": 2, b"\x91\xdd": 4}.get(head[:2], 0)
    return int.from_bytes(head[2 : 2 + width], "big")
