"""The engine: the one owner of the state, and the only writer of the log.

A command goes through `submit`: decided against the state, applied in memory at once (so
that the next command of the batch sees it), and written with the whole batch in one frame
with one sync.  Only then is anything told: **a reply, also a refusal, a no-op or a read,
is released once the last seq that was applied when it was computed is durable**.

Arrivals collect while the loop syncs; the commit runs when the loop has read what came in,
so no timer delays a lone producer.  Small requests for new jobs that come one after another
are decided and applied together, before anything else is decided or read.  Just before a
commit the controller adds the dispatches that have become possible: a job and its DISPATCH
may share a sync.

A failed write or sync makes the engine useless: nothing more is decided or released, and
the process must end, since the page cache can no longer be trusted.

What may not live here: scheduling (`dispatch`), files (`journal`), sockets (`server`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from beaver.admission import refusal
from beaver.errors import BeaverError, DiskFull, LostLeadership, StorageFailed, StoreUnavailable
from beaver.event_sizes import events_bytes_max, events_max
from beaver.figures import CommitFigures
from beaver.intake import Asked, Intake
from beaver.journal.codec import encode_commit
from beaver.journal.port import OVERHEAD_BYTES, Appended, Deposed, Failed, Journal, Outcome
from beaver.ports import Clock
from beaver.stamps import Stamper
from beaver_model import Rejection, State, apply_all, decide
from beaver_model.bounds import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
)
from beaver_model.commands import (
    AnyCommand,
    Enqueue,
    Job,
    Requeue,
)
from beaver_model.events import AnyEvent, QueueForgotten

MARK_IDLE_S: Final = 0.05
"""After so long without a commit, an empty frame proves that the last one was synced."""

ENOUGH: Final = 100
"""Answers and events with which a commit goes off at once: its sync costs each next to nothing."""

T = TypeVar("T")


class Applied(msgspec.Struct, frozen=True, gc=False):
    """The events that a command led to; none where it changed nothing."""

    first_seq: int
    events: Sequence[AnyEvent]


Reply = Applied | Rejection | BeaverError
Done = Callable[[Reply], None]
Observer = Callable[[int, int, Sequence[AnyEvent]], None]
"""Called after each commit with its first seq, its stamp and its events."""


class Batch(NamedTuple):
    """What one commit writes, and who waits for it."""

    first_seq: int
    now_ms: int
    events: Sequence[AnyEvent]
    waiting: Sequence[tuple[Callable[[Any], None], Any]]
    """Who waits, each with the answer."""


class NotOwner(AssertionError):
    """Another thread than the engine's touched it: a bug of ours."""


