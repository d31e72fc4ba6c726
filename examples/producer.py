"""A producer: reads lines, enqueues a job for each, and can be run again after any failure.

    cat addresses.txt | python producer.py data

It imports no code of the jobs, only their name.  Ids are made from the content, so what was
enqueued already is left alone: after a crash or a lost answer, simply run it again.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice

from beaver import Beaver, QueueFull, ServerGone, StoreUnavailable

BATCH = 500
"""Jobs of one commit."""
TRIES = 5


def main(arguments: list[str]) -> int:
    """Enqueues a job for each line of standard input."""
    app = Beaver(arguments[0] if arguments else None)
    created = existing = 0
    for lines in batches(line.strip() for line in sys.stdin):
        requests = [
            app.request("echo", {"to": line}, id=identity(line), queue="mail", tags=["import"])
            for line in lines
        ]
        for handle in patiently(app, requests):
            created += handle.created
            existing += not handle.created
    print(f"jobs enqueued: {created}, there already: {existing}")
    return 0


def batches(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yields the lines that hold something, in batches, each line once a batch."""
    rest = filter(None, lines)
    while batch := list(dict.fromkeys(islice(rest, BATCH))):
        yield batch


def identity(line: str) -> str:
    """Returns the same id for the same line, whenever it is asked."""
    return f"mail-{hashlib.sha256(line.encode()).hexdigest()[:16]}"


def patiently(app: Beaver, requests: list) -> list:
    """Enqueues one commit; where that fails for a reason that passes, tries again."""
    for attempt in range(1, TRIES + 1):
        try:
            return app.enqueue_many(requests)
        except (ServerGone, StoreUnavailable, QueueFull) as error:
            # The outcome may be unknown.  The ids make sending the same again safe.
            if attempt == TRIES:
                raise
            print(f"attempt {attempt}: {error}", file=sys.stderr)
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
