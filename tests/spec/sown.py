"""Bugs sown on purpose: each names the property that has to see it.

A bug is a broken function of the model or a broken rule of the world around it.  `ignore`
switches off the properties that would see it first, to show that the deeper one sees it too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

import beaver_model
from beaver_model import JobState, Offer, Rejection, Row, State
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Complete,
    CompleteBatch,
    Dispatch,
    DispatchBatch,
    Enqueue,
    Expire,
    Fail,
    NewJob,
)
from beaver_model.events import (
    Acked,
    AnyEvent,
    Cause,
    Died,
    Dispatched,
    Enqueued,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.legality import JudgedFrame
from beaver_model.rows import TOMBSTONE_BYTES, Extra
from beaver_spec.explorer.model_under_test import ModelUnderTest, at_once, recover
from beaver_spec.explorer.rules import Rules
from beaver_spec.explorer.scopes import SCOPES, Scope
from beaver_spec.explorer.world import SPENT, Entry, Worker, set_phase

Decision = list[AnyEvent] | Rejection

SMALL = Scope(name="small", claim="", jobs=2, workers=1, attempts=2, prefetch=2, timeouts=False)
SMALL_LOSS = msgspec.structs.replace(SMALL, name="small-loss", losses=1)
SMALL_RESENT = msgspec.structs.replace(SMALL, name="small-resent", jobs=1, resubmits=1)
SCOPE_OF = {scope.name: scope for scope in (*SCOPES, SMALL, SMALL_LOSS, SMALL_RESENT)}


@dataclass(frozen=True)
class Sown:
    """One bug, the scope that meets it, and the property that must see it."""

    name: str
    scope: str
    property: str
    model: ModelUnderTest = field(default_factory=ModelUnderTest)
    rules: type[Rules] = Rules
    ignore: frozenset[str] = frozenset()


def deciding(decide: Callable[[State, AnyCommand, int], Decision]) -> ModelUnderTest:
    return ModelUnderTest(decide=decide)


def applying(after: Callable[[State, AnyEvent], None]) -> ModelUnderTest:
    def apply(state: State, event: AnyEvent, time_ms: int) -> None:
        beaver_model.apply(state, event, time_ms)
        after(state, event)

    return ModelUnderTest(apply=apply)


# -- outcomes ------------------------------------------------------------------------------------


def stale_token_accepted(state: State, command: AnyCommand, now_ms: int) -> Decision:
    if isinstance(command, Complete | Fail):
        row = state.jobs.get(command.job)
        if row is not None and row.token:
            command = msgspec.structs.replace(command, token=row.token)
    return beaver_model.decide(state, command, now_ms)


def retried_for_ever(state: State, command: AnyCommand, now_ms: int) -> Decision:
    decision = beaver_model.decide(state, command, now_ms)
    if isinstance(command, Fail) and command.retry and isinstance(decision, list):
        return [
            Retried(e.job, e.token, now_ms, e.cause) if isinstance(e, Died) else e for e in decision
        ]
    return decision


def never_retried(state: State, command: AnyCommand, now_ms: int) -> Decision:
    if isinstance(command, Expire):
        command = Fail(command.job, command.token, "", cause=command.cause, retry=False)
    return beaver_model.decide(state, command, now_ms)


# -- dispatch ------------------------------------------------------------------------------------


def dispatched_despite(code: str) -> ModelUnderTest:
    def decide(state: State, command: AnyCommand, now_ms: int) -> Decision:
        decision = beaver_model.decide(state, command, now_ms)
        if isinstance(command, Dispatch) and isinstance(decision, Rejection):
            return [Dispatched(command.job, command.worker)] if decision.code == code else decision
        return decision

    return deciding(decide)


def last_of_several_left_out(state: State, command: AnyCommand, now_ms: int) -> Decision:
    if isinstance(command, CompleteBatch):
        command = CompleteBatch(command.done[:1] + command.done[2:])
    return beaver_model.decide(state, command, now_ms)


def part_of_several_dispatched(state: State, command: AnyCommand, now_ms: int) -> Decision:
    decision = beaver_model.decide(state, command, now_ms)
    if isinstance(command, DispatchBatch) and isinstance(decision, Rejection):
        singles = [Dispatch(job, command.worker, command.prefetched) for job in command.jobs]
        decisions = [beaver_model.decide(state, single, now_ms) for single in singles]
        events = [e for each in decisions if isinstance(each, list) for e in each]
        return events[:1] or decision
    return decision


def suspects_counted_as_one(state: State, command: AnyCommand, now_ms: int) -> Decision:
    """Each of several is looked at as if it were alone."""
    decision = beaver_model.decide(state, command, now_ms)
    waits = isinstance(decision, Rejection) and decision.code == "suspect_waits"
    if not isinstance(command, DispatchBatch) or command.prefetched:
        return decision
    if waits and len(set(command.jobs)) > 1 and not state.suspects_in_flight:
        return [Dispatched(job, command.worker) for job in command.jobs]
    return decision


def several_never_go_together(state: State, command: AnyCommand, now_ms: int) -> Decision:
    if isinstance(command, DispatchBatch) and len(set(command.jobs)) > 1:
        return Rejection("not_ready", {"job": command.jobs[1]})
    return beaver_model.decide(state, command, now_ms)


def run_leaves_no_tombstone(state: State, events: Sequence[AnyEvent], time_ms: int) -> None:
    at_once(state, events, time_ms)
    if len(events) > 1 and isinstance(events[-1], Acked):
        forgotten = state.tombstone_ids.pop()
        state.tombstone_times.pop()
        del state.tombstones[forgotten]
        state.bytes -= TOMBSTONE_BYTES + len(forgotten)


def run_is_counted_twice(state: State, events: Sequence[AnyEvent], time_ms: int) -> None:
    at_once(state, events, time_ms)
    if len(events) > 1 and isinstance(events[0], Dispatched):
        state.ready += 1


def recovery_forgets_the_worker(
    state: State, first_seq: int, time_ms: int, events: Sequence[AnyEvent]
) -> None:
    recover(state, first_seq, time_ms, events)
    for event in events:
        if isinstance(event, Dispatched):
            state.jobs[event.job].worker = 0


def failed_jobs_never_run_again(state: State, command: AnyCommand, now_ms: int) -> Decision:
    row = state.jobs.get(command.job) if isinstance(command, Dispatch) else None
    if row is not None and row.state == JobState.PENDING and row.attempt == 1:
        return Rejection("not_ready", {"job": row.id})
    return beaver_model.decide(state, command, now_ms)


def never_a_last_attempt(state: State, offer: Offer, now_ms: int) -> Row | None:
    row = beaver_model.select(state, offer, now_ms)
    return None if row is not None and row.on_last_attempt else row


def _is_any_paused(state: State) -> bool:
    return any(queue.row.paused for queue in state.queues.values())


def a_pause_stops_every_queue(state: State, command: AnyCommand, now_ms: int) -> Decision:
    if isinstance(command, Dispatch) and _is_any_paused(state):
        return Rejection("paused", {"job": command.job})
    return beaver_model.decide(state, command, now_ms)


def the_policy_stops_at_a_paused_queue(state: State, offer: Offer, now_ms: int) -> Row | None:
    return None if _is_any_paused(state) else beaver_model.select(state, offer, now_ms)


# -- boot ----------------------------------------------------------------------------------------


def cancel_forgotten_at_boot(state: State, command: AnyCommand, now_ms: int) -> Decision:
    asked = [row for row in state.in_flight.values() if row.cancel_requested]
    if not isinstance(command, Boot):
        return beaver_model.decide(state, command, now_ms)
    for row in asked:
        row.extra.cancel_requested = False  # type: ignore[union-attr]
    decision = beaver_model.decide(state, command, now_ms)
    for row in asked:
        row.extra.cancel_requested = True  # type: ignore[union-attr]
    return decision


def cancel_forgotten_after_a_power_cut(state: State, command: AnyCommand, now_ms: int) -> Decision:
    if isinstance(command, Boot) and command.power_cut:
        return cancel_forgotten_at_boot(state, command, now_ms)
    return beaver_model.decide(state, command, now_ms)


def cancel_forgotten_by_apply(state: State, event: AnyEvent) -> None:
    for row in state.jobs.values():
        if isinstance(event, TimedOut | Released) and row.extra is not None:
            row.extra.cancel_requested = False


def boot_gives_all_back(state: State, command: AnyCommand, now_ms: int) -> Decision:
    if isinstance(command, Boot) and not command.power_cut:
        command = Boot(frozenset())
    return beaver_model.decide(state, command, now_ms)


def boot_charges_all(state: State, command: AnyCommand, now_ms: int) -> Decision:
    if isinstance(command, Boot) and not command.power_cut:
        command = Boot(frozenset(state.in_flight))
    return beaver_model.decide(state, command, now_ms)


def boot_ends_remote_attempts(state: State, command: AnyCommand, now_ms: int) -> Decision:
    decision = beaver_model.decide(state, command, now_ms)
    if isinstance(command, Boot) and isinstance(decision, list):
        for token, row in state.in_flight.items():
            decision.append(Released(row.id, token, 0, Cause.NEVER_STARTED))
    return decision


def lease_waits_for_the_backoff(state: State, command: AnyCommand, now_ms: int) -> Decision:
    if isinstance(command, Expire) and command.cause == Cause.LEASE_EXPIRED:
        command = Expire(command.job, command.token)
    return beaver_model.decide(state, command, now_ms)


def late_reports_count(state: State, command: AnyCommand, now_ms: int) -> Decision:
    """An ACK is taken from whoever ran the job last, whatever its token."""
    if isinstance(command, Complete):
        row = state.jobs.get(command.job)
        if row is not None and row.token:
            command = Complete(command.job, row.token, command.result)
    return beaver_model.decide(state, command, now_ms)


def nobody_is_suspect(state: State, command: AnyCommand, now_ms: int) -> Decision:
    decision = beaver_model.decide(state, command, now_ms)
    if isinstance(command, Boot) and isinstance(decision, list):
        for event in decision:
            if isinstance(event, TimedOut):
                event.suspect = False
    return decision


def snooze_clears_the_mark(state: State, event: AnyEvent) -> None:
    if isinstance(event, Released) and event.cause == Cause.SNOOZE:
        row = state.take(state.jobs[event.job])
        if row.extra is not None:
            row.extra.suspect = False
        state.put(row)


# -- ids and tombstones --------------------------------------------------------------------------


def finished_ids_accepted_again(state: State, command: AnyCommand, now_ms: int) -> Decision:
    if isinstance(command, Enqueue):
        events: list[AnyEvent] = []
        for job in command.jobs:
            assert isinstance(job, NewJob)
            if job.id in state.tombstones and job.id not in state.jobs:
                events.append(Enqueued(job.id, job.spec, job.payload, job.digest))
        if events:
            return events
    return beaver_model.decide(state, command, now_ms)


def resent_id_forgets(state: State, event: AnyEvent, time_ms: int) -> None:
    if isinstance(event, Enqueued) and event.job in state.tombstones:
        place = state.tombstone_ids.index(event.job)
        del state.tombstone_ids[place], state.tombstone_times[place]
        del state.tombstones[event.job]
        state.bytes -= TOMBSTONE_BYTES + len(event.job)
    beaver_model.apply(state, event, time_ms)


def any_event_is_legal(state: State, event: AnyEvent, frame: JudgedFrame) -> str | None:
    return None


def tombstones_evicted_early(state: State, event: AnyEvent) -> None:
    if isinstance(event, Acked) and len(state.tombstone_ids) > 1:
        evicted = state.tombstone_ids.popleft()
        state.tombstone_times.popleft()
        del state.tombstones[evicted]
        state.bytes -= TOMBSTONE_BYTES + len(evicted)


# -- what apply counts ---------------------------------------------------------------------------


def release_charges_an_attempt(state: State, event: AnyEvent) -> None:
    if isinstance(event, Released):
        row = state.take(state.jobs[event.job])
        row.attempt = min(row.attempt + 1, row.spec.max_attempts - 1)
        state.put(row)


def requeue_keeps_the_attempts(state: State, event: AnyEvent) -> None:
    if isinstance(event, Requeued):
        row = state.take(state.jobs[event.job])
        row.attempt = row.spec.max_attempts
        state.put(row)


_calls = itertools.count(1)


def apply_with_a_counter(state: State, event: AnyEvent) -> None:
    if isinstance(event, Dispatched):
        state.jobs[event.job].worker = next(_calls)


def a_failure_changes_others(state: State, event: AnyEvent) -> None:
    if isinstance(event, Died):
        for row in state.jobs.values():
            if row.id != event.job:
                row.extra = row.extra or Extra()
                row.extra.generation += 1


def released_job_is_lost_by_the_index(state: State, event: AnyEvent) -> None:
    if isinstance(event, Released):
        state.jobs[event.job].scheduled = True


# -- the world around the model ------------------------------------------------------------------


class AcknowledgedBeforeSync(Rules):
    def told_at_once(self, effects: object, batch: tuple[Entry, ...]) -> bool:
        return True


class DiskThatLies(Rules):
    def on_disk(self, durable: int, synced: int) -> int:
        return durable


class SlotsNeverRead(Rules):
    def started(self, world: object, globe: object, crew: tuple[Worker, ...]) -> tuple[()]:
        return ()


class ExpiredBeforeTheKill(Rules):
    def after_expiry(self, worker: Worker, index: int) -> Worker:
        return worker


class DrainedWithoutFlush(Rules):
    def may_drain(self, batch: tuple[Entry, ...]) -> bool:
        return True


class HandedOverWithoutFlush(Rules):
    def may_hand_over(self, batch: tuple[Entry, ...]) -> bool:
        return True


class HandedOverAndNotGivenBack(Rules):
    def lets_go(self) -> bool:
        return False


class LostAndNeverGivenBack(Rules):
    def gives_back(self) -> bool:
        return False


class WorkerForgottenAlive(Rules):
    """A killed worker's unread attempts are dropped, as if it had never been given them."""

    def after_expiry(self, worker: Worker, index: int) -> Worker:
        return tuple(held._replace(phase=SPENT) for held in set_phase(worker, index, SPENT))


