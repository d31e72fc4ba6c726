"""The client without a server: it appends alone, or has a keeper do it.

A lone change to a small store is made right here: it takes the lock, recovers the state from
the files, decides, appends one commit and gives the lock back.  Where that would cost more
than a keeper's start (the store is large, others want to append as well, or the last change
was just now), a keeper is started, and it and the next ones go there.  Either way the commit
is durable on return, exactly as a server's answer.  Reading neither writes nor locks, and
starts nothing.  Jobs run only once a server does.

The calls are those of `calls`; what needs running workers (a `wait` for an unfinished job)
is refused with a hint.  If a server comes up meanwhile, the call goes there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from beaver import client, endpoint, jsontext, queries
from beaver.admission import refusal
from beaver.calls import Call, Operations, Synchronous
from beaver.clock import SystemClock
from beaver.config import Config
from beaver.disk import SystemDisk
from beaver.errors import (
    DiskFull,
    InvalidInput,
    NotFound,
    ServerLeft,
    StoreUnavailable,
)
from beaver.journal.codec import encode_commit
from beaver.journal.port import OVERHEAD_BYTES, append_now
from beaver.keeper.turn import Turn, try_turn
from beaver.layout import Layout
from beaver.limits import hint
from beaver.locking import LOCK_WAIT_S, Patience, prepare_directory, silent_server, try_lock
from beaver.messages import Request
from beaver.names import check_name
from beaver.ports import Clock, DirectoryLock, Disk
from beaver.questions import Known, Search, Stories
from beaver.recovery import Opened, open_store, peek_store, read_store
from beaver.refusals import error_of
from beaver.resolving import Resolver
from beaver.stamps import Stamper
from beaver.texts import counted
from beaver.views import (
    Enqueued,
    EventView,
    ExplainView,
    JobView,
    QueueView,
    ReloadView,
    ResultView,
    StatusView,
)
from beaver.weighing import bytes_to_recover
from beaver_model import Rejection, State, apply, decide
from beaver_model.bounds import BATCH_BYTES_MAX
from beaver_model.commands import AnyCommand, Cancel, Discard, Enqueue, Requeue, SetQueue

T = TypeVar("T")

REPLAYED_MAX: Final = 500_000
"""Events that a command replays, in under a second, before it shortens the log."""
SMALL_BYTES: Final = 1 << 20
"""Of so much a store recovers in less time than a keeper needs for its start."""
RECENT_S: Final = 1.0
"""Who changes something again within this time is better served by a keeper."""
RESTARTS_S: Final = 10.0
"""So long a call is begun anew, because whoever served the store has ended."""
STARTS_MAX: Final = 3
"""Keepers that are gone before they were found, after which a change is made here."""


class _Served(Exception):
    """Somebody serves the store by now: the call belongs there."""

    def __init__(self, server: client.Client) -> None:
        super().__init__("a server runs now")
        self.server = server


class EmbeddedClient(Operations, Synchronous):
    """Works on the files of a store that no server holds.  Get one from `open_client`."""

    runs_jobs: Final = False

    def __init__(
        self,
        data: str,
        *,
        resolver: Resolver | None = None,
        disk: Disk | None = None,
        clock: Clock | None = None,
        lock_wait_s: float = LOCK_WAIT_S,
        settings: Config | None = None,
        kept: client.Client | None = None,
    ) -> None:
        """Makes a client of a directory; nothing is opened or locked before a call.

        Args:
            data: The data directory; an enqueue makes it if need be.
            resolver: Fills in what requests leave open, as a server's would; by default from
                the environment and `beaver.yaml`, as a server and the command line do.
            settings: Those of a keeper that has to be started, with the same default.
            kept: A connection to the keeper that runs.
            disk: The files.
            clock: For stamps.
            lock_wait_s: How long to wait for another process that holds the lock.
        """
        self.data = data
        self.closed = False
        self._given_resolver = resolver
        self._disk = disk or SystemDisk()
        self._clock = clock or SystemClock()
        self._lock_wait_s = lock_wait_s
        self._given_settings = settings
        self._kept = kept
        self._alone_s = float("-inf")
        """When the last change was made here."""

    @property
    def _resolver(self) -> Resolver:
        """What the settings of this producer say, read where a job asks for them."""
        if self._given_resolver is None:
            self._given_resolver = self._settings.resolver()
        return self._given_resolver

    @property
    def _settings(self) -> Config:
        if self._given_settings is None:
            from beaver.config import load_config

            self._given_settings = load_config({"data": self.data})
        return self._given_settings

    def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        until_s = time.monotonic() + RESTARTS_S
        while True:
            try:
                if (kept := self._connected()) is not None:
                    return kept.call(call)
                return call.finish(_HANDLERS[call.op](self, *call.body))
            except _Served as served:
                self._kept = served.server
            except ServerLeft:
                # A keeper ends when it was not needed, or for a server: nothing was done.
                if time.monotonic() > until_s:
                    raise

    def close(self) -> None:
        """Ends the connection to a keeper, if there is one."""
        if (kept := self.detach()) is not None:
            kept.close()

    def detach(self) -> client.Client | None:
        """Gives up the connection to whoever serves the store by now, and returns it."""
        kept, self._kept = self._kept, None
        return kept

    def _connected(self) -> client.Client | None:
        """Returns the connection to who serves the store, if that was so at the last call."""
        if self._kept is not None:
            self._kept.notice()
            if self._kept.closed:
                self.close()
                with contextlib.suppress(NotFound):
                    self._kept = client.find(self.data)
        return self._kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- changes -------------------------------------------------------------------------

    def do_enqueue(self, requests: Sequence[Request]) -> list[Enqueued]:
        if not requests:
            return []
        with self._opened(create=True) as (opened, now_ms):
            state = opened.state
            jobs = [self._resolver.job(request, now_ms) for request in requests]
            full = refusal(state, jobs)
            if full is not None:
                raise full
            first_seq = state.last_seq + 1
            self._commit(opened, Enqueue(jobs), now_ms)
            found = ((job.id, state.seq_of(job.id)) for job in jobs)
            return [Enqueued(i, seq, seq >= first_seq) for i, seq in found if seq is not None]

    def do_cancel(self, job: str) -> str:
        return self._change(Cancel(job), lambda state: queries.changed_word(state, job))

    def do_requeue(self, job: str, payload: bytes | None) -> str:
        if payload is not None:
            payload = jsontext.check(payload, self._resolver.payload_bytes_max, "payload")
        return self._change(Requeue(job, payload), lambda state: queries.changed_word(state, job))

    def do_discard(self, job: str) -> str:
        return self._change(Discard(job), lambda state: queries.changed_word(state, job))

    def do_set_queue(
        self,
        queue: str,
        paused: bool | None,
        weight: int | None,
        bytes_max: int | None,
        durable_dispatch: bool | None,
    ) -> QueueView:
        check_name(queue, "queue")

        def view(state: State) -> QueueView:
            index = state.queues.get(queue)
            return QueueView() if index is None else queries.queue_view(index, state.time_ms)

        return self._change(SetQueue(queue, paused, weight, bytes_max, durable_dispatch), view)

    def _change(self, command: AnyCommand, told: Callable[[State], T]) -> T:
        with self._opened(create=False) as (opened, now_ms):
            self._commit(opened, command, now_ms)
            return told(opened.state)

    def _commit(self, opened: Opened, command: AnyCommand, now_ms: int) -> None:
        """Decides, applies and appends; the commit is durable on return."""
        state, wal = opened.state, opened.wal
        decision = decide(state, command, now_ms)
        if isinstance(decision, Rejection):
            raise error_of(decision)
        if not decision:
            return
        payload = encode_commit(now_ms, decision)
        if len(payload) > BATCH_BYTES_MAX and len(decision) > 1:
            raise InvalidInput(
                f"{counted(len(decision), 'job')} of {len(payload)} bytes in one commit; at most "
                f"{BATCH_BYTES_MAX} bytes fit; {hint('batch_bytes')}"
            )
        if not wal.reserve(len(payload) + OVERHEAD_BYTES):
            raise DiskFull("the disk is full; nothing was changed and nothing is lost")
        for event in decision:
            apply(state, event, now_ms)
        append_now(wal, payload, len(decision))

    @contextmanager
    def _opened(self, *, create: bool) -> Iterator[tuple[Opened, int]]:
        """Holds the lock over recovery, one commit and the closing of the log."""
        if create:
            prepare_directory(self._disk, self.data)
        else:
            self._require_store()
        turn = self._turn()
        lock: DirectoryLock | None = None
        try:
            lock = self._lock()
            opened = open_store(self._disk, self.data, clock=self._clock, create=create)
            try:
                yield opened, Stamper(self._clock, opened.state.time_ms).now_ms()
                if opened.report.events >= REPLAYED_MAX:
                    # Seldom, so what it takes is loaded only then.
                    from beaver.upkeep import shorten_log

                    shorten_log(self._disk, Layout(self.data), opened)
            except BaseException:
                # Refused, or the log failed: whoever opens it next recovers it.
                opened.wal.abandon()
                raise
            opened.wal.close()
            self._alone_s = time.monotonic()
        finally:
            if lock is not None:
                lock.release()
            turn.release()

    def _require_store(self) -> None:
        """Checks that there is something to change, so that a mere look creates nothing."""
        endpoint.require_directory(self.data)
        layout = Layout(self.data)
        if not any(map(self._disk.exists, (layout.lock, layout.log, layout.snapshot))):
            raise NotFound(f"{self.data} holds no queue")

    def _turn(self) -> Turn:
        """Returns the turn to append alone, which the next one waits for.

        Raises:
            _Served: Somebody serves the store: who was there, or a keeper, started here.
            StoreUnavailable: Neither for a while.
        """
        patience, waited, started = self._patience(), False, 0
        while True:
            # Before the look: who has the turn knows that nobody begins to listen meanwhile.
            turn = self._try_turn()
            try:
                if (server := client.find(self.data)) is not None:
                    raise _Served(server)
                if turn is not None:
                    wanted = started < STARTS_MAX and self._wants_keeper(waited)
                    if wanted and self._start_keeper():
                        started += 1
                        continue
                    found, turn = turn, None
                    return found
            finally:
                if turn is not None:
                    turn.release()
            waited = True
            patience.wait()

    def _try_turn(self) -> Turn | None:
        try:
            return try_turn(self.data)
        except OSError as error:
            raise StoreUnavailable(f"cannot open {self.data}: {error.strerror}") from error

    def _wants_keeper(self, waited: bool) -> bool:
        """True where a keeper costs less than what is done without one."""
        if self._settings.keeper_idle_ms == 0:
            return False
        recent = time.monotonic() - self._alone_s < RECENT_S
        return waited or recent or bytes_to_recover(self._disk, Layout(self.data)) > SMALL_BYTES

    def _start_keeper(self) -> bool:
        from beaver.keeper import starting

        return starting.start(self._settings)

    def _patience(self) -> Patience:
        return Patience(self.data, self._lock_wait_s)

    def _lock(self) -> DirectoryLock:
        patience = self._patience()
        while True:
            lock = try_lock(self._disk, self.data)
            if lock is not None:
                return lock
            server = client.find(self.data)
            if server is not None:
                raise _Served(server)
            patience.wait()

    # -- questions -----------------------------------------------------------------------

    def _read(self) -> tuple[State, Any]:
        """Returns the state that the files hold now, and the report of reading it."""
        endpoint.require_directory(self.data)
        state, report = read_store(self._disk, self.data, clock=self._clock)
        now_ms = self._now_ms(state)
        while state.advance(now_ms):
            pass
        return state, report

    def _now_ms(self, state: State) -> int:
        return max(self._clock.wall_ms(), state.time_ms)

    def do_status(self) -> StatusView:
        state, report = self._read()
        store = peek_store(self._disk, self.data)
        view = queries.status(
            state,
            self._now_ms(state),
            running=False,
            store=store.hex() if store else "",
            recovery_ms=sum(report.seconds.values()) * 1000,
            recovery=msgspec.to_builtins(report),
        )
        view.silent = silent_server(self.data)
        return view

    def do_list(
        self,
        word: str,
        queue: str,
        task: str,
        after_seq: int,
        limit: int,
        tag: str = "",
        since_ms: int = 0,
        until_ms: int = 0,
    ) -> list[JobView]:
        state = self._read()[0]
        queries.check_listing(word, limit, since_ms, until_ms, after_seq)
        if word not in queries.FINISHED:
            found = queries.find_jobs(state, word, queue, task, after_seq, limit, tag)
            return queries.at_once(found)
        from beaver import stories  # SQLite is needed for these questions alone

        limit = limit or queries.LIST_LIMIT_MAX
        search = Search(word, queue, task, tag, since_ms, until_ms, after_seq, limit)
        views: list[JobView] = []
        while not views:
            views, listed = stories.find_finished(self._disk, Layout(self.data), search)
            search.after_seq = listed.next_seq
            if not listed.next_seq:
                break
        return views

    def do_show(self, job: str) -> JobView:
        state = self._read()[0]
        if job in state.jobs:
            return queries.show(state, job)
        told = self._tell(state, job)
        return queries.show_finished(state, job, told.by_job[job], told.as_of_seq)

    def do_explain(self, job: str) -> ExplainView:
        state = self._read()[0]
        told = self._tell(state, job)
        return queries.explain(
            state, job, told.by_job[job], told.first_seq, told.as_of_seq, state.last_seq
        )

    def _tell(self, state: State, job: str) -> Stories:
        from beaver import stories  # as above

        known = Known(job, state.seq_of(job) or 0, job in state.tombstones)
        return stories.tell(self._disk, Layout(self.data), [known])

    def do_history(self, job: str) -> list[EventView]:
        return self.do_explain(job).events

    def do_wait(self, job: str, timeout_ms: int) -> ResultView:
        state, _ = self._read()
        kept = None
        if job not in state.jobs:
            kept = queries.result_told(job, self._tell(state, job).by_job[job])
        found = queries.result(state, job, kept)
        if found is None:
            raise client.no_server(self.data, f"so job {job} cannot end")
        return found

    def do_reload(self) -> ReloadView:
        raise client.no_server(self.data)


_HANDLERS: Final[dict[str, Callable[..., Any]]] = {
    "enqueue": EmbeddedClient.do_enqueue,
    "status": EmbeddedClient.do_status,
    "list": EmbeddedClient.do_list,
    "show": EmbeddedClient.do_show,
    "explain": EmbeddedClient.do_explain,
    "history": EmbeddedClient.do_history,
    "wait": EmbeddedClient.do_wait,
    "cancel": EmbeddedClient.do_cancel,
    "requeue": EmbeddedClient.do_requeue,
    "discard": EmbeddedClient.do_discard,
    "set_queue": EmbeddedClient.do_set_queue,
    "reload": EmbeddedClient.do_reload,
}
