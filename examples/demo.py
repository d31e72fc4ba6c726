"""The demo: jobs in a queue, `kill -9` in the middle, a restart, and a proof from the log.

It runs the program as a user would, and believes nothing but the log: at the end each job
must have exactly one ENQUEUE and exactly one ACK in `beaver replay --json`.  It exits with
1 if a job was lost or completed twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

BEAVER = [sys.executable, "-m", "beaver"]
WORKERS = 4
SLOW_JOBS = 60
KILL_AFTER_S = 3.0
WAIT_S = 60.0


def main() -> int:
    """Runs the demo in a temporary directory; returns 0 if every job completed exactly once."""
    with tempfile.TemporaryDirectory(prefix="beaver-demo-") as scratch:
        data, jobs_file = Path(scratch, "data"), Path(scratch, "jobs.json")
        jobs = [
            {"id": "task-001", "payload": {"value": 42}},
            {"id": "task-002", "payload": {"value": 100}},
            *({"id": f"slow-{n:03d}", "payload": {"sleep_ms": 250}} for n in range(SLOW_JOBS)),
        ]
        jobs_file.write_text(json.dumps(jobs))

        say(f"1. start a queue with {WORKERS} workers")
        server = start(data)
        say(f"2. enqueue a file of {len(jobs)} jobs: one commit, synced before it says so")
        beaver("enqueue", "--file", str(jobs_file), "--data", str(data))
        say(f"3. let it work for {KILL_AFTER_S:g} s, then kill -9 the server")
        time.sleep(KILL_AFTER_S)
        server.send_signal(signal.SIGKILL)
        server.wait()
        before = status(data)
        say(f"   from its files: {before['completed']} completed, {before['pending']} pending, "
            f"{before['in_flight']} were running")  # fmt: skip
        say("4. start it again: it recovers, and what was running runs again")
        server = start(data)
        finished = wait_for(data, len(jobs))
        after = status(data)
        say(f"   recovered in {after['recovery_ms']:.0f} ms; {after['completed']} completed")
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=WAIT_S)
        say("5. ask the log")
        return judge(data, [job["id"] for job in jobs], finished)


def say(text: str) -> None:
    """Prints a step."""
    print(text, flush=True)


def beaver(*arguments: str) -> str:
    """Runs a command and returns what it printed; its failure ends the demo."""
    done = subprocess.run([*BEAVER, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"beaver {' '.join(arguments)} exited with {done.returncode}:\n{done.stderr}")
    return done.stdout


def start(data: Path) -> subprocess.Popen[str]:
    """Starts a server and returns once it says that it is ready."""
    command = [*BEAVER, "run", "--data", str(data), "--workers", str(WORKERS), "--http", "off"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        sys.exit(f"the server did not start (exit code {server.wait()})")
    say(f"   {line.rstrip()}")
    return server


def status(data: Path) -> dict[str, float]:
    """Returns what `beaver status --json` says."""
    figures: dict[str, float] = json.loads(beaver("status", "--json", "--data", str(data)))
    return figures


def wait_for(data: Path, count: int) -> bool:
    """Waits until `count` jobs have completed; False where they do not in time."""
    deadline = time.monotonic() + WAIT_S
    while status(data)["completed"] < count:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def judge(data: Path, ids: list[str], finished: bool) -> int:
    """Counts the events of each job in the log and says what they prove."""
    enqueued, acked, attempts = Counter[str](), Counter[str](), Counter[str]()
    for line in beaver("replay", str(data), "--json").splitlines():
        event = json.loads(line)
        counter = {"ENQUEUE": enqueued, "ACK": acked, "DISPATCH": attempts}.get(event["event"])
        if counter is not None:
            counter[event["job"]] += 1
    lost = [job for job in ids if enqueued[job] != 1 or acked[job] < 1]
    twice = [job for job in ids if acked[job] > 1]
    again = sum(attempts[job] > 1 for job in ids)
    say(f"   {len(ids)} jobs, {sum(acked.values())} completions, "
        f"{again} jobs were started again after the kill")  # fmt: skip
    if lost or twice or not finished:
        say(f"   FAILED: lost {lost}, completed twice {twice}, all ended in time: {finished}")
        return 1
    say("   no job was lost, and none completed twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