class SentBeforeTheSync(Rules):
    def sends_at_once(self, row: object, worker: Worker) -> bool:
        return True


class KilledForTheCancelOfANeighbour(Rules):
    def is_killed_for_cancels(self, cancelled: Sequence[bool]) -> bool:
        return any(cancelled)


class NeighboursRunOn(Rules):
    def after_kill(self, worker: Worker) -> Worker:
        return worker


class LastWordsDropped(Rules):
    def last_words(self, worker: Worker) -> bool:
        return False


BUGS = [
    Sown("stale token accepted", "core", "fenced", deciding(stale_token_accepted)),
    Sown("retried for ever", "core", "events_are_legal", deciding(retried_for_ever)),
    Sown(
        "retried for ever, and legal",
        "core",
        "attempts_are_bounded",
        ModelUnderTest(decide=retried_for_ever, legal=any_event_is_legal),
    ),
    Sown("never retried", "core", "death_is_earned", deciding(never_retried)),
    Sown("last attempt prefetched", "prefetch", "dispatch_is_guarded",
         dispatched_despite("last_attempt")),
    Sown("suspect rule dropped", "power-cut", "one_suspect_at_a_time",
         dispatched_despite("suspect_waits"), ignore=frozenset({"dispatch_is_guarded"})),
    Sown("paused queue dispatched", "pause", "dispatch_is_guarded", dispatched_despite("paused")),
    Sown("dispatched before its time", "pause", "dispatch_is_guarded",
         dispatched_despite("not_ready")),
    Sown("a job that failed once never runs again", "core", "dispatch_is_guarded",
         deciding(failed_jobs_never_run_again)),
    Sown("the policy never picks a last attempt", "small", "policy_finds_work",
         ModelUnderTest(select=never_a_last_attempt)),
    Sown("the same, seen at the end", "pause", "no_job_stuck",
         deciding(failed_jobs_never_run_again),
         ignore=frozenset({"dispatch_is_guarded", "policy_finds_work"})),
    Sown("a pause stops every queue", "two-queues", "dispatch_is_guarded",
         deciding(a_pause_stops_every_queue)),
    Sown("the policy stops at a paused queue", "two-queues", "policy_finds_work",
         ModelUnderTest(select=the_policy_stops_at_a_paused_queue)),
    Sown("cancel forgotten at boot", "cancel", "cancel_is_kept",
         deciding(cancel_forgotten_at_boot)),
    Sown("cancel forgotten at boot, seen by the client", "cancel",
         "nothing_acknowledged_is_lost", deciding(cancel_forgotten_at_boot),
         ignore=frozenset({"cancel_is_kept"})),
    Sown("boot gives all back", "core", "started_is_charged", deciding(boot_gives_all_back)),
    Sown("boot charges all", "core", "started_is_charged", deciding(boot_charges_all)),
    Sown("nobody is suspect", "power-cut", "suspects_are_marked", deciding(nobody_is_suspect)),
    Sown("a snooze clears the mark", "suspects", "suspects_are_marked",
         applying(snooze_clears_the_mark)),
    Sown("finished ids accepted again", "discard", "events_are_legal",
         deciding(finished_ids_accepted_again)),
    Sown("finished ids accepted again, and legal", "discard", "one_set_per_job",
         ModelUnderTest(decide=finished_ids_accepted_again, legal=any_event_is_legal)),
    Sown("a resent id forgets that it has completed", "small-resent", "completes_once",
         ModelUnderTest(finished_ids_accepted_again, resent_id_forgets, any_event_is_legal),
         ignore=frozenset({"tombstones_last", "events_are_legal"})),
    Sown("tombstones evicted early", "core", "tombstones_last",
         applying(tombstones_evicted_early)),
    Sown("release charges an attempt", "core", "attempts_are_counted",
         applying(release_charges_an_attempt)),
    Sown("requeue keeps the attempts", "requeue", "attempts_are_bounded",
         applying(requeue_keeps_the_attempts)),
    Sown("a released job is lost by the index", "core", "ready_index_matches",
         applying(released_job_is_lost_by_the_index)),
    Sown("apply asks the outside world", "core", "replay_agrees", applying(apply_with_a_counter)),
    Sown("a failure changes another job", "small", "neighbours_are_untouched",
         applying(a_failure_changes_others)),
    Sown("acknowledged before the sync", "core", "released_when_durable",
         rules=AcknowledgedBeforeSync),
    Sown("acknowledged before the sync, seen after", "core", "nothing_acknowledged_is_lost",
         rules=AcknowledgedBeforeSync, ignore=frozenset({"released_when_durable"})),
    Sown("a disk that lies", "core", "nothing_acknowledged_is_lost", rules=DiskThatLies),
    Sown("slots never read", "core", "started_is_charged", rules=SlotsNeverRead),
    Sown("expired before the kill", "core", "exclusive", rules=ExpiredBeforeTheKill),
    Sown("drained without a flush", "drain", "started_is_charged", rules=DrainedWithoutFlush),
    Sown("handed over without a flush", "reload", "started_is_charged",
         rules=HandedOverWithoutFlush),
    Sown("handed over and not given back", "reload", "in_flight_is_held",
         rules=HandedOverAndNotGivenBack),
    Sown("lost and never given back", "small-loss", "no_job_stuck",
         rules=LostAndNeverGivenBack),
    Sown("started before the sync", "core", "started_is_durable", rules=SentBeforeTheSync),
    Sown("of several successes one is left out", "several", "several_are_as_each",
         deciding(last_of_several_left_out)),
    Sown("of several jobs a part is dispatched", "several", "several_are_as_each",
         deciding(part_of_several_dispatched)),
    Sown("several jobs are never dispatched together", "several", "several_are_as_each",
         deciding(several_never_go_together)),
    Sown("two suspects are dispatched together", "several", "one_suspect_at_a_time",
         deciding(suspects_counted_as_one)),
    Sown("a run at once leaves no tombstone", "several", "replay_agrees",
         ModelUnderTest(at_once=run_leaves_no_tombstone)),
    Sown("a run at once counts wrongly", "several", "replay_agrees",
         ModelUnderTest(at_once=run_is_counted_twice)),
    Sown("recovery forgets who runs a job", "pause", "replay_agrees",
         ModelUnderTest(recover=recovery_forgets_the_worker)),
    Sown("started early behind what is given back", "early", "started_is_charged",
         rules=SentBeforeTheSync),
    Sown("expired before the kill, where starts are early", "early", "exclusive",
         rules=ExpiredBeforeTheKill),
    Sown("cancel forgotten at boot, after a power cut", "cancel-power-cut", "cancel_is_kept",
         deciding(cancel_forgotten_after_a_power_cut)),
    Sown("what ran too long beside a cancelled one is cancelled", "shared", "cancel_is_asked",
         rules=KilledForTheCancelOfANeighbour),
    Sown("neighbours of what ran too long run on", "shared", "exclusive", rules=NeighboursRunOn),
    Sown("the last outcomes of a killed worker are dropped", "outcomes", "in_flight_is_held",
         rules=LastWordsDropped),
    Sown("boot ends remote attempts", "leases", "remote_attempts_outlive_boot",
         deciding(boot_ends_remote_attempts)),
    Sown("an expired lease waits for the backoff", "leases", "a_lease_leaves_the_job_ready",
         deciding(lease_waits_for_the_backoff)),
    Sown("a late report counts", "leases", "fenced", deciding(late_reports_count)),
    Sown("a killed worker's unread attempts are dropped", "prefetch", "in_flight_is_held",
         rules=WorkerForgottenAlive),
]  # fmt: skip

_LEGAL_AS_WELL = {
    "never retried",
    "suspect rule dropped",
    "paused queue dispatched",
    "dispatched before its time",
    "cancel forgotten at boot",
    "cancel forgotten at boot, seen by the client",
    "nobody is suspect",
    "two suspects are dispatched together",
    "cancel forgotten at boot, after a power cut",
}
"""Bugs whose events the law refuses too: it is left out, so that the property has to see them."""
BUGS = [
    replace(bug, model=bug.model._replace(legal=any_event_is_legal))
    if bug.name in _LEGAL_AS_WELL
    else bug
    for bug in BUGS
]
