"""The engine: the one owner of the state, and the only writer of the log.

A command goes through `submit`: decided against the state, applied in memory at once (so
that the next command of the batch sees it), and written with the whole batch in one frame
with one sync.  Only then is anything told: **a reply, also a refusal, a no-op or a read,
is released once the last seq that was applied when it was computed is durable**.

Small requests for new jobs that come one after another are decided and applied together,
before anything else is decided or read.  Just before a commit the controller adds the
dispatches that have become possible: a job and its DISPATCH may share a sync.

When a batch goes off, and what becomes of it, stands in `group_commit`; how answers are given,
in `replies`.  What may not live here: scheduling (`dispatch`), files (`journal`), sockets
(`server`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from beaver.engine.admission import Admission
from beaver.engine.event_sizes import events_bytes_max, events_max
from beaver.engine.group_commit import Batch, GroupCommit
from beaver.engine.intake import Asked, Intake
from beaver.engine.replies import Applied, OnReply, Refused, Replies, Reply, call
from beaver.engine.stamps import Stamper
from beaver.errors import (
    BeaverError,
    DiskFull,
    LostLeadership,
    StorageFailed,
    StoreUnavailable,
)
from beaver.journal.port import Journal
from beaver.ports import Clock
from beaver_model import Rejection, State, apply_all, decide
from beaver_model.commands import (
    AnyCommand,
    Enqueue,
    NewJob,
)
from beaver_model.events import AnyEvent, QueueForgotten

T = TypeVar("T")


class NotOwner(AssertionError):
    """A thread other than the engine's used it: a bug in Beaver."""


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
        self.admission = Admission(state, journal.commit_bytes_max, state_bytes_max, reserve_bytes)
        self._owner = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        self._replies = Replies(self._loop)
        self._intake = Intake()
        self._commits = GroupCommit(
            journal,
            clock,
            self._replies,
            self._intake,
            self._loop,
            last_seq=state.last_seq,
            prepare=self._prepare,
            fail=self.fail,
        )
        self._failed: BaseException | None = None
        self._asking: set[asyncio.Future[Reply]] = set()
        """Futures waiting in `execute`."""

        self.before_commit: Callable[[int], None] | None = None
        """Called with the stamp just before each commit; may submit."""
        self.observers = self._commits.observers
        """Called after each commit with its first seq, its stamp and its events; may tell."""
        self.late_observers = self._commits.late_observers
        """The same, once all answers are given: what no client has to wait for."""
        self.counters = self._commits.counters

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
        return self._commits.durable_seq

    @property
    def clock_behind_ms(self) -> int:
        """How far the wall clock was behind the log at start."""
        return self._stamper.behind_ms

    def now_ms(self) -> int:
        """Returns the stamp of the open batch, or of one that would open now."""
        return self._commits.batch.now_ms or self._stamper.now_ms()

    # -- commands and reads --------------------------------------------------------------

    def submit(self, command: AnyCommand, done: OnReply) -> None:
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
        if self._commits.is_over:
            return
        self._change(command, answer, done)

    def enqueue(
        self,
        jobs: list[NewJob],
        answer: Callable[[list[NewJob], Reply], T],
        done: Callable[[T], None],
    ) -> None:
        """Submits an `Enqueue`, as `change` does, along with those of others that come now.

        `answer` also gets the jobs, so that one function serves every request of a client.
        """
        if threading.get_ident() != self._owner:
            raise NotOwner("commands are submitted on the loop's thread")
        if self._commits.is_over:
            return
        if self._intake.add(Asked(jobs, answer, done)):
            self._take_in()
        else:
            self._commits.touch()

    def _take_in(self) -> None:
        """Decides and applies what was asked for by `enqueue`: together, or else one by one."""
        everyone = self._intake.take()
        self.counters.taken_in = len(everyone)
        if self._commits.is_over:
            return
        if len(everyone) > 1 and self._take_in_together(everyone):
            return
        for asked in everyone:
            if self._failed is None:
                self._change(Enqueue(asked.jobs), partial(asked.answer, asked.jobs), asked.done)

    def _take_in_together(self, everyone: list[Asked]) -> bool:
        """Takes in all that was asked for; False, with nothing done, where some is not plain.

        Plain requests are admitted, are not refused, and are for new jobs: the events are then the
        same as if each request had been decided after the one before.
        """
        command = Enqueue([job for asked in everyone for job in asked.jobs])
        size = events_bytes_max(command, self._state)
        if size > self._commits.batch_bytes_max or self._admit(command, size) is not None:
            return False
        now_ms = self._commits.batch.now_ms or self._stamper.now_ms()
        events = decide(self._state, command, now_ms)
        if isinstance(events, Rejection) or not events or len(events) != len(command.jobs):
            return False
        if type(events[0]) is QueueForgotten:
            return False  # Of these jobs one is known, though there are as many events.
        seq = self._state.last_seq + 1
        self._apply(events, size, now_ms)
        # What was applied just now is not durable: every answer waits.
        waiting, start = self._commits.batch.waiting, 0
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

        Each is taken from the iterator once the one before is applied, so a generator may look at
        the state in between.  Commands that the model rejects are dropped; `refused` gets those
        that were not admitted, at once.  An exception in the generator fails the engine, since
        nobody else knows the commands that it had yet to yield.
        """
        if threading.get_ident() != self._owner:
            raise NotOwner("commands are submitted on the loop's thread")
        if self._intake.asked:
            self._take_in()
        try:
            for command in commands:
                if self._commits.is_over:
                    return
                outcome = self._carry_out(command)
                if isinstance(outcome, BeaverError):
                    refused(command, outcome)
        except Exception as error:
            self.fail(error)
            raise

    def _carry_out(self, command: AnyCommand) -> list[AnyEvent] | Rejection | BeaverError:
        """Admits, decides and applies a command; returns its events, or why there are none."""
        state = self._state
        size = events_bytes_max(command, state)
        refused = self._admit(command, size)
        if refused is not None:
            return refused
        now_ms = self._commits.batch.now_ms or self._stamper.now_ms()
        decision = decide(state, command, now_ms)
        if decision and not isinstance(decision, Rejection):
            self._apply(decision, size, now_ms)
        return decision

    def _apply(self, events: list[AnyEvent], size: int, now_ms: int) -> None:
        """Applies events and adds them to the open batch, which gets its stamp from the first."""
        try:
            apply_all(self._state, events, now_ms)
        except BaseException as error:
            self.fail(error)
            raise
        commits = self._commits
        batch = commits.batch
        batch.now_ms = now_ms
        batch.events += events
        batch.bytes += size
        if not commits.is_scheduled:
            commits.touch()

    def read(self, question: Callable[[State], T], done: Callable[[T], None]) -> None:
        """Asks the state and calls `done` once all that the answer rests on is durable."""
        if self._intake.asked:
            self._take_in()
        self._release(done, question(self.state))

    def once_durable(self, callback: Callable[[], None]) -> None:
        """Calls back once all that is applied by now is durable."""
        if self._intake.asked:
            self._take_in()
        self._release(call, callback)

    async def execute(self, command: AnyCommand) -> Applied:
        """Submits a command and waits for its reply.

        Raises:
            Refused: The model rejected it.
            QueueFull, DiskFull: It was not admitted.
            StorageFailed: The log failed; whether the command is durable is not known.
            LostLeadership: Another writer leads; the command is not in the log.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()

        def done(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        if self._commits.is_over and self._failed is None:
            raise StoreUnavailable("the server is shutting down; send it again")
        self.submit(command, done)
        if isinstance(self._failed, LostLeadership):
            raise self._failed
        if self._failed is not None:
            raise StorageFailed(str(self._failed))
        self._asking.add(future)
        try:
            reply = await future
        finally:
            self._asking.discard(future)
        if isinstance(reply, Rejection):
            raise Refused(reply)
        if isinstance(reply, BeaverError):
            raise reply
        return reply

    def once_told(self, callback: Callable[[], None]) -> None:
        """Calls back when all answers of the commit under way are told, else in the next turn.

        Lets a transport send all answers of one commit in a single write.
        """
        self._replies.once_told(callback)

    def touch(self) -> None:
        """Makes a commit run soon, so that the controller looks for work."""
        self._commits.touch()

    def has_room(self, size: int) -> bool:
        """True where `size` more bytes of events would fit into the log."""
        return self._commits.reserve(size) > 0

    # -- committing ------------------------------------------------------------------------

    @property
    def open_batch(self) -> Batch:
        """What is applied and not yet written, and who waits for it; for looking only."""
        return self._commits.batch

    @property
    def under_way(self) -> Batch | None:
        """The batch that is being written."""
        return self._commits.under_way

    def flush(self) -> None:
        """Commits at once whatever is open, and returns when it is durable."""
        if self._intake.asked:
            self._take_in()
        self._commits.flush()

    def close(self) -> None:
        """Commits what is open and closes the log.  Nothing can be submitted after."""
        self.flush()
        self._commits.is_over = True
        if self._failed is None:
            self._journal.close()
        else:
            self._journal.abandon()

    def discard(self) -> None:
        """Gives up what was not written, and the log as it is: another writer leads."""
        self._commits.is_over = True
        self._journal.abandon()

    def _release(self, done: Callable[[T], None], answer: T) -> None:
        """Gives the answer now if nothing speculative is in it, else with the commit."""
        if self._failed is not None:
            return
        commits = self._commits
        if commits.durable_seq == self._state.last_seq:
            self._replies.tell(done, answer)
            return
        commits.batch.waiting.append((done, answer))
        if not commits.is_scheduled:
            commits.touch()

    def _prepare(self) -> None:
        """Decides what belongs into the commit that is about to be written."""
        if self._intake.asked:
            self._take_in()
        if not self._commits.is_over and self.before_commit is not None:
            try:
                self.before_commit(self.now_ms())
            except Exception as error:  # noqa: BLE001 - half a round of dispatches is no state
                self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Makes the engine useless: memory and log may differ from here on."""
        self._failed = error
        self._commits.is_over = True
        if isinstance(error, LostLeadership):
            # Nothing of theirs will ever be in the log, so they may be told that.
            for future in [*self._asking]:
                future.set_exception(error)
        self._on_failure(error)

    # -- admission ---------------------------------------------------------------------------

    def _admit(self, command: AnyCommand, size: int) -> BeaverError | None:
        """Says why a command may not even be decided; makes room for it in the log."""
        admission = self.admission
        refused = admission.refuse(command, size)
        if refused is not None:
            return refused
        if self._commits.make_room(size, events_max(command), admission.reserve_of(command)):
            return None
        if self._failed is not None:
            return StorageFailed(str(self._failed))
        return DiskFull("the disk is full; nothing was changed and nothing is lost")


def _same(reply: Reply) -> Reply:
    return reply
