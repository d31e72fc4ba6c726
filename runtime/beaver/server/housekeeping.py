"""Housekeeping: what a server does beside its jobs, through the helper process.

Independent loops, so that a long snapshot delays nothing else:

- the next log segment is prepared ahead; while that does not succeed for want of disk, new
  jobs are refused and outcomes go on in what is left of the active segment, and it is tried
  again every second;
- the log is projected into the history, and results that it holds leave the memory; while the
  server is busy that is put off, since it wants a core and the disk that everybody else wants;
- a snapshot is taken when the log since the last one has grown enough;
- a sample of the state is held against the invariants; a violation stops dispatch;
- the journal looks whether it is still what this server opened, and its own: otherwise nothing
  more may be acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from beaver.engine.counters import CommitCounters
from beaver.engine.engine import Engine
from beaver.errors import (
    BeaverError,
    DiskFull,
    LiveStateDiffers,
    SnapshotDiffers,
    StorageFailed,
    StoreUnavailable,
)
from beaver.journal.port import Journal, Segments
from beaver.ports import Clock, Helper
from beaver.server.metrics import Metrics
from beaver.server.results import RESULTS_BYTES_MAX, Results
from beaver.server.sampling import Sampler
from beaver.system.descriptors import is_pressure
from beaver_model.contents import glance_at

log = logging.getLogger("beaver")

BEAT_S: Final = 1.0
SNAPSHOT_LOG_BYTES: Final = 64 << 20
"""Least growth of the log that is worth a snapshot by its bytes."""
SNAPSHOT_EVENTS: Final = 500_000
"""Growth of the log that takes about a second to replay."""

BUSY_EVENTS_S: Final = 1_000
"""A server that writes more events a second is busy: the history is put off."""
LAG_EVENTS_MAX: Final = 500_000
"""Events by which the history of a busy server may lag: one to two seconds of projecting."""
LAG_S_MAX: Final = 10.0
"""Time for which it may lag, however few events that is."""
PIECE_EVENTS: Final = 50_000
"""A calm server's history is brought up in pieces: after each the server may be busy."""


UNBOUNDED: Final = 1 << 62

_MEANWHILE: Final = {
    "prepare": "it is tried again each second, and the log goes on in the segment that it has",
    "project": (
        "it is tried again each second. Jobs run on, and questions about finished ones are "
        "answered from the log. If it goes on, remove history.db: it is made anew from the log"
    ),
    "snapshot_if_due": (
        "it is tried again later. Jobs run on; the archive grows, and a restart takes longer"
    ),
    "sample": "it is tried again each second",
    "check": "it is tried again each second",
}
"""For each kind of work: what holds while it fails, and what to do."""


def _name(work: Callable[[], Any]) -> str:
    return work.__name__.strip("_")


