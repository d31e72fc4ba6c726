"""A peer's worker process: `python -m beaver.bench.peers.work NAME ADDRESS QUEUE`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from beaver.bench.peers import catalogue
from beaver.bench.peers.base import GO_VARIABLE, START_S


def wait_for_start() -> None:
    """Waits until all workers may start, so that none has a lead."""
    path = os.environ.get(GO_VARIABLE)
    deadline_s = time.monotonic() + START_S
    while path and not Path(path).exists() and time.monotonic() < deadline_s:
        time.sleep(0.001)


def main(name: str, address: str, queue: str) -> None:
    """Runs a worker until the process is ended."""
    peer = catalogue.PEERS[name]
    peer.preload()
    wait_for_start()
    peer.work(address, queue)


if __name__ == "__main__":
    main(*sys.argv[1:])
