"""Replaying a log without a server: its listing, its check, the story of one job.

What lives here: reading.  Nothing here writes or takes a lock, and a server may append
meanwhile: a frame that is half written is the end of the log for now.

Where the log reaches back to its beginning, every event is checked against the state that
the ones before it give.  Where it does not, that begins with a snapshot; before it (and
throughout, where there is none) an event is checked only against what the kept segments
themselves tell of its job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from beaver.errors import Corruption, InvalidInput, StoreUnavailable
from beaver.inspect.listing import attempt_of, event_view
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import LogScan, decode_frame, read_commits
from beaver.journal.wal.scan import Frame
from beaver.ports import Disk
from beaver.replay.partial_state import PartialState
from beaver.replay.report import CheckReport, DamageView
from beaver.snapshot.files import load_snapshot
from beaver.store.log_source import (
    BASE_NONE,
    BASE_START,
    KnownSnapshot,
    LogSource,
    Until,
    choose_base,
    find_source,
)
from beaver.structs.views import EventView
from beaver.text.durations import parse_time_ms
from beaver_model import (
    IllegalEvent,
    JobState,
    State,
    apply,
    build_indexes,
    fingerprint,
    legal,
    violations,
)
from beaver_model import replay as replay_events
from beaver_model.events import AnyEvent
from beaver_model.legality import JudgedFrame, refuse_left_in_flight

Progress = Callable[[int, int], None]
"""Called now and then with the bytes read and the bytes in all."""


class SecondOpinion(Protocol):
    """Another judge of a log beside the model, told every frame in order."""

    def of(self, first_seq: int, payload: bytes) -> tuple[int, str] | None:
        """Returns seq and reason of what cannot stand in the frame, or `None`."""
        ...


_ATTEMPTS: Final = 5
_PROGRESS_BYTES: Final = 1 << 20
_SEQ_DIGITS_MAX: Final = 11
_COUNTED: Final = (
    JobState.PENDING,
    JobState.IN_FLIGHT,
    JobState.COMPLETED,
    JobState.DEAD,
    JobState.CANCELLED,
)


def parse_until(text: str) -> Until:
    """Returns the end of a replay: a seq, or a time (ISO 8601 or ms since the epoch).

    Digits alone are a seq up to 11 of them, and ms beyond: those begin with the year 1973.

    Raises:
        InvalidInput: It is neither.
    """
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= _SEQ_DIGITS_MAX:
        return Until(seq=int(digits))
    try:
        return Until(time_ms=parse_time_ms(text, "--until"))
    except InvalidInput as error:
        raise InvalidInput(f"{error}, or a seq") from None


# -- what is asked --------------------------------------------------------------------------


def event_views(disk: Disk, path: str, until: Until | None = None) -> Iterator[EventView]:
    """Yields every event of a log file or data directory, with attempts where known.

    Raises:
        NotFound: There is no log.
        Corruption: After the events before the damage.
        NewerFormat: Something is of a newer version.
    """
    last_seq = 0
    for _ in range(_ATTEMPTS):
        try:
            for view in Replay(disk, find_source(disk, path), until or Until()).views():
                if view.seq > last_seq:
                    last_seq = view.seq
                    yield view
            return
        except FileNotFoundError:
            continue
    raise _busy(path)


def check(
    disk: Disk,
    path: str,
    until: Until | None = None,
    *,
    on_progress: Progress | None = None,
    opinion: Callable[[int], SecondOpinion] | None = None,
) -> CheckReport:
    """Checks the frames, the chain and every event of a log; the verdict is in the report.

    Args:
        disk: Where it lies.
        path: A data directory or a log file.
        until: Where to stop.
        on_progress: Told how far it is.
        opinion: Makes another judge of the whole, from the first seq on.

    Raises:
        NotFound: There is no log.
        NewerFormat: Something is of a newer version.
    """
    for _ in range(_ATTEMPTS):
        try:
            source = find_source(disk, path)
        except Corruption as error:
            return CheckReport(False, BASE_NONE, 0, 0, 0, 0, {}, None, [], 0, DamageView.of(error))
        replay = Replay(disk, source, until or Until(), on_progress, opinion)
        try:
            replay.run()
        except Corruption as error:
            return replay.report(error)
        except FileNotFoundError:
            continue  # A segment or snapshot went while it was to be read.
        return replay.report()
    raise _busy(path)


def bring_up(disk: Disk, layout: Layout, state: State, last_seq: int) -> None:
    """Replays archive and log into a state, up to `last_seq` or the end of the log.

    Raises:
        Corruption: The log is damaged, begins later, or holds an illegal event.
    """
    try:
        for first_seq, time_ms, events in read_commits(disk, layout, state.last_seq, last_seq):
            replay_events(state, first_seq, time_ms, events)
            if state.last_seq >= last_seq:
                return
    except IllegalEvent as error:
        raise Corruption(layout.path, 0, error.seq, str(error)) from error


def _busy(path: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the files of {path} changed {_ATTEMPTS} times while they were read; try again"
    )


# -- going through a log --------------------------------------------------------------------


class _Commit(NamedTuple):
    path: str
    offset: int
    first_seq: int
    time_ms: int
    events: Sequence[AnyEvent]


class Replay:
    """One way through a log.  `run` or exhaust `views`, then ask for the `report`."""

    def __init__(
        self,
        disk: Disk,
        source: LogSource,
        until: Until,
        on_progress: Progress | None = None,
        opinion: Callable[[int], SecondOpinion] | None = None,
    ) -> None:
        self._disk, self._source, self._until = disk, source, until
        self._on_progress = on_progress
        self._opinion = opinion(source.first_seq) if opinion is not None else None
        self._is_indexed = True
        self._snapshot: KnownSnapshot | None = None
        self._partial: PartialState | None = None
        self.state: State | None = None
        """The whole state, once it is known."""
        if source.first_seq == 1:
            self.base, self.state = BASE_START, State()
        else:
            self._snapshot = choose_base(source, until)
            self.base = BASE_NONE if self._snapshot is None else self._snapshot.name
            self._partial = PartialState(source.first_seq)
        self.frames = self.events = self.torn_tail_bytes = 0
        self.first_seq = source.shown_seq
        self.last_seq = source.first_seq - 1

    def run(self) -> None:
        """Checks everything.  Raises `Corruption` at the first damage."""
        self._is_indexed = False
        if self.state is not None:
            self.state.defer_indexes()
        commit = None
        for commit in self._commits():
            state = self.state
            if state is not None:
                try:
                    replay_events(state, commit.first_seq, commit.time_ms, commit.events)
                except IllegalEvent as error:
                    raise _illegal(commit, error.seq, error) from error
            else:
                for _ in self._steps(commit):
                    pass
        if self.state is not None:
            build_indexes(self.state)
            if commit is not None:
                _refuse_left_in_flight(self.state, commit)

    def views(self) -> Iterator[EventView]:
        """Checks everything and yields the events.  Raises `Corruption` at the first damage."""
        for commit in self._commits():
            for seq, event, attempt, worker in self._steps(commit):
                if seq >= self._source.shown_seq:
                    yield event_view(seq, commit.time_ms, event, attempt=attempt, worker=worker)

    def report(self, error: Corruption | None = None) -> CheckReport:
        """Returns the verdict, after `run` or `views` has ended or raised `error`."""
        state = self.state
        known = state is not None and error is None
        broken = violations(state) if state is not None and known else []
        return CheckReport(
            ok=error is None and not broken,
            base=self.base,
            frames=self.frames,
            events=self.events,
            first_seq=self.first_seq,
            last_seq=self.last_seq,
            counts={s.name.lower(): state.count(s) for s in _COUNTED} if state and known else {},
            fingerprint=fingerprint(state) if state and known else None,
            violations=broken,
            torn_tail_bytes=self.torn_tail_bytes,
            error=None if error is None else DamageView.of(error),
        )

    def _steps(self, commit: _Commit) -> Iterator[tuple[int, AnyEvent, int | None, int]]:
        """Applies the events of a commit one by one to what is known, or refuses one.

        Yields each with its seq, and the attempt and worker that it is about.
        """
        partial, state = self._partial, self.state
        if state is None:
            assert partial is not None, "one of both is there"
            state = partial.state
        frame = JudgedFrame(commit.time_ms, commit.first_seq, commit.events)
        reason = frame.why_out_of_time(state)
        for seq, event in enumerate(commit.events, commit.first_seq):
            attempt, worker = attempt_of(state, event)
            if reason is None and partial is not None:
                reason = partial.step(seq, event, frame)
            elif reason is None and seq > state.last_seq:
                reason = legal(state, event, frame)
                if reason is None:
                    apply(state, event, commit.time_ms)
            if reason is not None:
                raise _illegal(commit, seq, IllegalEvent(seq, event, reason))
            yield seq, event, attempt, worker
        if frame.fates_end:
            _refuse_left_in_flight(state, commit)

    def _commits(self) -> Iterator[_Commit]:
        """Yields the commits up to the end; counts; changes to the snapshot's state in time."""
        source, until = self._source, self._until
        log = LogScan(self._disk, source.layout, source.infos, source.first_seq - 1)
        told = 0
        stopped = False
        for frame in log:
            scan = log.scan
            assert scan is not None, "a frame comes from a scan"
            if self._on_progress is not None:
                told = self._tell(told, log)
            self._enter_snapshot()
            shown = scan.header.first_seq >= source.shown_seq
            if frame.count and not until.holds(frame.first_seq, 0):
                stopped = True
                break
            if not frame.count:
                self.frames += shown
                continue
            time_ms, events = decode_frame(scan.path, frame)
            if not until.holds(frame.first_seq, time_ms):
                stopped = True
                break
            if until.seq is not None:
                del events[until.seq + 1 - frame.first_seq :]
            if shown:
                self.frames += 1
                self.events += len(events)
            yield _Commit(scan.path, frame.offset, frame.first_seq, time_ms, events)
            self.last_seq = frame.first_seq + len(events) - 1
            self._ask(scan.path, frame)
        self._enter_snapshot()
        if stopped or log.scan is None or log.scan.end is None:
            return
        self.torn_tail_bytes = log.scan.end.torn_bytes
        self._refuse_short(log.scan.path, log.scan.end.offset)

    def _ask(self, path: str, frame: Frame) -> None:
        """Refuses a frame that the second opinion refuses, if it was replayed whole."""
        if self._opinion is None or self.last_seq != frame.first_seq + frame.count - 1:
            return
        found = self._opinion.of(frame.first_seq, frame.payload)
        if found is not None:
            seq, reason = found
            raise Corruption(path, frame.offset, seq, f"against the specification: {reason}")

    def _enter_snapshot(self) -> None:
        """Loads the base once the log has come to its seq."""
        known = self._snapshot
        if known is not None and self.state is None and self.last_seq >= known.info.last_seq:
            self.state = load_snapshot(
                self._disk, known.path, check_fingerprint=True, indexed=self._is_indexed
            ).state
            self._partial = None

    def _refuse_short(self, path: str, offset: int) -> None:
        """Refuses a log that ends before the seq that a durable snapshot has."""
        for known in self._source.snapshots if self._source.whole else ():
            info = known.info
            if info.last_seq > self.last_seq and self._until.holds(info.last_seq, info.time_ms):
                reason = (
                    f"the log ends with seq {self.last_seq}, and {known.path} shows that it "
                    f"reached seq {info.last_seq}"
                )
                raise Corruption(path, offset, self.last_seq + 1, reason)

    def _tell(self, told: int, log: LogScan) -> int:
        infos = self._source.infos
        done = log.scan.offset if log.scan is not None else 0
        for info in infos:
            if log.scan is None or info.path == log.scan.path:
                break
            done += info.bytes
        if done - told < _PROGRESS_BYTES or self._on_progress is None:
            return told
        self._on_progress(done, sum(info.bytes for info in infos))
        return done


def _refuse_left_in_flight(state: State, commit: _Commit) -> None:
    try:
        refuse_left_in_flight(state)
    except IllegalEvent as error:
        raise _illegal(commit, error.seq, error) from error


def _illegal(commit: _Commit, seq: int, error: IllegalEvent) -> Corruption:
    return Corruption(commit.path, commit.offset, seq, f"illegal event: {error}")
