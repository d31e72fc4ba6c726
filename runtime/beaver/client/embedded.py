"""The client without a server: it appends alone, or has a keeper do it.

A lone change to a small store is made right here: it takes the lock, recovers the state from
the files, decides, appends one commit and gives the lock back. Where that would cost more than
starting a keeper (the store is large, others want to append as well, or the last change was just
now), a keeper is started, and this and later calls go to it.  Either way the commit
is durable on return, exactly as a server's answer.  Reading neither writes nor locks, and
starts nothing.  Jobs run only once a server does.

The calls are those of `calls`; what needs running workers (a `wait` for an unfinished job)
is refused with a hint.  If a server comes up meanwhile, the call goes there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, NoReturn, TypeVar

import msgspec

from beaver.client import blocking
from beaver.client.calls import Call, Operations, Synchronous
from beaver.client.local_store import LocalStore
from beaver.config.layers import Config
from beaver.engine.stamps import Stamper
from beaver.errors import (
    DiskFull,
    InvalidInput,
    NoServer,
    NotFound,
    ServerLeft,
    StoreUnavailable,
)
from beaver.holder.turn import Turn, try_turn
from beaver.inspect import matching, queries
from beaver.journal.codec import encode_commit
from beaver.journal.port import OVERHEAD_BYTES, Journal, append_now
from beaver.journal.wal.format import STORE_ID_BYTES
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import LOCK_WAIT_S, Patience, prepare_directory, silent_server
from beaver.journal.wal.log import SERVER_BYTES, Wal
from beaver.journal.wal.opening import OwnedWal, peek_store, require_store, try_own
from beaver.limits import hint
from beaver.ports import Clock, Disk
from beaver.request.operations import BULK, ENQUEUE
from beaver.request.rejections import error_of
from beaver.request.resolving import Resolver
from beaver.snapshot.files import FileSnapshots
from beaver.store.holding import Holding
from beaver.store.rebuild import Recovered, recover
from beaver.store.recovery import read_store
from beaver.store.shipped import ships
from beaver.store.weighing import bytes_to_recover
from beaver.structs.questions import Known, Search, Told
from beaver.structs.views import JobView, StatusView
from beaver.system.clock import SystemClock, SystemEntropy
from beaver.system.disk import SystemDisk
from beaver.system.ownership import said_by
from beaver.text.foreign import counted
from beaver.transport import endpoint
from beaver_model import Rejection, State, apply, decide
from beaver_model.bounds import BATCH_BYTES_MAX
from beaver_model.commands import AnyCommand, Enqueue
from beaver_model.events import AnyEvent

T = TypeVar("T")

REPLAYED_MAX: Final = 500_000
"""Events that a command replays, in under a second, before it shortens the log."""
SMALL_BYTES: Final = 1 << 20
"""A store up to this size recovers faster than a keeper starts."""
RECENT_S: Final = 1.0
"""A producer that changes something again within this time is better served by a keeper."""
RESTARTS_S: Final = 10.0
"""How long a call is retried because the server or keeper has ended."""
TOGETHER: Final = 500
"""Changes of many jobs that one commit holds."""
STARTS_MAX: Final = 3
"""Attempts to start a keeper that ends before it is found; after these the change is made here."""


class _Served(Exception):
    """A server or keeper now serves the store: the call goes there."""

    def __init__(self, server: blocking.Client) -> None:
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
        kept: blocking.Client | None = None,
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
    def resolver(self) -> Resolver:
        """The producer's own settings, read when a job needs them."""
        if self._given_resolver is None:
            self._given_resolver = self._settings.resolver()
        return self._given_resolver

    @property
    def _settings(self) -> Config:
        if self._given_settings is None:
            from beaver.config.layers import load_config

            self._given_settings = load_config({"data": self.data})
        return self._given_settings

    def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        until_s = time.monotonic() + RESTARTS_S
        while True:
            try:
                if (kept := self._connected()) is not None:
                    return kept.call(call)
                return self._carry_out(call)
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

    def detach(self) -> blocking.Client | None:
        """Gives up the connection to the current server or keeper, and returns it."""
        kept, self._kept = self._kept, None
        return kept

    def _connected(self) -> blocking.Client | None:
        """Returns the connection to who serves the store, if that was so at the last call."""
        if self._kept is not None:
            self._kept.notice()
            if self._kept.closed:
                self.close()
                with contextlib.suppress(NotFound):
                    self._kept = blocking.find(self.data)
        return self._kept

    def _carry_out(self, call: Call[T]) -> T:
        operation = call.operation
        if operation.of_server:
            raise blocking.no_server(self.data)
        if not operation.changes or (operation is BULK and call.body.dry_run):
            return self._look().call(call)
        if operation is ENQUEUE and not call.body.jobs:
            return call.finish([])
        with self._opened(create=operation is ENQUEUE) as (opened, now_ms):
            commit = partial(self._commit, opened.state, opened.journal, now_ms)
            by = said_by(os.geteuid())
            each = partial(self._commit_each, opened.state, opened.journal, now_ms)
            store = LocalStore(opened.state, commit, self, lambda: now_ms, _refuse, each, by)
            return store.call(call)

    # -- changes -------------------------------------------------------------------------

    def _commit(self, state: State, journal: Journal, now_ms: int, command: AnyCommand) -> None:
        """Decides, applies and appends; the commit is durable on return."""
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
        left = SERVER_BYTES if isinstance(command, Enqueue) else 0
        if not journal.reserve(len(payload) + OVERHEAD_BYTES + left):
            raise DiskFull("the disk is full; nothing was changed and nothing is lost")
        for event in decision:
            apply(state, event, now_ms)
        append_now(journal, payload, len(decision))

    def _commit_each(
        self, state: State, journal: Journal, now_ms: int, commands: Sequence[AnyCommand]
    ) -> int:
        """Carries out those that are not rejected, some at a time; returns how many.

        Where it raises, the state is not to be used any more.
        """
        done = 0
        for at in range(0, len(commands), TOGETHER):
            before, events = done, list[AnyEvent]()
            for command in commands[at : at + TOGETHER]:
                decision = decide(state, command, now_ms)
                if isinstance(decision, Rejection):
                    continue
                done += 1
                for event in decision:
                    apply(state, event, now_ms)
                events += decision
            if not events:
                continue
            payload = encode_commit(now_ms, events)
            if not journal.reserve(len(payload) + OVERHEAD_BYTES):
                raise DiskFull(f"the disk is full; changed before: {counted(before, 'job')}")
            append_now(journal, payload, len(events))
        return done

    @contextmanager
    def _opened(self, *, create: bool) -> Iterator[tuple[Recovered[Wal], int]]:
        """Owns the log over recovery, one commit and its closing."""
        if create:
            prepare_directory(self._disk, self.data)
        else:
            endpoint.require_directory(self.data)
            require_store(self._disk, self.data)
        turn, owned = self._own(create=create)
        with turn:
            try:
                snapshots = FileSnapshots(self._disk, owned.layout)
                opened = recover(owned, snapshots, self._clock.monotonic_ns)
                yield opened, Stamper(self._clock, opened.state.time_ms).now_ms()
                if opened.report.events >= REPLAYED_MAX:
                    # Seldom, so what it takes is loaded only then.
                    from beaver.client.compaction import shorten_log

                    shorten_log(self._disk, opened.journal, snapshots, opened.state)
                opened.journal.close()
            finally:
                # Refused, or the log failed: the next process to open it recovers it.
                owned.abandon()
            self._alone_s = time.monotonic()

    def _own(self, *, create: bool) -> tuple[Turn, OwnedWal]:
        """Returns turn and log, to append alone; the next one waits for both.

        Raises:
            _Served: Another process serves the store, or a keeper was started here.
            StoreUnavailable: Neither for a while.
        """
        patience, waited, started = Patience(self.data, self._lock_wait_s), False, 0
        store = SystemEntropy().token_bytes(STORE_ID_BYTES) if create else None
        while True:
            # Before the look: who has the turn knows that nobody begins to listen meanwhile.
            turn = self._try_turn()
            owned: OwnedWal | None = None
            try:
                if (server := blocking.find(self.data)) is not None:
                    raise _Served(server)
                if turn is not None:
                    owned = try_own(self._disk, self.data, clock=self._clock, store=store)
                if turn is not None and owned is not None:
                    if started == STARTS_MAX or not self._wants_keeper(waited):
                        held, turn, owned = (turn, owned), None, None
                        return held
                    owned.abandon()  # The keeper takes it.
                    owned = None
                    started = started + 1 if self._start_keeper() else STARTS_MAX
                    continue
            finally:
                if owned is not None:
                    owned.abandon()
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
        from beaver.holder import starting

        return starting.start(self._settings)

    # -- questions -----------------------------------------------------------------------

    def _look(self) -> LocalStore:
        """Returns what the files hold now, which is not to be changed."""
        endpoint.require_directory(self.data)
        state, report = read_store(self._disk, self.data, clock=self._clock)
        now_ms = max(self._clock.wall_ms(), state.time_ms)
        while state.advance(now_ms):
            pass
        store, layout = peek_store(self._disk, self.data), Layout(self.data)

        def status(state: State) -> StatusView:
            view = queries.status(
                state,
                now_ms,
                running=False,
                store=store.hex() if store else "",
                recovery_ms=report.total_ms,
                recovery=msgspec.to_builtins(report),
            )
            view.silent = silent_server(self.data)
            view.storage = Holding(self._disk, layout).look()
            view.ships = ships(self._disk, layout, state.last_seq, now_ms)
            return view

        return LocalStore(state, _refuse, self, lambda: now_ms, status, _refuse)

    def tell(self, state: State, job: str) -> Told:
        """Returns the kept events of a job."""
        from beaver.history import stories  # SQLite is needed for these questions alone

        known = Known(job, state.seq_of(job) or 0, job in state.tombstones)
        told = stories.tell(self._disk, Layout(self.data), [known])
        return Told(told.by_job[job], told.as_of_seq, told.first_seq)

    def find(self, state: State, search: Search) -> list[JobView]:
        """Returns finished jobs in the order in which they ended."""
        from beaver.history import stories  # as above

        while True:
            views, listed = stories.find_finished(self._disk, Layout(self.data), search)
            search.after_seq = listed.next_seq
            if views or not listed.next_seq:
                return views

    def first_since(self, state: State, time_ms: int) -> int:
        """Returns the seq of the first job that came in at a time or later."""
        from beaver.history.walking import Walker  # as above

        walker, last_seq = Walker(self._disk, Layout(self.data)), state.last_seq
        return matching.answered(
            matching.first_since(time_ms, last_seq),
            lambda wanted, after_seq: walker.enqueued(wanted, after_seq, last_seq, 1),
        )

    def no_server(self, job: str) -> NoServer:
        """Returns the error that answers a wait for a job that has not ended."""
        return blocking.no_server(self.data, f"so job {job} cannot end")


def _refuse(asked: object) -> NoReturn:
    raise AssertionError(f"a question changes nothing, and a change asks none: {asked}")
