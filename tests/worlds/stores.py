"""A store on a real disk for tests: the real model, the real log, a clock that tests set."""

from __future__ import annotations

import os
from pathlib import Path

from beaver.helper.work import prepare_segment
from beaver.history.stories import tell
from beaver.journal.codec import encode_commit
from beaver.journal.port import append_now
from beaver.journal.wal.format import frame_bytes
from beaver.journal.wal.layout import Layout
from beaver.ports import Disk
from beaver.store.recovery import open_store
from beaver.structs.questions import Known
from beaver.structs.views import EventView
from beaver.system.disk import SystemDisk
from beaver_model import Rejection, apply, decide
from beaver_model.commands import AnyCommand, Complete, Fail
from beaver_model.events import AnyEvent
from tests.worlds.model import World, job
from tests.worlds.runtime import ManualClock

STORE = b"store-of-a-test!"


class LivelyWorld(World):
    """A `World` whose jobs also end."""

    def complete(self, name: str = "a", result: bytes = b"null") -> None:
        self.do(Complete(name, self.state.jobs[name].token, result))

    def fail(self, name: str = "a", error: str = "boom", *, retry: bool = True) -> None:
        self.do(Fail(name, self.state.jobs[name].token, error, retry=retry))

    def run(self, name: str, result: bytes = b"null") -> None:
        """A whole life: enqueued, dispatched, completed."""
        self.enqueue(job(name))
        self.dispatch(name)
        self.complete(name, result)

    def fail_and_wait(self, name: str) -> None:
        """An attempt that failed: the job waits for its next one."""
        self.enqueue(job(name))
        self.dispatch(name)
        self.fail(name)


class LoggedWorld(LivelyWorld):
    """A `World` whose every decision goes to the log of a data directory."""

    def __init__(
        self,
        path: Path | str,
        store: bytes = STORE,
        segment_bytes: int = 1 << 16,
        disk: Disk | None = None,
    ) -> None:
        super().__init__()
        self.disk = disk or SystemDisk()
        self.layout = Layout(str(path))
        opened = open_store(
            self.disk,
            str(path),
            clock=ManualClock(),
            create=True,
            store=store,
            segment_bytes=segment_bytes,
        )
        self.wal = opened.journal

    @property
    def path(self) -> str:
        return self.layout.path

    def ask(self, command: AnyCommand) -> list[AnyEvent] | Rejection:
        decision = decide(self.state, command, self.now_ms)
        if isinstance(decision, Rejection) or not decision:
            return decision
        for event in decision:
            apply(self.state, event, self.now_ms)
            self.log.append((self.now_ms, event))
        payload = encode_commit(self.now_ms, decision)
        assert self.wal.reserve(frame_bytes(len(payload)))
        append_now(self.wal, payload, len(decision))
        return decision

    def complete(self, name: str = "a", result: bytes = b"null") -> None:
        self.do(Complete(name, self.state.jobs[name].token, result))

    def fail(self, name: str = "a", error: str = "boom", *, retry: bool = True) -> None:
        self.do(Fail(name, self.state.jobs[name].token, error, retry=retry))

    def seal(self) -> None:
        """Seals the active segment and goes on in a prepared one."""
        prepare_segment(self.disk, self.layout.next, self.wal.segment_bytes)
        self.wal.adopt(self.layout.next)
        assert self.wal.seal()


def events_of(disk: Disk, layout: Layout, name: str) -> list[EventView]:
    """Returns the events of a job as they are told."""
    return tell(disk, layout, [Known(name)]).by_job[name]


def flip(path: str, offset: int, mask: int = 0x01) -> None:
    """Flips bits of one byte of a file."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        (byte,) = os.pread(descriptor, 1, offset)
        os.pwrite(descriptor, bytes([byte ^ mask]), offset)
    finally:
        os.close(descriptor)
