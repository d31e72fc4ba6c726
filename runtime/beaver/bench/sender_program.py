"""One client as a program: `python -m beaver.bench.sender_program NAME WHERE QUEUE JOBS SECONDS`.

It loads what it needs, prints `ready`, waits for a line, enqueues one job after the other, and
prints as JSON what it did.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from beaver.bench.rows import API
from beaver.bench.senders import BARE
from beaver.bench.subject import LoopBudget, Sent


def main(name: str, where: str, queue: str, jobs: str, seconds: str) -> None:
    """Runs one client."""
    budget = LoopBudget(int(jobs), float(seconds))
    if name == API:
        from beaver.bench.documented import send_alone

        def work(budget: LoopBudget) -> Sent:
            return send_alone(where, queue, 1, budget)

    elif name == BARE:
        from beaver.bench.bare import send_bare

        def work(budget: LoopBudget) -> Sent:
            return send_bare(where, budget)

    else:
        from beaver.bench.peers.catalogue import PEERS

        peer = PEERS[name]("")
        peer.preload()
        peer.address = where

        def work(budget: LoopBudget) -> Sent:
            return peer.send_loop(queue, 1, 1, budget)

    follow(work, budget)


def follow(work: Callable[[LoopBudget], Sent], budget: LoopBudget, warm: int = 1) -> None:
    """Does a client's work when it is told to, and prints what it did."""
    work(LoopBudget(warm, budget.seconds))  # Code is loaded, and who connects late is connected.
    print("ready", flush=True)  # noqa: T201 - to the program that started this one
    sys.stdin.readline()
    before_s = time.process_time()
    sent = work(budget)
    found = {"jobs": sent.jobs, "seconds": sent.seconds, "times_s": sent.times_s}
    found["used_s"] = time.process_time() - before_s
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