class Engine:
    """Owns a state and its log.  Every method belongs to the loop's thread."""

    def __init__(
        self,
        state: State,
        journal: Journal,
        clock: Clock,
        *,
        on_failure: Callable[[BaseException], None],
        state_bytes_max: int = 0,
        reserve_bytes: int = 0,
    ) -> None:
        self._state = state
        self._journal = journal
        self._clock = clock
        self._stamper = Stamper(clock, state.time_ms)
        self._on_failure = on_failure
        self.state_bytes_max = state_bytes_max
        self._reserve_bytes = reserve_bytes
        self._owner = threading.get_ident()
        self._loop = asyncio.get_running_loop()

        self._durable_seq = state.last_seq
        self._events: list[AnyEvent] = []
        self._bytes = 0
        self._room = 0
        """Bytes that the open batch may have without asking the log; 0 where not known."""
        self._waiting: list[tuple[Callable[[Any], None], Any]] = []
        self._intake = Intake()
        self._crowd = 0
        """Answers that waited for the last commit."""
        self._sync_ns = 0
        """What a commit takes on the disk (moving mean)."""
        self._looked_at = 0
        """Answers and events of the open batch at the last look; 0 before the first."""
        self._looking_ns = 0
        """When that first look was."""
        self._now_ms = 0
        """Stamp of the open batch, 0 while there is none."""
        self._scheduled = False
        self._syncing: Batch | None = None
        """The batch that is being appended; the open one waits for it."""
        self._postponed = False
        """A commit, and with it the controller's look for work, waits for that batch."""
        self._failed: BaseException | None = None
        self._closed = False
        self._telling = False
        """The answers of a commit are being told."""
        self._once_told: list[Callable[[], None]] = []
        self._mark_armed = False
        self._marked_commit = 0

        self.before_commit: Callable[[int], None] | None = None
        """Called with the stamp just before each commit; may submit."""
        self.observers: list[Observer] = []
        self.disk_full = False
        """New jobs are refused; outcomes go on in the reserve."""
        self.figures = CommitFigures()

    # -- what everyone may look at -----------------------------------------------------

    @property
    def state(self) -> State:
        """The state, for reading on the loop; what is told outside goes through `read`."""
        if threading.get_ident() != self._owner:
            raise NotOwner("the engine's state belongs to the loop's thread")
        return self._state

    @property
    def durable_seq(self) -> int:
        """Everything up to this seq is on disk."""
        return self._durable_seq

    @property
    def clock_behind_ms(self) -> int:
        """How far the wall clock was behind the log at start."""
        return self._stamper.behind_ms

    def now_ms(self) -> int:
        """Returns the stamp of the open batch, or of one that would open now."""
        return self._now_ms or self._stamper.now_ms()

    # -- commands and reads --------------------------------------------------------------

    def submit(self, command: AnyCommand, done: Done) -> None:
        """Decides and applies a command; calls `done` with the reply once it is durable.

        `done` gets `Applied`, a `Rejection`, or `QueueFull` or `DiskFull` where the command
        was not admitted.  It is never called if the log fails first.
        """
        self.change(command, _same, done)

    def change(
        self, command: AnyCommand, answer: Callable[[Reply], T], done: Callable[[T], None]
    ) -> None:
        """Submits a command, and answers for it at once; `done` gets the answer when durable.

        At once, since a later command of the same batch may change what the answer is about.
        """
        if threading.get_ident() != self._owner:
            raise NotOwner("commands are submitted on the loop's thread")
        if self._intake.asked:
            self._take_in()
        if self._failed is not None or self._closed:
            return
        self._change(command, answer, done)

    def enqueue(
        self, jobs: list[Job], answer: Callable[[list[Job], Reply], T], done: Callable[[T], None]
    ) -> None:
        """Submits an `Enqueue`, as `change` does, along with those of others that come now.

        `answer` gets the jobs too, so that who asks often needs no function for each.
        """
        if threading.get_ident() != self._owner:
            raise NotOwner("commands are submitted on the loop's thread")
        if self._failed is not None or self._closed:
            return
        if self._intake.add(Asked(jobs, answer, done)):
            self._take_in()
        elif not self._scheduled:
            self.touch()

    def _take_in(self) -> None:
        """Decides and applies what was asked for by `enqueue`: together, or else one by one."""
        everyone = self._intake.take()
        if self._failed is not None or self._closed:
            return
        if len(everyone) > 1 and self._take_in_together(everyone):
            return
        for asked in everyone:
            if self._failed is None:
                self._change(Enqueue(asked.jobs), partial(asked.answer, asked.jobs), asked.done)

    def _take_in_together(self, everyone: list[Asked]) -> bool:
        """Takes in all that was asked for; False, with nothing done, where some is not plain.

        Plain is what is admitted, not refused, and new: then the events of each follow those of
        the one before, as if it had been decided after it.
        """
        command = Enqueue([job for asked in everyone for job in asked.jobs])
        size = events_bytes_max(command, self._state)
        if size > BATCH_BYTES_MAX or self._admit(command, size) is not None:
            return False
        now_ms = self._now_ms or self._stamper.now_ms()
        events = decide(self._state, command, now_ms)
        if isinstance(events, Rejection) or not events or len(events) != len(command.jobs):
            return False
        if type(events[0]) is QueueForgotten:
            return False  # Of these jobs one is known, though there are as many events.
        seq = self._state.last_seq + 1
        self._apply(events, size, now_ms)
        # What was applied just now is not durable: every answer waits.
        waiting, start = self._waiting, 0
        for asked in everyone:
            jobs = asked.jobs
            end = start + len(jobs)
            reply = Applied(seq + start, events[start:end])
            waiting.append((asked.done, asked.answer(jobs, reply)))
            start = end
        return True

    def _change(
        self, command: AnyCommand, answer: Callable[[Reply], T], done: Callable[[T], None]
    ) -> None:
        outcome = self._carry_out(command)
        reply: Reply
        if isinstance(outcome, list):
            # Counted back: to make room a commit may have run, whose observers submit.
            reply = Applied(self._state.last_seq + 1 - len(outcome), outcome)
        else:
            reply = outcome
        self._release(done, answer(reply))

    def submit_each(
        self,
        commands: Iterable[AnyCommand],
        refused: Callable[[AnyCommand, BeaverError], None],
    ) -> None:
        """Decides and applies commands whose replies nobody waits for, one by one.

        Each is drawn once the one before it is applied, so a generator may look at the state
        in between.  What the model rejects is dropped; `refused` gets, at once, what was not
        admitted.  An exception of the generator's fails the engine: what it had yet to yield is
        known to nobody else.
        """
        if threading.get_ident() != self._owner:
            raise NotOwner("commands are submitted on the loop's thread")
        if self._intake.asked:
            self._take_in()
        try:
            for command in commands:
                if self._failed is not None or self._closed:
                    return
                outcome = self._carry_out(command)
                if isinstance(outcome, BeaverError):
                    refused(command, outcome)
        except Exception as error:
            self.fail(error)
            raise

    def _carry_out(self, command: AnyCommand) -> list[AnyEvent] | Rejection | BeaverError:
        """Admits, decides and applies a command; returns its events, or what kept it."""
        state = self._state
        size = events_bytes_max(command, state)
        refused = self._admit(command, size)
        if refused is not None:
            return refused
        now_ms = self._now_ms or self._stamper.now_ms()
        decision = decide(state, command, now_ms)
        if decision and not isinstance(decision, Rejection):
            self._apply(decision, size, now_ms)
        return decision

    def _apply(self, events: list[AnyEvent], size: int, now_ms: int) -> None:
        """Applies events and opens a batch for them: only an event does, for its stamp."""
        try:
            apply_all(self._state, events, now_ms)
        except BaseException as error:
            self.fail(error)
            raise
        self._now_ms = now_ms
        if not self._scheduled:
            self.touch()
        self._events += events
        self._bytes += size

    def read(self, question: Callable[[State], T], done: Callable[[T], None]) -> None:
        """Asks the state and calls `done` once all that the answer rests on is durable."""
        if self._intake.asked:
            self._take_in()
        self._release(done, question(self.state))

    async def execute(self, command: AnyCommand) -> Applied:
        """Submits a command and waits for its reply.

        Raises:
            Refused: The model rejected it.
            QueueFull, DiskFull: It was not admitted.
            StorageFailed: The log failed; whether the command is durable is not known.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()

        def done(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        if self._closed:
            raise StoreUnavailable("the server is shutting down; send it again")
        self.submit(command, done)
        if self._failed is not None:
            raise StorageFailed(str(self._failed))
        reply = await future
        if isinstance(reply, Rejection):
            raise Refused(reply)
        if isinstance(reply, BeaverError):
            raise reply
        return reply

    def once_told(self, callback: Callable[[], None]) -> None:
        """Calls back when all answers of the commit under way are told, else in the next turn.

        Who sends answers on sends those of a commit together, before the loop turns again.
        """
        if self._telling:
            self._once_told.append(callback)
        else:
            self._loop.call_soon(callback)

    def touch(self) -> None:
        """Makes a commit run soon, so that the controller looks for work."""
        if not self._scheduled and self._failed is None and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._commit)

    def has_room(self, size: int) -> bool:
        """True where `size` more bytes of events would fit into the log."""
        return self._reserve(size) > 0

    def _reserve(self, size: int) -> int:
        """Returns how large the open batch may become, once `size` more bytes fit; else 0."""
        try:
            while self._failed is None:
                room = self._journal.reserve(self._bytes + size + OVERHEAD_BYTES) - OVERHEAD_BYTES
                # It may have waited for a commit, whose observers submit.
                if room < 0 or self._bytes + size <= room:
                    return max(0, room)
        except Exception as error:  # noqa: BLE001 - as in _write
            self.fail(error)
        return 0

    # -- committing ------------------------------------------------------------------------

    def flush(self) -> None:
        """Commits at once whatever is open, and returns when it is durable."""
        if self._intake.asked:
            self._take_in()
        while (self._events or self._waiting or self._syncing) and self._failed is None:
            if self._syncing is not None:
                self._journal.wait()
            else:
                self._write()

    def close(self) -> None:
        """Commits what is open and closes the log.  Nothing can be submitted after."""
        self.flush()
        self._closed = True
        if self._failed is None:
            self._journal.close()
        else:
            self._journal.abandon()

    def _release(self, done: Callable[[T], None], answer: T) -> None:
        """Gives the answer now if nothing speculative is in it, else with the commit."""
        if self._failed is not None:
            return
        if self._durable_seq == self._state.last_seq:
            self._tell(done, answer)
            return
        self._waiting.append((done, answer))
        if not self._scheduled:
            self.touch()

    def _commit(self) -> None:
        if self._syncing is not None:
            # The open batch goes on collecting; `_appended` makes it go next.
            self._scheduled, self._postponed = False, True
            return
        if self._expects_more():
            self._loop.call_soon(self._commit)
            return
        if self._intake.asked:
            self._take_in()
        if self._failed is None and not self._closed and self.before_commit is not None:
            try:
                self.before_commit(self.now_ms())
            except Exception as error:  # noqa: BLE001 - half a round of dispatches is no state
                self.fail(error)
        # Cleared only now: what the controller has just submitted needs no commit of its own.
        self._scheduled = False
        if self._failed is None and not self._closed and self._syncing is None:
            self._write()

    def _expects_more(self) -> bool:
        """True where the commit waits for one more look at what comes in.

        Only where the last one answered several at once; as long as each look brings somebody;
        and no longer than a sync takes.  Who is first loses a sync's time at most, and a sync
        serves many instead of a few.
        """
        arrived = len(self._waiting) + len(self._events) + len(self._intake.asked)
        if self._crowd < 2 or arrived == self._looked_at or arrived > ENOUGH:
            return False
        now_ns = self._clock.monotonic_ns()
        if not self._looked_at:
            self._looking_ns = now_ns
            self.figures.gathered += 1
        elif now_ns - self._looking_ns > self._sync_ns:
            return False
        self._looked_at = arrived
        return True

    def _write(self) -> None:
        """Appends the open batch to the log."""
        batch = Batch(self._durable_seq + 1, self._now_ms, self._events, self._waiting)
        self._events, self._waiting, self._bytes, self._now_ms = [], [], 0, 0
        self._room = self._looked_at = 0
        self._crowd = len(batch.waiting)
        if not batch.events:
            self._tell_all(batch)
            return
        self._syncing = batch
        journal = self._journal
        try:
            payload = encode_commit(batch.now_ms, batch.events)
            journal.append(journal.position, payload, len(batch.events), self._appended)
        except Exception as error:  # noqa: BLE001 - whatever it is, the log is not trusted now
            self.fail(error)

    def _appended(self, outcome: Outcome) -> None:
        """The log tells what became of a batch."""
        batch, self._syncing = self._syncing, None
        assert batch is not None, "a batch was handed over"
        if isinstance(outcome, Failed):
            self.fail(outcome.error)
            return
        if isinstance(outcome, Deposed):
            self.fail(LostLeadership(outcome.reason))
            return
        self._durable(batch, outcome)
        # Also where nothing is open: a worker may have become ready during the sync.
        if self._events or self._waiting or self._postponed:
            self._postponed = False
            self.touch()

    def _durable(self, batch: Batch, appended: Appended) -> None:
        """A batch is on disk: it is counted, shown, and told to who waits for it."""
        events, figures, seconds = batch.events, self.figures, appended.seconds
        self._sync_ns += (int(seconds * 1e9) - self._sync_ns) // 8
        figures.syncs.observe(seconds)
        figures.batches.observe(float(len(events)))
        figures.commits += 1
        figures.events += len(events)
        figures.bytes += appended.bytes
        self._durable_seq += len(events)
        # Observers tell too: of ends that somebody waits for.
        self._telling = True
        try:
            for observer in self.observers:
                observer(batch.first_seq, batch.now_ms, events)
        except Exception as error:  # noqa: BLE001 - who missed a commit cannot be trusted
            self.fail(error)
            return
        finally:
            self._telling = False
        self._arm_mark()
        self._tell_all(batch)

    def _tell_all(self, batch: Batch) -> None:
        """Tells who waits for a batch, and then who sends it all on (see `once_told`)."""
        self._telling = True
        try:
            for done, answer in batch.waiting:
                try:
                    done(answer)
                except Exception as error:  # noqa: BLE001 - as in _tell
                    self._tell_of(error)
        finally:
            self._telling = False
        callbacks, self._once_told = self._once_told, []
        for callback in callbacks:
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - as in _tell
                self._tell_of(error)

    def fail(self, error: BaseException) -> None:
        """Makes the engine useless: memory and log may differ from here on."""
        self._failed = error
        self._on_failure(error)

    def _tell(self, done: Callable[[T], None], answer: T) -> None:
        try:
            done(answer)
        except Exception as error:  # noqa: BLE001 - one listener's bug must not stop the others
            self._tell_of(error)

    def _tell_of(self, error: Exception) -> None:
        context = {"message": "a listener of the engine raised", "exception": error}
        self._loop.call_exception_handler(context)

    def _arm_mark(self) -> None:
        if not self._mark_armed:
            self._mark_armed = True
            self._marked_commit = self.figures.commits
            self._loop.call_later(MARK_IDLE_S, self._mark)

    def _mark(self) -> None:
        """Closes the last frame after a quiet moment, so that it cannot pass for a torn one."""
        self._mark_armed = False
        if self._failed is not None or self._closed:
            return
        if self.figures.commits != self._marked_commit or self._syncing or self._events:
            # Not yet quiet; and room that an open batch has reserved is not ours to use.
            self._arm_mark()
            return
        self._room = 0
        try:
            self._journal.idle()
        except Exception as error:  # noqa: BLE001 - as in _write
            self.fail(error)

    # -- admission ---------------------------------------------------------------------------

    def _admit(self, command: AnyCommand, size: int) -> BeaverError | None:
        """Says why a command may not even be decided; makes room for it in the log."""
        count, reserve = 1, 0
        if type(command) is Enqueue:
            # What new jobs may not use up: room in which those that run can end.
            count, reserve = len(command.jobs), self._reserve_bytes
            full = self._full(command.jobs, size)
            if full is not None:
                return full
        elif type(command) is Requeue:
            reserve = self._reserve_bytes
            full = self._full((), size)
            if full is not None:
                return full
        else:
            count = events_max(command)
        fits = self._bytes + size <= BATCH_BYTES_MAX and len(self._events) + count <= BATCH_JOBS_MAX
        if fits and self._bytes + size + reserve <= self._room:
            return None
        if self._events and not fits:
            while self._syncing is not None:
                self._journal.wait()
            if self._events and self._failed is None:
                self._write()
            if self._failed is not None:
                return StorageFailed(str(self._failed))
        self._room = self._reserve(size + reserve)
        if not self._room:
            return DiskFull("the disk is full; nothing was changed and nothing is lost")
        return None

    def _full(self, jobs: Sequence[Job], size: int) -> BeaverError | None:
        if self.disk_full:
            return DiskFull(
                "the disk is full: new jobs are refused until a log segment can be prepared; "
                "nothing is lost, and running jobs go on"
            )
        return refusal(self._state, jobs, self.state_bytes_max, size)


class Refused(BeaverError):
    """A `Rejection` of the model, for callers that wait."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(f"{rejection.code}: {rejection.facts}")
        self.rejection = rejection


def _same(reply: Reply) -> Reply:
    return reply