class Housekeeping:
    """Keeps one server's files in order until it is stopped."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        segments: Segments | None,
        helper: Helper,
        results: Results,
        metrics: Metrics,
        *,
        clock: Clock,
        snapshot_ms: int,
        snapshot_seq: int,
        snapshot_bytes: int,
        retention_bytes: int,
        retention_ms: int,
        on_room: Callable[[], None],
        on_violation: Callable[[str], None],
        projects: bool = True,
    ) -> None:
        """Takes charge of a store; nothing is done before `start`.

        Args:
            engine: Told when the disk is full and when it is not.
            journal: Looked at, at every beat.
            segments: Prepared ahead, where it is kept in such.
            helper: Does the work.
            results: Told what the history holds.
            metrics: Told what was done.
            clock: For intervals.
            snapshot_ms: Least interval between snapshots.
            snapshot_seq: Seq of the snapshot that recovery began with.
            snapshot_bytes: Its size.
            retention_bytes: Bound on the archive.
            retention_ms: Age up to which segments stay.
            on_room: Called at every beat: the log may have room again.
            on_violation: Called with what is wrong with the state, once.
            projects: Whether the history is brought up to the log by itself.
        """
        self._engine, self._journal, self._helper = engine, journal, helper
        self._segments = segments
        self._results, self._metrics, self._clock = results, metrics, clock
        self.adjust(
            snapshot_ms=snapshot_ms, retention_bytes=retention_bytes, retention_ms=retention_ms
        )
        self._snapshot_seq, self._snapshot_bytes = snapshot_seq, snapshot_bytes
        self._log_bytes_then = 0
        self._last_snapshot_ns = clock.monotonic_ns()
        self._on_room, self._on_violation, self._projects = on_room, on_violation, projects
        self._sampler = Sampler(engine.state)
        self._is_violated = False
        engine.late_observers.append(self._sampler.observe)
        self._history_seq = self._asked_seq = 0
        self._current_ns = clock.monotonic_ns()
        """The history holds all that was durable then."""
        self._load = _Load(engine.counters, clock)
        self._projecting = asyncio.Lock()
        self._snapping = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    def adjust(self, *, snapshot_ms: int, retention_bytes: int, retention_ms: int) -> None:
        """Takes other settings, from now on."""
        self._snapshot_ns = snapshot_ms * 1_000_000
        self._retention_bytes, self._retention_ms = retention_bytes, retention_ms

    def start(self) -> None:
        """Starts the loops."""
        loop = asyncio.get_running_loop()
        works = (self._prepare, self._project, self._snapshot_if_due, self._sample, self._check)
        for work in works:
            if work == self._project and not self._projects:
                continue
            self._tasks.append(loop.create_task(self._repeat(work)))

    async def stop(self) -> None:
        """Ends the loops; a last projection and snapshot are for the caller to ask."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        said = ""
        while True:
            try:
                await work()
                said = ""
            except BeaverError as error:
                said = self._tell(work, error, said)
            except Exception as error:
                # A bug of ours, or no descriptors: the loop must go on all the same.
                if not is_pressure(error):
                    log.exception("housekeeping (%s) failed, and is tried again", _name(work))
                    continue
                said = self._tell(work, error, said)
            finally:
                await asyncio.sleep(BEAT_S)

    @staticmethod
    def _tell(work: Callable[[], Any], error: Exception, said: str) -> str:
        """Logs what went wrong; a trouble that lasts is told once.  Returns what was said."""
        if str(error) != said:
            log.warning("%s; %s", error, _MEANWHILE[_name(work)])
        return str(error)

    # -- segments ------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Prepares the next segment if it is time, and retries commands that found no room.

        The latter at every beat, whatever came of the former: the log may have found room
        without a new segment, and an outcome that waits for it holds its job in flight.
        """
        try:
            segments = self._segments
            if segments is None or not segments.wants_next or await self.prepare_next():
                if self._engine.admission.disk_full:
                    log.warning("the disk has room again, new jobs are taken")
                self._engine.admission.disk_full = False
        finally:
            self._on_room()

    async def prepare_next(self) -> bool:
        """Prepares and adopts the next segment; False where the disk is full.

        Raises:
            BeaverError: There is no descriptor for it, or no helper: to be tried again.
        """
        segments = self._segments
        assert segments is not None, "only asked for where there are segments"
        try:
            await self._helper.prepare(segments.next_path, segments.segment_bytes)
        except DiskFull as error:
            if not self._engine.admission.disk_full:
                log.warning("the disk is full, new jobs are refused for now: %s", error)
                self._engine.admission.disk_full = True
                # A snapshot lets the helper delete what it may of the archive, which is what the
                # history holds as well.
                with contextlib.suppress(BeaverError):
                    await self.project(self._engine.durable_seq)
                with contextlib.suppress(BeaverError):
                    await self.snapshot()
            return False
        try:
            adopted = segments.adopt(segments.next_path)
        except StorageFailed as error:
            # The log refuses everything from here on, so nothing may be waited for.
            self._engine.fail(error)
            return False
        if not adopted:
            raise StoreUnavailable(
                "no descriptor is left for the next segment; the log goes on in this one, and it "
                "is tried again (ulimit -n says how many there may be)"
            )
        return True

    # -- history ----------------------------------------------------------------------------

    @property
    def history_seq(self) -> int:
        """The history holds everything up to this seq."""
        return self._history_seq

    async def _project(self) -> None:
        """Brings the history up to the log as it is now, as far as that is not put off."""
        goal, is_busy = self._engine.durable_seq, self._load.is_high()
        if self._history_seq >= goal:
            self._current_ns = self._clock.monotonic_ns()
        while self._history_seq < goal:
            if self._lags_too_far():
                await self.project(goal)
                return
            if is_busy:
                return
            async with self._projecting:
                before = self._history_seq
                # What the file holds is known once it was asked for everything.
                await self._project_to(before + PIECE_EVENTS if before else UNBOUNDED)
                if self._history_seq == before:
                    await self._project_to(UNBOUNDED)  # One commit is larger than a piece.
            is_busy = self._load.is_high()

    def _lags_too_far(self) -> bool:
        lag_s = (self._clock.monotonic_ns() - self._current_ns) / 1e9
        return (
            lag_s > LAG_S_MAX
            or self._engine.durable_seq - self._history_seq > LAG_EVENTS_MAX
            or self._results.bytes > RESULTS_BYTES_MAX // 2
        )

    async def project(self, seq: int) -> None:
        """Returns once the history holds everything up to `seq`, which is durable."""
        if self._history_seq >= seq:
            return
        async with self._projecting:
            if self._history_seq < seq:
                await self._project_to(UNBOUNDED)

    async def _project_to(self, seq: int) -> None:
        """Projects commits up to `seq`, or all durable ones where these are fewer.

        Never less than was asked for before: one that failed may have got so far all the same,
        and a history ahead of what is asked for would pass for a log that has lost events.
        """
        durable_seq, now_ns = self._engine.durable_seq, self._clock.monotonic_ns()
        self._asked_seq = max(self._asked_seq, min(seq, durable_seq))
        self._history_seq = await self._helper.project(self._asked_seq)
        if self._history_seq >= durable_seq:
            self._current_ns = now_ns
        self._results.projected(self._history_seq)
        self._metrics.history_seq = self._history_seq

    async def project_anew(self, drop: Callable[[], None]) -> None:
        """Drops a history that is damaged; returns once a new one holds what is durable."""
        async with self._projecting:
            drop()
            self._history_seq = 0
        await self.project(self._engine.durable_seq)

    # -- snapshots --------------------------------------------------------------------------

    async def _snapshot_if_due(self) -> None:
        if self._clock.monotonic_ns() - self._last_snapshot_ns < self._snapshot_ns:
            return
        grown = self._engine.counters.bytes - self._log_bytes_then
        events = self._engine.durable_seq - self._snapshot_seq
        if grown >= max(SNAPSHOT_LOG_BYTES, self._snapshot_bytes) or events >= SNAPSHOT_EVENTS:
            await self.snapshot()

    async def snapshot(self) -> None:
        """Takes a snapshot of everything that is durable now, and prunes the archive.

        The helper compares first: what a replay of the log gives with a glance at the live
        state, and what was written with what is read back.  Each difference is a bug, and
        nothing is deleted: the first ends the process, which recovers from the log; with the
        second only snapshots are wrong, and the log grows on.
        """
        async with self._snapping:
            engine = self._engine
            if engine.durable_seq == self._snapshot_seq:
                return
            engine.flush()
            seq, log_bytes = engine.durable_seq, engine.counters.bytes
            live = glance_at(engine.state) if engine.state.last_seq == seq else None
            self._last_snapshot_ns = self._clock.monotonic_ns()
            try:
                taken = await self._helper.snapshot(
                    seq, self._retention_bytes, self._retention_ms, live
                )
            except LiveStateDiffers as error:
                engine.fail(AssertionError(str(error)))
                return
            except SnapshotDiffers as error:
                self._metrics.snapshot_mismatches += 1
                log.critical("%s. This is a bug in Beaver: please report it", error)
                return
            self._snapshot_seq, self._snapshot_bytes = taken.last_seq, taken.bytes
            self._log_bytes_then = log_bytes
            self._metrics.snapshot_seq = taken.last_seq
            self._metrics.snapshot_seconds = taken.seconds

    # -- the journal ------------------------------------------------------------------------

    async def _check(self) -> None:
        """Ends the process where the journal is not what it opened any more, or not its own."""
        try:
            self._journal.check()
        except StorageFailed as error:
            self._engine.fail(error)

    # -- invariants -------------------------------------------------------------------------

    async def _sample(self) -> None:
        """Holds a sample of the state against the invariants, unless one is violated already."""
        if self._is_violated:
            return
        sampled = self._sampler.turn()
        self._metrics.sampled_rows += sampled.rows
        if sampled.wrong:
            self._is_violated = True
            self._metrics.violations += 1
            seq = self._engine.state.last_seq
            log.critical(
                "at seq %d an invariant does not hold: %s. Nothing more is dispatched; running "
                "jobs end and are logged. This is a bug in Beaver: please report it. The log "
                "is right, and a restart recovers from it",
                seq,
                sampled.wrong,
            )
            self._on_violation(f"at seq {seq}: {sampled.wrong}")


class _Load:
    """How busy the server is: the events that it has written since the last look."""

    def __init__(self, counters: CommitCounters, clock: Clock) -> None:
        self._counters, self._clock = counters, clock
        self._events, self._looked_ns = counters.events, clock.monotonic_ns()

    def is_high(self) -> bool:
        """True where more was written than a busy server's rate, on average."""
        events, now_ns = self._counters.events, self._clock.monotonic_ns()
        written, seconds = events - self._events, (now_ns - self._looked_ns) / 1e9
        self._events, self._looked_ns = events, now_ns
        return written > BUSY_EVENTS_S * seconds
