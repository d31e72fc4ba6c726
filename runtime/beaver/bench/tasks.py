"""The application of the benchmark: jobs that do next to nothing."""

import time

from beaver import Beaver

app = Beaver("unused")


@app.job(name="bench.nothing")
def nothing() -> None:
    """Does nothing, so that only the queue is measured."""


@app.job(name="bench.started")
def started() -> int:
    """Returns when it started, on the clock that all processes of a machine share."""
    return time.monotonic_ns()
