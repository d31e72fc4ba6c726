"""Starts clients as programs of their own (`sender_program`) and adds up what they did.

Eight clients are eight processes, each with an interpreter of its own, whatever the queue: so
do the producers of a web server come.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from typing import IO, Final

from beaver.bench.subject import LoopBudget, Sent
from beaver.errors import BeaverError

_PROGRAM: Final = "beaver.bench.sender_program"

BARE: Final = "bare"
"""The name of a client that does nothing but ask and wait (see `bare`)."""


def send_with_processes(
    name: str,
    where: str,
    queue: str,
    clients: int,
    budget: LoopBudget,
    *,
    program: str = _PROGRAM,
) -> Sent:
    """Lets so many processes of a program send, each with a connection of its own, at once.

    Their rates are added up: each counts its own time, from its first call to its last answer.
    """
    each = LoopBudget(max(1, budget.jobs // clients), budget.seconds)
    command = [sys.executable, "-m", program, name, where, queue, str(each.jobs)]
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
