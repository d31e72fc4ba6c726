"""An application whose jobs fail in each way that its operator must hear of."""

from __future__ import annotations

import os
import sys
import time

from beaver import Beaver, JobContext

app = Beaver("data")

BIDI = "\u202e"


def _card_is_refused(number: int) -> None:
    raise ValueError(f"card {number} is refused{BIDI}")


@app.job(backoff="10ms")
def charge(number: int) -> None:
    _card_is_refused(number)


@app.job(timeout="300ms", backoff="10ms")
def too_slow() -> None:
    time.sleep(60)


@app.job(backoff="10ms")
def dies() -> None:
    os._exit(3)


@app.job
def prints(line: str) -> None:
    print(line)
    sys.stderr.write(f"err {line}\n")


@app.job(timeout="1m")
def prints_much(lines: int, ctx: JobContext) -> int:
    for number in range(lines):
        print(number, "x" * 1000)
    return lines


@app.job
def waits(seconds: float) -> None:
    time.sleep(seconds)
