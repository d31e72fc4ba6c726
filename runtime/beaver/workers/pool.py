"""`ProcessPool`: the real `ports.Pool`.

Everything here runs on the server's loop and nothing waits.  The order at a worker's end is
fixed: the zygote has reaped it and seen its group empty, then its last outcomes are
delivered, then its end is reported, then its number may be used again.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from beaver.errors import AppImportError
from beaver.ports import PoolEvents
from beaver.structs.messages import Attempt, Outcome, TaskInfo
from beaver.system.kinship import kill_group
from beaver.text.foreign import cut
from beaver.workers import wire
from beaver.workers.host import REAL, Host
from beaver.workers.mailbox import Mailbox
from beaver.workers.pool_options import PoolOptions, check_tasks
from beaver.workers.slots import Slots
from beaver.workers.starts import Starts
from beaver.workers.zygote_process import ZygoteProcess

FAILURES_MAX: Final = 5
"""Zygotes lost, or rounds of workers that end before they are ready, until the pool fails."""
FAILURES_WITHIN_S: Final = 10.0
BROKEN_WAIT_S: Final = 1.0
"""How long a worker may take to end after it has closed its stream."""
ANSWER_WAIT_S: Final = 10.0
"""How long a zygote may take to say that it has sent a kill; one that hangs is killed."""
STOP_WAIT_S: Final = 6.0
"""How long a zygote may take to kill and reap its workers; it gives up a little earlier."""

PUT_OFF_S: Final = 1.0
"""Seconds after which a worker that found no descriptor is started again."""
IMPORT_CHARS_MAX: Final = 64 << 10
"""Characters that are shown of a failed import."""

_log: Final = logging.getLogger("beaver.workers")


class ProcessPool:
    """The worker processes behind a zygote."""

    def __init__(self, options: PoolOptions, host: Host = REAL) -> None:
        self.options = options
        self._host = host
        self.app_store = ""
        """Where the application says that its store is; known once it is imported."""
        self.notice = ""
        """Why workers are spawned instead of forked; empty where they are forked."""
        self._config = options.worker_config()
        self._mark = options.mark
        self._slots: Slots | None = None
        self._starts: Starts | None = None
        self._zygote: ZygoteProcess | None = None
        self._ready: asyncio.Future[Sequence[TaskInfo]] | None = None
        self._by_number: dict[int, Mailbox] = {}
        self._by_birth: dict[int, Mailbox] = {}
        self._births = 0
        self._put_off_adds: dict[int, asyncio.TimerHandle] = {}
        """Workers that could not be started for want of descriptors."""
        self._put_off_told = False
        self._failures: deque[float] = deque()
        self._early_deaths: deque[float] = deque()
        self._revivals: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._leaving = False

    # -- start ------------------------------------------------------------------------------

    async def start(self, events: PoolEvents) -> Sequence[TaskInfo]:
        """Starts the zygote, which imports the application, and returns the tasks.

        Call it before lock, log and sockets are opened.  Workers need `attach` as well.

        Raises:
            AppImportError: The import failed or took too long; no process is left.
        """
        self._loop = asyncio.get_running_loop()
        self._events = events
        self._ready = self._loop.create_future()
        self._zygote = self._start_zygote()
        try:
            return await self._ready
        except BaseException:
            await self.stop()
            raise

    def claim(self, mark: str) -> int:
        """Marks what this pool starts, and kills what a dead server of that mark left.

        Call it under the lock, before the slots are read and BOOT is decided.  A zygote that
        was started under another mark gets this one before its first worker.

        Returns:
            How many processes were killed.
        """
        if mark != self._mark:
            self._mark = mark
            if self._zygote is not None:
                self._zygote.send(wire.Claim(mark))
        return self._host.kill_leftovers(mark)

    def attach(self, slots_path: str, last_seq: int) -> None:
        """Creates new slots.  Call it once BOOT is durable, before the first `add`.

        Args:
            slots_path: Where they are.
            last_seq: The log is durable up to here: every token to come is above.
        """
        assert self._slots is None
        store = bytes.fromhex(self._mark.partition("@")[0])
        self._slots = Slots.open(slots_path, self.options.workers, store, last_seq)
        self._starts = Starts(self._slots, self._by_number, self.broken)

    def join(self, former: ProcessPool) -> None:
        """Uses the slots of another pool; the numbers of their workers differ.

        Call it instead of `attach`.
        """
        assert self._slots is None
        assert former._slots is not None, "it has been attached"
        self._slots = former._slots
        self._starts = Starts(self._slots, self._by_number, self.broken)

    def leave(self) -> None:
        """No worker is added any more: nothing that is lost is replaced."""
        self._leaving = True

    def _start_zygote(self) -> ZygoteProcess:
        zygote = ZygoteProcess(
            self._config, self._mark, self._on_message, self._on_zygote_lost, self._host
        )
        self._loop.call_later(self.options.start_limit_ms / 1000, self._overdue_import, zygote)
        return zygote

    def _overdue_import(self, zygote: ZygoteProcess) -> None:
        """Ends a zygote whose import hangs: the first one's start fails, others are replaced."""
        if zygote is self._zygote and not zygote.ready:
            limit_s = self.options.start_limit_ms / 1000
            self._give_up(zygote, f"was not ready after {limit_s:g} s (start_timeout)")

    def _give_up(self, zygote: ZygoteProcess, how: str) -> None:
        """Kills a zygote that hangs."""
        zygote.hang_up()
        self._lose(zygote, f"{how}, and {zygote.kill()}")

    # -- the port ---------------------------------------------------------------------------

    def add(self, worker: int) -> None:
        """Starts the worker of that number; `worker_ready` follows."""
        if self._stopping:
            return
        assert worker not in self._by_number, f"worker {worker} is there already"
        assert self._slots is not None, "attach comes first"
        assert self._zygote is not None, "start comes first"
        self._slots.make_room(worker)
        try:
            # Whatever was written there since: what this one starts is above.
            self._slots.reset(worker)
            mailbox = Mailbox(self._loop, worker, self._births + 1, self)
            ends = mailbox.hand_over(self._slots.fd)
        except OSError as error:
            self._put_off(worker, error)
            return
        self._put_off_told = False
        self._births += 1
        self._by_number[worker] = self._by_birth[mailbox.birth] = mailbox
        self._zygote.send(wire.Add(worker, mailbox.birth), ends)

    def _put_off(self, worker: int, error: OSError) -> None:
        """Starts a worker later, since there is no descriptor for it now."""
        if not self._put_off_told:
            self._put_off_told = True
            _log.warning(
                "worker %d cannot be started (%s), and is tried again every %g s",
                worker,
                error.strerror or error,
                PUT_OFF_S,
            )
        self._put_off_adds[worker] = self._loop.call_later(PUT_OFF_S, self._add_again, worker)

    def _add_again(self, worker: int) -> None:
        del self._put_off_adds[worker]
        self.add(worker)

    def _forget_add(self, worker: int) -> None:
        """Reports the end of a worker whose start was postponed."""
        timer = self._put_off_adds.pop(worker, None)
        if timer is not None:
            timer.cancel()
            self._loop.call_soon(self._events.worker_exited, worker, 0, "was never started")

    def dispatch(self, worker: int, attempts: Sequence[Attempt]) -> None:
        """Sends attempts, which start in this order."""
        mailbox = self._by_number.get(worker)
        if mailbox is not None:
            mailbox.dispatch(attempts)

    def recall(self, worker: int) -> list[int]:
        """Takes back attempts that have not started and now never will: their tokens."""
        mailbox = self._by_number.get(worker)
        tokens = mailbox.recall() if mailbox is not None else []
        if mailbox is None or not tokens:
            return []
        started, _ = self.started(worker)
        if tokens[0] <= started:
            # Put there by user code: it runs, and must not be given to another worker.
            self.broken(mailbox, "what it has started lies among its permits")
            tokens = [token for token in tokens if token > started]
        return tokens

    def started(self, worker: int) -> tuple[int, int]:
        """Returns the highest token that a worker has started, and since when."""
        return self._starts.of(worker) if self._starts is not None else (0, 0)

    def cancel(self, worker: int, token: int) -> None:
        """Tells the user code softly; in the process executor `ctx.cancelled` says so."""
        mailbox = self._by_number.get(worker)
        if mailbox is not None:
            mailbox.cancel(token)

    def retire(self, worker: int) -> None:
        """Sends no more; the worker ends after what it has.  `worker_exited` follows."""
        mailbox = self._by_number.get(worker)
        if mailbox is not None:
            mailbox.end()
        self._forget_add(worker)

    def kill(self, worker: int) -> None:
        """Kills the worker's process group.  `worker_exited` follows once it is reaped."""
        self._forget_add(worker)
        mailbox = self._by_number.get(worker)
        if mailbox is not None and self._zygote is not None and not mailbox.killed:
            mailbox.killed = True
            self._zygote.send(wire.Kill(mailbox.birth))
            self._expect_answer(self._zygote, mailbox)

    def _expect_answer(self, zygote: ZygoteProcess, mailbox: Mailbox) -> None:
        """Kills a zygote that hangs, so that it cannot keep a kill waiting for ever."""

        def check() -> None:
            gone = self._by_birth.get(mailbox.birth) is not mailbox
            if zygote is not self._zygote or gone or mailbox.kill_is_told:
                return
            if not zygote.ready:
                self._expect_answer(zygote, mailbox)  # It imports, which has a limit of its own.
                return
            self._give_up(zygote, "hung and did not answer")

        self._loop.call_later(ANSWER_WAIT_S, check)

    async def stop(self) -> None:
        """Kills what is left, reaps it and ends the zygote; then reports each worker's end."""
        self._stopping = True
        for timer in self._put_off_adds.values():
            timer.cancel()
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.hang_up()
            # One that imports hears of it only afterwards, and has no workers to reap.
            if zygote.ready and not await zygote.wait(STOP_WAIT_S):
                _log.error("the zygote does not end by itself and is killed")
            zygote.kill()
            await self._host.kill_generation(self._mark, zygote.generation, STOP_WAIT_S)
        for revival in list(self._revivals):
            await revival
        for mailbox in list(self._by_birth.values()):
            self._finish(mailbox, "ended with the pool")
        if self._starts is not None:
            self._starts.close()
            self._starts = self._slots = None

    # -- what mailboxes say -----------------------------------------------------------------

    def ready(self, mailbox: Mailbox) -> None:
        self._events.worker_ready(mailbox.worker, mailbox.pid)

    def received(self, mailbox: Mailbox, outcomes: Sequence[Outcome]) -> None:
        started, _ = self.started(mailbox.worker)
        if any(outcome.token > started for outcome in outcomes):
            # Its permit is still in the pipe, or nowhere: it could start after its end.
            self.broken(mailbox, "it answers for an attempt that it has not started")
            outcomes = [outcome for outcome in outcomes if outcome.token <= started]
        self._events.outcomes(mailbox.worker, outcomes)

    def broken(self, mailbox: Mailbox, why: str, *, at_once: bool = True) -> None:
        """Kills a worker that can no longer be spoken with.

        One that has only closed its stream may be ending by itself, and gets a moment.
        """

        def kill() -> None:
            if self._by_birth.get(mailbox.birth) is mailbox and not mailbox.killed:
                _log.warning("worker %d is killed: %s", mailbox.worker, why)
                mailbox.fault = why
                self.kill(mailbox.worker)

        self._loop.call_later(0 if at_once else BROKEN_WAIT_S, kill)

    # -- what the zygote says ---------------------------------------------------------------

    def _on_message(self, message: Any) -> None:
        assert self._ready is not None
        if isinstance(message, wire.Exited):
            mailbox = self._by_birth.get(message.birth)
            if mailbox is not None:
                self._finish(mailbox, cut(message.detail, wire.DETAIL_CHARS_MAX))
        elif isinstance(message, wire.Killing):
            mailbox = self._by_birth.get(message.birth)
            if mailbox is not None:
                mailbox.kill_is_told = True
        elif isinstance(message, wire.ZygoteReady):
            check_tasks(message.tasks)
            if self._zygote is not None:
                self._zygote.ready = True
            self.app_store = message.store
            if message.notice and not self.notice:
                self.notice = cut(message.notice, wire.DETAIL_CHARS_MAX)
                _log.warning(
                    "workers are started afresh instead of forked from the imported "
                    "application, which takes longer: %s",
                    self.notice,
                )
            if not self._ready.done():
                self._ready.set_result(message.tasks)
        elif isinstance(message, wire.ImportFailed):
            if not self._ready.done():
                self._ready.set_exception(AppImportError(cut(message.message, IMPORT_CHARS_MAX)))
            elif not self._stopping:
                self._events.pool_failed(cut(message.message, IMPORT_CHARS_MAX))

    def _finish(self, mailbox: Mailbox, detail: str) -> None:
        """Reports the end of a worker that has been reaped."""
        self.started(mailbox.worker)  # A slot that lies is found while permits can be taken back.
        del self._by_birth[mailbox.birth]
        mailbox.close()
        started, _ = self.started(mailbox.worker)
        del self._by_number[mailbox.worker]
        if mailbox.fault:
            detail = f"was killed: {mailbox.fault}"
        if not mailbox.pid and not mailbox.killed and not self._stopping:
            self._count_early_death(mailbox, detail)
        self._events.worker_exited(mailbox.worker, started, detail)

    def _count_early_death(self, mailbox: Mailbox, detail: str) -> None:
        if self._too_many(self._early_deaths, FAILURES_MAX * self.options.workers):
            self._events.pool_failed(
                f"workers end before they can take a job; the last one {detail}"
            )

    # -- a lost zygote ----------------------------------------------------------------------

    def _on_zygote_lost(self, zygote: ZygoteProcess) -> None:
        if not self._stopping:
            self._lose(zygote, zygote.kill())

    def _lose(self, zygote: ZygoteProcess, how: str) -> None:
        """The zygote is dead, and its workers with it (PDEATHSIG): starts another one."""
        assert self._ready is not None
        self._zygote = None
        orphans = list(self._by_birth.values())
        failed = False
        if not self._ready.done():
            self._ready.set_exception(
                AppImportError(f"cannot import {self.options.app!r}: the process {how}")
            )
        elif self._leaving:
            _log.error("the former zygote %s; its workers are lost", how)
        else:
            _log.error("the zygote %s; its workers are lost, a new one is started", how)
            for mailbox in orphans:
                self.started(mailbox.worker)
            # Where jobs ran, one of them may have killed it: it pays with its attempts.
            useful = any(mailbox.useful for mailbox in orphans)
            failed = not useful and self._too_many(self._failures, FAILURES_MAX)
            if not failed:
                # Before a lost worker is reported, so that a replacement finds a zygote.
                self._zygote = self._start_zygote()
        revival = self._loop.create_task(self._bury(zygote, orphans))
        self._revivals.add(revival)
        revival.add_done_callback(self._revivals.discard)
        if failed:
            self._stopping = True
            self._events.pool_failed(
                f"the zygote was lost {FAILURES_MAX} times within {FAILURES_WITHIN_S:.0f} s; "
                f"at last it {how}"
            )

    async def _bury(self, zygote: ZygoteProcess, orphans: list[Mailbox]) -> None:
        """Reports the workers of a dead zygote, once nothing of them is left."""
        if sys.platform != "linux":
            for mailbox in orphans:
                if mailbox.pid:
                    kill_group(mailbox.pid)
        await self._host.kill_generation(self._mark, zygote.generation, STOP_WAIT_S)
        for mailbox in orphans:
            if mailbox.birth in self._by_birth:
                mailbox.killed = True
                self._finish(mailbox, "lost with the zygote")

    def _too_many(self, times: deque[float], maximum: int) -> bool:
        """Notes a failure; true where it makes `maximum` within the span."""
        now_s = self._loop.time()
        times.append(now_s)
        while times and times[0] < now_s - FAILURES_WITHIN_S:
            times.popleft()
        return len(times) >= maximum
