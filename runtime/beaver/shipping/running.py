"""`beaver ship` as a process: step after step, until it is told to stop."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from beaver.errors import BackupDamaged, BeaverError, Corruption, NotFound
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.opening import peek_store
from beaver.ports import Clock, Disk
from beaver.shipping.ownership import Ownership, TakenOver
from beaver.shipping.shipper import Progress, Shipper
from beaver.shipping.targets import Target, TargetFailed
from beaver.store.shipped import Shipping

log: Final = logging.getLogger("beaver.ship")

TOLD_EVERY_S: Final = 5.0
"""How often a shipper says that it lives."""
RETRY_S: Final = (1.0, 30.0)
"""First and longest wait before a target that failed is tried again."""


class Sent(msgspec.Struct):
    """What one run has done."""

    target: str
    store: str
    seq: int
    last_seq: int
    sent_bytes: int


class Running:
    """Ships until `stop` is set."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        data: str,
        target: Target,
        *,
        lease_s: float,
        keep_ms: int,
        snapshot_ms: int,
    ) -> None:
        store = peek_store(disk, data)
        if store is None:
            raise NotFound(f"{data} holds no queue")
        self._disk, self._clock, self._layout, self._target = disk, clock, Layout(data), target
        self._ownership = Ownership(target, store.hex(), lease_s)
        self._keep_ms, self._snapshot_ms, self._lease_s = keep_ms, snapshot_ms, lease_s
        self._shipping = Shipping(target=target.name, pid=os.getpid())
        self._told_ns = 0
        self._shipper: Shipper | None = None
        self._sent = Sent(target.name, store.hex(), 0, 0, 0)
        self.stop = threading.Event()

    def catch_signals(self) -> None:
        """Ends cleanly on SIGTERM and SIGINT."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)

    def run(
        self,
        interval_s: float,
        *,
        once: bool,
        on_step: Callable[[Progress], None] = lambda _: None,
    ) -> Sent:
        """Ships; returns when it is told to stop, or, with `once`, when all is there.

        Raises:
            TakenOver: Another shipper is at work.
            BackupDamaged, Corruption: Target or log are damaged.
            TargetFailed: With `once`, or at the start: it cannot be reached.
        """
        self._ownership.acquire()
        wait_s = RETRY_S[0]
        try:
            while True:
                try:
                    progress = self._step()
                    self._tell(progress, "")
                    on_step(progress)
                    wait_s = RETRY_S[0]
                    if once or self.stop.wait(min(interval_s, self._lease_s / 3)):
                        return self._sent
                except TargetFailed as error:
                    if once:
                        raise
                    self._tell(None, str(error))
                    log.warning("%s; it is tried again in %g s", error, wait_s)
                    if self.stop.wait(wait_s):
                        return self._sent
                    wait_s = min(2 * wait_s, RETRY_S[1])
        except (BackupDamaged, Corruption, TakenOver) as error:
            self._tell(None, str(error).partition("\n")[0])
            raise
        finally:
            self._leave()

    def _step(self) -> Progress:
        if self._shipper is None:
            self._shipper = Shipper(
                self._disk,
                self._layout,
                self._target,
                self._ownership,
                self._clock,
                keep_ms=self._keep_ms,
                snapshot_ms=self._snapshot_ms,
            )
        try:
            progress = self._shipper.step()
        except TargetFailed:
            self._shipper = None  # What the target holds is asked for again.
            raise
        sent = self._sent
        sent.seq, sent.last_seq, sent.sent_bytes = progress
        return progress

    def _leave(self) -> None:
        with contextlib.suppress(BeaverError):
            self._ownership.release()
        self._shipping.pid = 0
        self._told_ns = 0
        self._write()

    def _tell(self, progress: Progress | None, error: str) -> None:
        """Writes down how far it is, where that is news or it is time for a sign of life."""
        told, now_ms = self._shipping, self._clock.wall_ms()
        is_news = told.error != error or (progress is not None and progress.seq != told.seq)
        told.error = error
        if progress is not None:
            told.seq = progress.seq
            if progress.seq == progress.last_seq:
                told.caught_up_ms = now_ms
        passed_s = (self._clock.monotonic_ns() - self._told_ns) / 1e9
        if (is_news and passed_s > 0.2) or passed_s > TOLD_EVERY_S or not self._told_ns:
            self._write()

    def _write(self) -> None:
        """Replaces the small file beside the log; a hint, so it is not synced."""
        self._shipping.at_ms, self._told_ns = self._clock.wall_ms(), self._clock.monotonic_ns()
        key = hashlib.sha256(self._target.name.encode()).hexdigest()[:16]
        path = Path(self._layout.ship(key))
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(self._shipping))
            temporary.replace(path)
        except OSError as error:
            log.warning("cannot say how far it is: %s: %s", path, error.strerror)
