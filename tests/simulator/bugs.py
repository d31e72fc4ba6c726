"""Seeded bugs: each breaks one rule of the real code, and says how that is to be noticed.

A bug is a function that patches the code as it stands, so it goes out of date loudly: a
name that is gone fails the test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from beaver.dispatch.crews import Crews
from beaver.dispatch.dispatching import Dispatching
from beaver.dispatch.outcome_handler import OutcomeHandler
from beaver.dispatch.outcomes import command_of
from beaver.dispatch.slots_view import KillCause
from beaver.dispatch.submitting import Submitter
from beaver.dispatch.supervision import Supervisor
from beaver.engine.engine import Engine
from beaver.engine.group_commit import GroupCommit
from beaver.engine.replies import Applied
from beaver.helper import work
from beaver.journal.wal.log import Wal
from beaver.journal.wal.scan import SegmentScan
from beaver.server import assembly
from beaver.snapshot import files
from beaver.workers.inbox import Inbox
from beaver_chaos.sim.disk import SimFile
from beaver_chaos.sim.hardware import SimClock
from beaver_chaos.sim.pool import SimPool
from beaver_chaos.sim.server import ServerLife
from beaver_chaos.sim.store_disk import ProcessDisk
from beaver_model import State, deciding
from beaver_model.commands import AnyCommand, Boot, CompleteBatch, Enqueue, Expire
from beaver_model.events import Acked, Cause
from beaver_model.index import Lane

Patch = pytest.MonkeyPatch


class Bug(NamedTuple):
    """One broken rule."""

    sow: Callable[[Patch], None]
    noticed: str
    """A pattern that one of the violations matches."""
    seeds: int = 400
    """Within so many seeds it has to be found."""
    favour: str = ""
    """The fault that brings it to light, where it takes a rare one."""


def _reply_before_sync(patch: Patch) -> None:
    def release(self: Engine, done: Any, reply: Any) -> None:
        self._replies.tell(done, reply)
        self.touch()

    patch.setattr(Engine, "_release", release)


def _slot_behind_user_code(patch: Patch) -> None:
    begin = Inbox._begin

    def late(self: Inbox, token: int) -> None:
        before = self.started
        begin(self, token)
        self._slot.start(before, self._now_ns())

    patch.setattr(Inbox, "_begin", late)


def _slots_read_before_leftovers_are_killed(patch: Patch) -> None:
    claim, early = SimPool.claim, dict[int, Any]()

    def read_first(self: SimPool, mark: str) -> int:
        early[id(self._world)] = self._world.slots.read()
        return claim(self, mark)

    patch.setattr(SimPool, "claim", read_first)
    patch.setattr(ServerLife, "_read_slots", lambda self, _: early[id(self.world)])


def _duplicate_before_the_originals_sync(patch: Patch) -> None:
    change = Engine._change

    def early(self: Engine, command: AnyCommand, answer: Any, done: Any) -> None:
        if isinstance(command, Enqueue) and deciding.decide(self.state, command, 0) == []:
            done(answer(Applied(0, [])))
        else:
            change(self, command, answer, done)

    patch.setattr(Engine, "_change", early)


def _log_written_and_not_synced(patch: Patch) -> None:
    def write(self: Wal, frame: bytes, offset: int) -> None:
        try:
            self._file.pwrite(frame, offset)
        except OSError as error:
            self._fail("writing", error)
        self._confirm()

    patch.setattr(Wal, "_write_durable", write)


def _dispatch_before_sync(patch: Patch) -> None:
    fill = Dispatching._fill

    def eager(self: Dispatching, state: State, workers: Any, now_ms: int) -> None:
        wait = self._engine.once_durable
        self._engine.once_durable = lambda callback: callback()  # type: ignore[method-assign]
        try:
            fill(self, state, workers, now_ms)
        finally:
            self._engine.once_durable = wait  # type: ignore[method-assign]

    patch.setattr(Dispatching, "_fill", eager)


def _sent_early_past_what_waits(patch: Patch) -> None:
    def eager(self: Dispatching, row: Any, worker: Any) -> bool:
        return row.spec.queue in self._eager

    patch.setattr(Dispatching, "_may_go_early", eager)


def _sent_early_from_any_queue(patch: Patch) -> None:
    patch.setattr(Dispatching, "_may_go_early", lambda self, row, worker: not worker.held)


def _timeout_without_kill(patch: Patch) -> None:
    kill = Supervisor.kill

    def spare(self: Supervisor, worker: Any, cause: KillCause, offenders: set[int]) -> None:
        if cause is not KillCause.TIME_LIMIT:
            kill(self, worker, cause, offenders)
            return
        for token in offenders:
            held = worker.held.pop(token)
            self._submitter.submit(Expire(held.attempt.job, token, Cause.TIME_LIMIT))
        self._engine.touch()

    patch.setattr(Supervisor, "kill", spare)


def _prefetch_of_a_dead_worker_is_not_given_back(patch: Patch) -> None:
    exited = Supervisor.exited

    def forget(self: Supervisor, worker: Any, started: int, detail: str) -> None:
        held = worker.held
        for token in [token for token in held if token > started]:
            del held[token]
        exited(self, worker, started, detail)

    patch.setattr(Supervisor, "exited", forget)


def _boot_forgets_what_had_started(patch: Patch) -> None:
    patch.setattr(assembly, "boot_command", lambda *_: Boot(frozenset()))


def _leftovers_live_on(patch: Patch) -> None:
    patch.setattr(SimPool, "claim", lambda self, mark: 0)


def _last_frame_is_not_rewritten(patch: Patch) -> None:
    last_bytes = SegmentScan.last_bytes
    patch.setattr(SegmentScan, "last_bytes", lambda self: (last_bytes(self)[0], b""))


def _names_are_not_synced(patch: Patch) -> None:
    patch.setattr(ProcessDisk, "sync_dir", lambda self, path: None)


def _snapshot_is_not_synced_and_the_archive_pruned(patch: Patch) -> None:
    class Lazy:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            if name in ("sync", "sync_dir"):
                return lambda *_: None
            found = getattr(self._inner, name)
            if name == "open":
                return lambda *args, **kwargs: Lazy(found(*args, **kwargs))
            return found

    take = work.take_snapshot
    patch.setattr(work, "take_snapshot", lambda disk, *args: take(Lazy(disk), *args))
    patch.setattr(work, "_older_snapshot_seq", lambda disk, layout: 1 << 60)


def _pruned_below_the_newest_snapshot_only(patch: Patch) -> None:
    patch.setattr(work, "_older_snapshot_seq", lambda disk, layout: 1 << 60)


def _a_rare_row_is_left_out_of_the_snapshot(patch: Patch) -> None:
    frozen: Any = vars(files)["frozen_jobs"]
    patch.setattr(
        files, "frozen_jobs", lambda state: (job for job in frozen(state) if job[10] is None)
    )


def _stale_token_is_accepted(patch: Patch) -> None:
    def fenced(state: State, job: str, token: int) -> Any:
        row = state.jobs.get(job)
        if row is not None and row.token:
            return row
        return deciding._absent(state, job, row)

    def complete_batch(state: State, command: CompleteBatch, now_ms: int) -> Any:
        rows = [(state.jobs.get(done.job), done) for done in command.done]
        return [Acked(row.id, row.token, done.result) for row, done in rows if row and row.token]

    right = OutcomeHandler._commands

    def trusting(self: OutcomeHandler, worker: Any, outcomes: Any) -> Any:
        held = [outcome for outcome in outcomes if outcome.token in worker.held]
        yield from right(self, worker, held)
        for outcome in outcomes:
            if outcome not in held:
                yield command_of(outcome, self._to_child, self._entropy.random)

    patch.setattr(deciding, "_fenced", fenced)
    patch.setitem(deciding._DECIDE, CompleteBatch, complete_batch)
    patch.setattr(OutcomeHandler, "_commands", trusting)


def _limits_follow_the_wall_clock(patch: Patch) -> None:
    patch.setattr(SimClock, "monotonic_ns", lambda self: self.wall_ms() * 1_000_000)


def _last_come_first_served(patch: Patch) -> None:
    head = Lane.head

    def last(self: Lane) -> Any:
        first = head(self)
        return max(self, key=lambda row: row.seq) if first is not None else None

    patch.setattr(Lane, "head", last)


def _jobs_go_before_their_time(patch: Patch) -> None:
    why_not = deciding.why_not_dispatch
    advance = State.advance
    patch.setattr(State, "advance", lambda self, now_ms: advance(self, now_ms + 20))
    patch.setattr(
        deciding,
        "why_not_dispatch",
        lambda state, row, now_ms, *rest: why_not(state, row, now_ms + 20, *rest),
    )


def _ready_worker_is_forgotten_during_a_sync(patch: Patch) -> None:
    appended = GroupCommit._appended

    def forget(self: GroupCommit, outcome: Any) -> None:
        self._is_postponed = False
        appended(self, outcome)

    patch.setattr(GroupCommit, "_appended", forget)


def _outcome_without_room_is_never_tried_again(patch: Patch) -> None:
    patch.setattr(Submitter, "retry", lambda self, workers: self._engine.touch())


def _a_start_that_hangs_is_waited_for(patch: Patch) -> None:
    patch.setattr(Supervisor, "_overdue_start", lambda self, worker: None)


def _log_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(SimFile, "is_kept", lambda self, size: True)


def _log_is_not_locked(patch: Patch) -> None:
    patch.setattr(SimFile, "lock", lambda self: True)


def _reload_kills_what_runs(patch: Patch) -> None:
    patch.setattr(SimPool, "retire", SimPool.kill)


def _reload_gives_back_what_runs(patch: Patch) -> None:
    recall = Submitter.recall

    def all_of_it(self: Submitter, worker: Any, cause: str) -> bool:
        given_back = recall(self, worker, cause)
        if worker.leaving:
            for token in list(worker.held):
                self.give_back(worker, token, cause)
        return given_back

    patch.setattr(Submitter, "recall", all_of_it)


def _reload_forgets_what_waits(patch: Patch) -> None:
    recall = Submitter.recall

    def forgetful(self: Submitter, worker: Any, cause: str) -> bool:
        if not worker.leaving:
            return recall(self, worker, cause)
        for token in worker.crew.pool.recall(worker.number):
            worker.held.pop(token, None)
        return True

    patch.setattr(Submitter, "recall", forgetful)


def _former_workers_are_given_jobs(patch: Patch) -> None:
    dismiss = Crews._dismiss

    def keep(self: Crews, worker: Any) -> None:
        dismiss(self, worker)
        worker.serving = True

    patch.setattr(Crews, "_dismiss", keep)


BUGS: dict[str, Bug] = {
    "the slot is written behind user code": Bug(
        _slot_behind_user_code, r"given back as not started|is not believed"
    ),
    "slots are read before leftovers are killed": Bug(
        _slots_read_before_leftovers_are_killed,
        r"given back as not started",
        favour="kill_behind_dispatch",
    ),
    "a reload kills what runs": Bug(_reload_kills_what_runs, r"nothing says why", favour="reload"),
    "a reload gives back what runs": Bug(
        _reload_gives_back_what_runs, r"a reload gives it back|runs twice at once", favour="reload"
    ),
    "a reload forgets what waits": Bug(
        _reload_forgets_what_waits, r"no worker holds it", favour="reload"
    ),
    "former workers are given jobs": Bug(
        _former_workers_are_given_jobs, r"of a former crew", favour="reload"
    ),
    "reply before sync": Bug(_reply_before_sync, r"was told, and only|acknowledged"),
    "duplicate answered before the original's sync": Bug(
        _duplicate_before_the_originals_sync, r"was told, and only|acknowledged", favour="cut"
    ),
    "log written and not synced": Bug(_log_written_and_not_synced, r"recovery lost|corrupt"),
    "dispatch before sync": Bug(_dispatch_before_sync, r"before its DISPATCH is durable"),
    "sent early past what waits": Bug(_sent_early_past_what_waits, r"began token \d+ after token"),
    "sent early from any queue": Bug(_sent_early_from_any_queue, r"before its DISPATCH is durable"),
    "timeout without kill": Bug(_timeout_without_kill, r"runs twice at once"),
    "prefetch of a dead worker is not given back": Bug(
        _prefetch_of_a_dead_worker_is_not_given_back, r"no worker holds it"
    ),
    "BOOT forgets what had started": Bug(_boot_forgets_what_had_started, r"given back as not"),
    "leftovers live on": Bug(_leftovers_live_on, r"runs twice at once|given back as not"),
    "the last frame is not rewritten": Bug(
        _last_frame_is_not_rewritten, r"recovery lost|corrupt", favour="failed_sync"
    ),
    "names are not synced": Bug(_names_are_not_synced, r"recovery lost|refuses to start"),
    "snapshot not synced, archive pruned": Bug(
        _snapshot_is_not_synced_and_the_archive_pruned,
        r"refuses to start|recovery",
        favour="power_cut",
    ),
    "pruned below the newest snapshot only": Bug(
        _pruned_below_the_newest_snapshot_only,
        r"refuses to start|recovery",
        favour="rot_snapshot",
    ),
    "a rare row is left out of the snapshot": Bug(
        _a_rare_row_is_left_out_of_the_snapshot, r"is not read back as it was written"
    ),
    "stale token is accepted": Bug(
        _stale_token_is_accepted, r"has not ended|no worker", favour="late_outcome"
    ),
    "limits follow the wall clock": Bug(_limits_follow_the_wall_clock, r"is timed out after"),
    "last come, first served": Bug(_last_come_first_served, r"goes before"),
    "jobs go before their time": Bug(_jobs_go_before_their_time, r"before its time"),
    "a ready worker is forgotten during a sync": Bug(
        _ready_worker_is_forgotten_during_a_sync, r"an idle worker does not get it"
    ),
    "an outcome without room is never tried again": Bug(
        _outcome_without_room_is_never_tried_again,
        r"no rest is reached|an idle worker does not get it",
        seeds=800,
        favour="disk_full",
    ),
    "a start that hangs is waited for": Bug(
        _a_start_that_hangs_is_waited_for, r"no rest is reached", favour="hang_start"
    ),
    "the log is not looked at": Bug(
        _log_is_not_looked_at, r"acknowledged|was told, and only", favour="replace_log"
    ),
    "the log is not locked": Bug(_log_is_not_locked, r"comes in", favour="remove_lock"),
}
