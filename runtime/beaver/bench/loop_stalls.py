"""How long the server's event loop is blocked by commits of the sizes that are promised.

Measured by the server itself: the longest time for which its event loop was blocked, since it
was ready.  A sync that a busy disk delays is part of it, as it is for whoever waits.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from beaver.bench.records import FIRST_NUMBER, payload
from beaver.bench.served import serving
from beaver.client.blocking import Client, connect
from beaver.errors import BeaverError
from beaver.request.requests import make_request
from beaver.structs.messages import Request
from beaver_model.bounds import BATCH_BYTES_MAX, BATCH_JOBS_MAX

ROWS: Final = ("stall_usual", "stall_drain", "stall_limit")
QUEUE: Final = "stalls"
COMMITS: Final = 10
USUAL_JOBS: Final = 1_000
USUAL_BYTES: Final = 1 << 20
_LIMITS: Final = 3
_LARGE_JOBS: Final = 12
_DRAIN_S: Final = 60.0


def measure_stalls(directory: str) -> dict[str, float]:
    """Returns the ms that the loop was blocked at most: usual commits, drained, the largest."""
    data = str(Path(directory, "stalls"))
    with serving(data) as server, connect(data) as client:
        if not client.status().longest_stall_ms:
            raise BeaverError(f"the server of {server.data} does not measure its loop")
        client.set_queue(QUEUE, True, None, None)
        size = USUAL_BYTES // USUAL_JOBS
        for _ in range(COMMITS):
            client.enqueue(_requests(USUAL_JOBS, size))
        usual = client.status().longest_stall_ms
        client.set_queue(QUEUE, False, None, None)
        _wait(client, COMMITS * USUAL_JOBS)
        drain = client.status().longest_stall_ms
        client.set_queue(QUEUE, True, None, None)
        for _ in range(_LIMITS):
            client.enqueue(_requests(BATCH_JOBS_MAX, 0))
            client.enqueue(_requests(_LARGE_JOBS, BATCH_BYTES_MAX // (_LARGE_JOBS + 1)))
        limit = client.status().longest_stall_ms
    return {"stall_usual": usual, "stall_drain": drain, "stall_limit": limit}


def _requests(count: int, size: int) -> list[Request]:
    """Returns jobs whose payloads have about `size` bytes, or the benchmark's 30."""
    numbers = range(FIRST_NUMBER, FIRST_NUMBER + count)
    if not size:
        return [make_request("bench.record", payload(n), queue=QUEUE) for n in numbers]
    note = "x" * (size - len('{"n":1000000,"note":""}'))
    return [make_request("bench.record", {"n": n, "note": note}, queue=QUEUE) for n in numbers]


def _wait(client: Client, count: int) -> None:
    deadline_s = time.monotonic() + _DRAIN_S
    while client.status().queues[QUEUE].completed < count:
        if time.monotonic() > deadline_s:
            raise BeaverError("the workers did not finish")
        time.sleep(0.05)
