"""A server that starts a pool, has it run one job, and waits to be killed.

Usage: server_process.py MARK SLOTS TASK PAYLOAD_JSON READY_FILE
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from beaver.structs.messages import Attempt
from beaver.workers.pool import ProcessPool
from beaver.workers.pool_options import PoolOptions
from tests.worlds.workers import Recorder, until


async def main() -> None:
    mark, slots, task, payload, ready = sys.argv[1:6]
    pool = ProcessPool(PoolOptions(workers=2, mark=mark, app="jobs:registry"))
    events = Recorder()
    await pool.start(events)
    pool.claim(pool.options.mark)
    pool.attach(slots, 0)
    pool.add(1)
    pool.add(2)
    await until(lambda: len(events.pids) == 2)
    assert pool._zygote is not None
    attempt = Attempt(77, "j", task, payload.encode(), 1, 5, "default", 0, "k", 0)
    pool.dispatch(1, [attempt])
    workers = list(events.pids.values())
    tell(ready, {"server": os.getpid(), "zygote": pool._zygote.pid, "workers": workers})
    await asyncio.Event().wait()


def tell(path: str, pids: dict[str, Any]) -> None:
    Path(path + ".new").write_bytes(msgspec.json.encode(pids))
    Path(path + ".new").rename(path)


if __name__ == "__main__":
    asyncio.run(main())
