"""Makes the golden stores: a data directory, a backup and a target of `beaver ship` of each format.

They are made once for a version of a format and never again: what is in `stores/` was written by
the code of that time.  A new version adds a folder beside the others.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from beaver.backup.writing import back_up
from beaver.helper.work import project, take_snapshot
from beaver.inspect.listing import event_line
from beaver.journal.wal.layout import Layout
from beaver.replay.replaying import event_views
from beaver.replay.verifying import verify
from beaver.shipping.ownership import Ownership
from beaver.shipping.shipper import Shipper
from beaver.shipping.targets import DirectoryTarget
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver_model.commands import (
    Boot,
    Cancel,
    Complete,
    ConfirmCancel,
    Discard,
    Expire,
    Release,
    Requeue,
    SetBounds,
    SetQueue,
)
from beaver_model.events import Cause
from tests.worlds.model import job
from tests.worlds.stores import LoggedWorld

STORE = b"a golden store!!"
HOUR_MS = 3_600_000
SMALL = 1 << 12
"""Segments that a repository can hold."""


def make(folder: Path) -> None:
    """Makes everything of the formats as they are now in an empty folder."""
    world = LoggedWorld(folder / "data", store=STORE, segment_bytes=SMALL)
    world.now_ms = 1_700_000_000_000
    _live(world)
    world.wal.close()
    for path in (folder / "data").iterdir():
        if path.name in ("LOCK", "wal.next"):
            path.unlink()
    for path in (folder / "data" / "archive").iterdir():
        os.truncate(path, len(path.read_bytes().rstrip(b"\0")) + 64)  # Zeros say nothing.
    disk, clock = SystemDisk(), SystemClock()
    back_up(disk, world.path, str(folder / "backup.tar"), clock)
    target = DirectoryTarget(str(folder / "shipped"))
    ownership = Ownership(target, STORE.hex())
    ownership.acquire()
    Shipper(disk, world.layout, target, ownership, clock).step()
    ownership.release()
    (folder / "shipped" / ".lock").unlink(missing_ok=True)
    (folder / "expected.json").write_text(json.dumps(told(folder / "data"), indent=1) + "\n")


def _live(world: LoggedWorld) -> None:
    """A life in which everything happens that is logged."""
    world.do(Boot(writer="golden:1"))
    world.do(SetBounds(1000, 0))
    world.do(SetQueue("mail", paused=True, weight=3, bytes_max=1 << 20, durable_dispatch=False))
    world.run("done", b'{"big":12345678901234567890,"text":"\xc3\xa4"}')
    later = job("later", run_at_ms=world.now_ms + HOUR_MS)
    world.enqueue(job("waits", queue="mail", priority=1), later)
    world.seal()
    world.fail_and_wait("retried")
    world.enqueue(job("dies", max_attempts=1))
    world.dispatch("dies")
    world.fail("dies", "no way")
    world.enqueue(job("slow"))
    world.do(Expire("slow", world.dispatch("slow")))
    world.enqueue(job("given-back"))
    world.do(Release("given-back", world.dispatch("given-back"), Cause.DRAIN))
    take_snapshot(world.disk, world.layout, world.state.last_seq, SystemClock())
    world.now_ms += HOUR_MS
    world.seal()
    world.enqueue(job("cancelled"))
    token = world.dispatch("cancelled")
    world.do(Cancel("cancelled"))
    world.do(ConfirmCancel("cancelled", token))
    world.enqueue(job("thrown"))
    world.do(Discard("thrown"))
    world.do(Requeue("dies", b'"edited"'))
    world.enqueue(job("parent"))
    token = world.dispatch("parent")
    world.do(Complete("parent", token, b"1", (job("child"),)))
    take_snapshot(world.disk, world.layout, world.state.last_seq, SystemClock())
    world.enqueue(job("running"))
    world.dispatch("running", worker=2)
    project(world.disk, world.layout, world.state.last_seq)


def told(data: Path) -> dict[str, Any]:
    """What this release makes of a store."""
    disk = SystemDisk()
    report = verify(disk, str(data))
    return {
        "ok": report.ok,
        "log": msgspec.to_builtins(report.log),
        "bases": [msgspec.to_builtins(base) for base in report.bases],
        "events": [event_line(view) for view in event_views(disk, str(data))],
        "segments": sorted(p.name for p in Path(Layout(str(data)).archive).iterdir()),
    }
