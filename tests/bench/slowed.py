"""A server that spends longer on each event: `python -m tests.bench.slowed US run --data ...`.

With it the tests show that they would notice.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from beaver.bench.sampler import config_of
from beaver.engine.engine import Engine
from beaver.server.serve import run


def slow_down(event_us: float) -> Any:
    """Makes every engine from now on burn so much of the processor for each event it commits.

    Returns:
        What `Engine.__init__` was.
    """
    original = Engine.__init__

    def burn(first_seq: int, now_ms: int, events: Sequence[object]) -> None:
        end_s = time.thread_time() + len(events) * event_us / 1e6
        while time.thread_time() < end_s:
            pass

    def __init__(self: Engine, *args: Any, **options: Any) -> None:  # noqa: N807
        original(self, *args, **options)
        self.observers.append(burn)

    Engine.__init__ = __init__  # type: ignore[method-assign]
    return original


if __name__ == "__main__":
    slow_down(float(sys.argv[1]))
    sys.exit(run(config_of(sys.argv[3:])))
