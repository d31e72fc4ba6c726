"""Clients as programs of their own: `python -m beaver.bench.senders NAME WHERE QUEUE JOBS SECONDS`.

Each loads what it needs, says `ready`, waits for a line, enqueues one job after the other, and
says as JSON what it did.  So eight clients are eight processes, each with an interpreter of its
own, whatever the queue: that is how producers of a web server come.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import IO, Final

from beaver.bench.rows import API
from beaver.bench.subject import Budget, Sent
from beaver.errors import BeaverError

BARE: Final = "bare"
"""The name of a client that does nothing but ask and wait (see `bare`)."""


def send_with_processes(name: str, where: str, queue: str, clients: int, budget: Budget) -> Sent:
    """Lets so many processes send, each with a connection of its own, at once.

    Their rates are added up: each counts its own time, from its first call to its last answer.
    """
    each = Budget(max(1, budget.jobs // clients), budget.seconds)
    command = [sys.executable, "-m", __name__, name, where, queue, str(each.jobs)]
    command.append(str(each.seconds))
    with ExitStack() as stack:
        started = []
        for _ in range(clients):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(process)  # Its pipes are closed at the end, once it is killed.
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            if _line(process.stdout) != "ready":
                raise BeaverError(f"a client of {name} did not start")
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(_line(process.stdout) or "{}") for process in started]
    if not all(found):
        raise BeaverError(f"a client of {name} ended before it was done")
    jobs = sum(one["jobs"] for one in found)
    rate = sum(one["jobs"] / one["seconds"] for one in found)
    times = [value for one in found for value in one["times_s"]]
    return Sent(jobs, jobs / rate, times, {}, sum(one["used_s"] for one in found))


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def main(name: str, where: str, queue: str, jobs: str, seconds: str) -> None:
    """Runs one client."""
    budget = Budget(int(jobs), float(seconds))
    if name == API:
        from beaver.bench.documented import send_alone

        def work(budget: Budget) -> Sent:
            return send_alone(where, queue, 1, budget)

    elif name == BARE:
        from beaver.bench.bare import send_bare

        def work(budget: Budget) -> Sent:
            return send_bare(where, budget)

    else:
        from beaver.bench.peers.catalogue import PEERS

        peer = PEERS[name]("")
        peer.preload()
        peer.address = where

        def work(budget: Budget) -> Sent:
            return peer.send_loop(queue, 1, 1, budget)

    work(Budget(1, budget.seconds))  # Code is loaded, and whoever connects late is connected.
    print("ready", flush=True)  # noqa: T201 - to the program that started this one
    sys.stdin.readline()
    before_s = time.process_time()
    sent = work(budget)
    found = {"jobs": sent.jobs, "seconds": sent.seconds, "times_s": sent.times_s}
    found["used_s"] = time.process_time() - before_s
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
