"""A remote worker as a program of its own: HTTP through whatever lies between, and two accounts.

    python -m beaver_chaos.program.remote_worker URL NAME CAPACITY DIRECTORY

It sends each request again until it gets an answer, names what it runs in its heartbeats, adopts it
after the server has gone, and never drops an outcome.  What it ran (`runs`, as `beaver audit
--workers` reads it) and what its calls came to (`calls`) are lines that it appends to files.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from typing import Any, Final

TRIES_MAX: Final = 6
"""Times that one call is sent before it counts as failed."""
TIMEOUT_S: Final = 5.0
WAIT_MS: Final = 500
TASK: Final = "remote"


class Worker:
    """One process."""

    def __init__(self, url: str, name: str, capacity: int, directory: str, token: str) -> None:
        self._host, _, self._port = url.removeprefix("http://").rpartition(":")
        self._name, self._capacity, self._token = name, capacity, token
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._runs = os.open(f"{directory}/runs", flags, 0o600)
        self._calls = os.open(f"{directory}/calls", flags, 0o600)
        self._running: set[int] = set()
        self._registering = threading.Lock()
        self._worker, self._pause_s = 0, 1.0

    def run(self) -> None:
        """Works until it is killed."""
        self._register(0)
        threading.Thread(target=self._beat, daemon=True).start()
        while True:
            room = self._capacity - len(self._running)
            if not room:
                time.sleep(0.005)
                continue
            me = self._worker
            status, told = self._call(f"/v1/workers/{me}/pull", {"max": room, "wait_ms": WAIT_MS})
            if status == 404:
                self._register(me)
            for attempt in told.get("attempts", ()):
                self._running.add(attempt["token"])
                threading.Thread(target=self._work, args=(attempt,), daemon=True).start()

    def _register(self, known: int) -> None:
        """Registers, unless another thread has; takes along what runs."""
        with self._registering:
            if self._worker != known:
                return
            body = {"name": self._name, "tasks": [TASK], "capacity": self._capacity}
            while (answer := self._call("/v1/workers", body))[0] != 201:
                time.sleep(0.1)
            told = answer[1]
            self._call(f"/v1/workers/{told['worker']}/heartbeat", {"running": [*self._running]})
            self._worker, self._pause_s = told["worker"], told["heartbeat_ms"] / 1000

    def _beat(self) -> None:
        while True:
            time.sleep(self._pause_s)
            me = self._worker
            body = {"running": [*self._running]}
            if self._call(f"/v1/workers/{me}/heartbeat", body)[0] == 404:
                self._register(me)

    def _work(self, attempt: dict[str, Any]) -> None:
        token, job, payload = attempt["token"], attempt["job"], attempt["payload"]
        self._note(self._runs, {"began": token, "job": job, "pid": os.getpid()})
        time.sleep(payload["ms"] / 1000)
        fails = attempt["attempt"] <= payload.get("fail", 0)
        kind, body = ("fail", {"error": "no"}) if fails else ("ack", {"result": {"job": job}})
        self._note(self._runs, {"ended": token, "job": job, "pid": os.getpid()})
        while self._call(f"/v1/attempts/{token}/{kind}", body)[0] not in (200, 409):
            time.sleep(0.1)
        self._running.discard(token)

    def _call(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Returns status and answer; 0 where no answer came however often it was asked."""
        status, told = 0, dict[str, Any]()
        for tries in range(1, TRIES_MAX + 1):
            status, told = self._try(path, body)
            if 0 < status < 500 and status != 429:
                break
            time.sleep(0.05 * 2**tries)
        self._note(self._calls, {"status": status, "tries": tries, "worker": self._name})
        return status, told

    def _try(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection(self._host, int(self._port), timeout=TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, HTTPException, ValueError):
            return 0, {}
        finally:
            connection.close()

    def _note(self, file: int, line: dict[str, Any]) -> None:
        """Appends a line in one write, so that lines of several processes do not mix."""
        os.write(file, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    Worker(
        sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], os.environ["BEAVER_TOKEN"]
    ).run()
