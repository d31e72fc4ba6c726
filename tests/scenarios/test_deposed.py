"""A server that is deposed discards all that it holds, recovers, and goes on: it does not end."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.program import beaver, enqueue, events, eventually, run_beaver, serving, status

DEPOSED_ONCE = """
import asyncio, os
from beaver.journal.wal import log
from beaver.journal.port import Deposed
from beaver.server.assembly import Assembly

stop_pools = Assembly._stop_pools

async def stop_pools_slowly(self):
    await asyncio.sleep(1.2)  # Longer than a beat of housekeeping.
    await stop_pools(self)

Assembly._stop_pools = stop_pools_slowly

append, mark = log.Wal.append, {mark!r}

def deposed_once(self, after, payload, count, done):
    if b"depose-me" in payload and not os.path.exists(mark):
        open(mark, "w").close()
        done(Deposed("a rival has appended"))
    else:
        append(self, after, payload, count, done)

log.Wal.append = deposed_once
"""


def test_a_deposed_server_recovers_and_serves_on(tmp_path: Path) -> None:
    """What was acknowledged is there; what it had applied and not written is not, and is safe to
    send again; what ran is charged as after any other loss of a server.
    """
    data, patch, mark = tmp_path / "data", tmp_path / "patch", tmp_path / "deposed"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(DEPOSED_ONCE.format(mark=str(mark)))
    path = os.pathsep.join([str(patch), *filter(None, [os.environ.get("PYTHONPATH")])])
    with serving(data, "--workers", "2", "--grace", "1s", PYTHONPATH=path) as server:
        pid = server.process.pid
        enqueue(data, {"id": "before"}, {"id": "long", "payload": {"sleep_ms": 120_000}})
        eventually(lambda: status(data)["completed"] == 1, "the first job has ended")
        eventually(lambda: status(data)["in_flight"] == 1, "the long one runs")
        first = run_beaver("enqueue", "--data", str(data), "--id", "depose-me", "echo")
        assert mark.exists()
        if first.returncode:
            assert first.returncode == 3, first.stderr
            beaver("enqueue", "--data", str(data), "--id", "depose-me", "echo")
        server.drained(2)
        assert server.process.pid == pid
        assert server.process.poll() is None
        assert os.path.exists(f"/proc/{pid}")
        told = events(data)
    assert [event["event"] for event in told].count("BOOT") == 2
    acked = sorted(event["job"] for event in told if event["event"] == "ACK")
    assert acked == ["before", "depose-me"]
    lost = [event for event in told if event.get("cause") == "node_lost"]
    assert [event["job"] for event in lost] == ["long"]
    assert [event["job"] for event in told if event["event"] == "ENQUEUE"].count("depose-me") == 1
