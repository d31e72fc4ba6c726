"""The application of the benchmark: jobs that do next to nothing."""

import time

from beaver import Beaver
from beaver.bench.records import write_record

app = Beaver("unused")


@app.job(name="bench.record")
def record(n: int, note: str) -> None:
    """Appends one record: what every measured queue does."""
    write_record(n)


@app.job(name="bench.nothing")
def nothing() -> None:
    """Does nothing, so that only the queue is measured."""


@app.job(name="bench.sleep", timeout="1h")
def sleep(seconds: float) -> None:
    """Keeps its worker busy."""
    time.sleep(seconds)
