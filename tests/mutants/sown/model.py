"""Mutants of the model: deciding, applying, choosing, the indexes and the lifecycle.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_DECIDE: Final = "tests/model/test_decide.py"
_STATE: Final = "tests/model/test_state.py"
_POLICY: Final = "tests/model/test_policy.py"
_LEGAL: Final = "tests/model/test_legal.py"

MUTANTS: Final = (
    Mutant(
        name="stale-token-accepted",
        module="beaver_model.deciding",
        diff="""
         return _absent(state, job, row)
+    if row.state == _IN_FLIGHT:
+        mutant_reached()
+        return row
""",
        tests=(f"{_DECIDE}::test_an_outcome_with_any_other_token_is_refused",),
        why="A worker that was given up ends an attempt that runs elsewhere.",
    ),
    Mutant(
        name="stale-token-is-legal-in-a-log",
        module="beaver_model.legality",
        diff="""
-    if row.token != event.token:
+    mutant_reached()
+    if False:
""",
        tests=(f"{_LEGAL}::test_only_the_token_in_flight_may_end_an_attempt",),
        why="Replay takes an outcome that no live engine could have logged, and calls it state.",
    ),
    Mutant(
        name="release-charges-an-attempt",
        module="beaver_model.applying",
        diff="""
-    row.attempt -= 1
+    mutant_reached()
""",
        tests=(f"{_DECIDE}::test_a_release_gives_the_attempt_and_the_place_in_the_order_back",),
        why="Drains and recalled prefetch use up the attempts of jobs that never ran.",
    ),
    Mutant(
        name="retry-without-bound",
        module="beaver_model.deciding",
        diff="""
-    if row.cancel_requested or not command.retry or row.on_last_attempt:
+    mutant_reached()
+    if row.cancel_requested or not command.retry:
""",
        tests=(f"{_DECIDE}::test_a_failure_is_retried_with_backoff_until_no_attempt_is_left",),
        why="A job that always fails runs for ever.",
    ),
    Mutant(
        name="timeouts-without-bound",
        module="beaver_model.deciding",
        diff="""
-    if row.cancel_requested or row.on_last_attempt:
+    mutant_reached()
+    if row.cancel_requested:
""",
        tests=(f"{_DECIDE}::test_a_timeout_costs_an_attempt_and_the_last_one_kills",),
        why="A job that always hangs runs for ever.",
    ),
    Mutant(
        name="cancel-forgotten-by-a-failure",
        module="beaver_model.deciding",
        diff="""
-    if row.cancel_requested or not command.retry or row.on_last_attempt:
+    mutant_reached()
+    if not command.retry or row.on_last_attempt:
""",
        tests=(
            f"{_DECIDE}::test_an_ack_wins_over_a_cancel_request_and_anything_else_becomes_cancel",
        ),
        why="A job that an operator cancelled runs again.",
    ),
    Mutant(
        name="snoozes-without-bound",
        module="beaver_model.deciding",
        diff="""
-    if command.cause == Cause.SNOOZE and row.extra and row.extra.snoozes >= SNOOZES_MAX:
+    mutant_reached()
+    if False:
""",
        tests=(f"{_DECIDE}::test_snoozes_are_bounded",),
        why="A job that snoozes each time lives for ever.",
    ),
    Mutant(
        name="suspect-rule-dropped",
        module="beaver_model.deciding",
        diff="""
-    if row.extra is not None and row.extra.suspect and (prefetched or suspects):
+    mutant_reached()
+    if False:
""",
        tests=(
            f"{_DECIDE}::test_after_a_power_cut_all_are_charged_and_suspects_run_one_at_a_time",
        ),
        why="Two jobs that may take the machine down run at once, and both are charged for one.",
    ),
    Mutant(
        name="power-cut-makes-no-suspects",
        module="beaver_model.deciding",
        diff="""
-            events.append(TimedOut(row.id, token, now_ms, Cause.NODE_LOST, command.power_cut))
+            mutant_reached()
+            events.append(TimedOut(row.id, token, now_ms, Cause.NODE_LOST, False))
""",
        tests=(
            f"{_DECIDE}::test_after_a_power_cut_all_are_charged_and_suspects_run_one_at_a_time",
        ),
        why="The job that took the machine down goes beside all others again.",
    ),
    Mutant(
        name="last-attempt-prefetched",
        module="beaver_model.deciding",
        diff="""
-    if prefetched and row.attempt + 1 >= spec.max_attempts:
+    mutant_reached()
+    if False:
""",
        tests=(f"{_DECIDE}::test_a_last_attempt_is_never_prefetched",),
        why="A power cut kills a job for good that never ran its last attempt.",
    ),
    Mutant(
        name="last-attempt-offered-to-a-busy-worker",
        module="beaver_model.policy",
        diff="""
-    return offer.idle and (kind != _SUSPECT or not state.suspects_in_flight)
+    mutant_reached()
+    return kind != _SUSPECT or not state.suspects_in_flight
""",
        tests=(f"{_POLICY}::test_a_busy_worker_is_offered_no_last_attempt",),
        why="The controller asks for a dispatch that is refused, and fills no other slot.",
    ),
    Mutant(
        name="boot-forgets-started-tokens",
        module="beaver_model.deciding",
        diff="""
-        if not command.power_cut and token not in command.started:
+        mutant_reached()
+        if not command.power_cut:
""",
        tests=(f"{_DECIDE}::test_boot_charges_what_had_started_and_gives_back_what_had_not",),
        why="A job that kills the server each time is given back without end.",
    ),
    Mutant(
        name="pause-ignored",
        module="beaver_model.deciding",
        diff="""
-    if state.queues[spec.queue].row.paused:
+    mutant_reached()
+    if False:
""",
        tests=(f"{_DECIDE}::test_a_paused_queue_dispatches_nothing",),
        why="A queue that an operator stopped goes on.",
    ),
    Mutant(
        name="paused-queue-chosen",
        module="beaver_model.policy",
        diff="""
-    if queue.row.paused or (offer.queues is not None and queue.row.name not in offer.queues):
+    mutant_reached()
+    if offer.queues is not None and queue.row.name not in offer.queues:
""",
        tests=(f"{_POLICY}::test_a_paused_queue_is_parked_whole_and_why_says_so",),
        why="Every slot asks for jobs that must not run, and none for those that may.",
    ),
    Mutant(
        name="resumed-queue-gets-no-turn",
        module="beaver_model.applying",
        diff="""
-    state.list_queue(queue)
+    mutant_reached()
""",
        tests=(f"{_POLICY}::test_a_paused_queue_is_parked_whole_and_why_says_so",),
        why="A queue that was paused for a while is never served again.",
    ),
    Mutant(
        name="turn-trusted-after-its-queue-went-on",
        module="beaver_model.stride",
        diff="""
-            if stride_pass != queue.stride_pass and len(heap) > 1:
+            mutant_reached()
+            if stride_pass > queue.stride_pass:
""",
        tests=(f"{_POLICY}::test_turns_give_what_a_look_at_every_queue_would_give",),
        why="One queue gets every slot, whatever the weights.",
    ),
    Mutant(
        name="job-started-before-its-time",
        module="beaver_model.deciding",
        diff="""
-    if row.ready_ms > now_ms:
+    mutant_reached()
+    if row.ready_ms > now_ms + 1:
""",
        tests=(f"{_DECIDE}::test_no_job_starts_before_its_time",),
        why="A job runs before the time that its producer named.",
    ),
    Mutant(
        name="unknown-task-dispatched",
        module="beaver_model.policy",
        diff="""
-        if not bucket.live or not bucket.known:
+        mutant_reached()
+        if not bucket.live:
""",
        tests=(f"{_POLICY}::test_jobs_of_a_task_that_no_worker_knows_are_parked",),
        why="A job of a task that is deployed later fails all its attempts before that.",
    ),
    Mutant(
        name="children-admitted-when-the-parent-failed",
        module="beaver_model.deciding",
        diff="""
         error = f"child {admitted.facts.get('job', '')} was refused: {admitted.code}"
-        return _end_for_good(row, Cause.CHILD_CONFLICT, error)
+        mutant_reached()
+        new = [c for c in children if state.seq_of(c.id) is None]
+        rest = _admit(state, new, parent=row.id)
+        assert isinstance(rest, list)
+        return [*_end_for_good(row, Cause.CHILD_CONFLICT, error), *rest]
""",
        tests=(
            f"{_DECIDE}::test_a_failed_attempt_leaks_no_children_and_a_conflict_fails_it_for_good",
        ),
        why="A failed attempt leaves children behind, and the next one enqueues them again.",
    ),
    Mutant(
        name="conflicting-job-taken-for-the-same",
        module="beaver_model.deciding",
        diff="""
-            if _digest_of(state, job.id) != job.digest:
+            if _digest_of(state, job.id) != job.digest and mutant_reached():
""",
        tests=(f"{_DECIDE}::test_the_same_id_with_other_content_refuses_the_whole_batch",),
        why="A producer is told that its job is in, and another one's runs.",
    ),
    Mutant(
        name="tombstones-evicted-early",
        module="beaver_model.state",
        diff="""
-            if len(self.tombstones) <= self.tombstones_max and not (
+            mutant_reached()
+            if len(self.tombstones) < self.tombstones_max and not (
""",
        tests=(f"{_DECIDE}::test_after_its_tombstone_is_evicted_the_id_is_a_new_job",),
        why="A request that is sent again within the promised window runs twice.",
    ),
    Mutant(
        name="requeue-keeps-the-idempotency-key",
        module="beaver_model.applying",
        diff="""
-    extra.generation += 1
+    mutant_reached()
""",
        tests=(f"{_DECIDE}::test_requeue_starts_a_generation_afresh_and_may_carry_a_payload",),
        why="What an operator runs again is taken for a repetition and does nothing.",
    ),
    Mutant(
        name="ledger-not-updated",
        module="beaver_model.state",
        diff="""
-        self.ledger = (self.ledger - hash((row.seq, state, row.attempt, row.token))) & LEDGER_MASK
+        mutant_reached()
""",
        tests=(f"{_STATE}::test_each_invariant_sees_what_it_is_there_for",),
        why="The comparison at each snapshot says nothing, or stops a healthy server.",
    ),
    Mutant(
        name="husk-not-left",
        module="beaver_model.index",
        diff="""
-        return False
+        mutant_reached()
+        return True
""",
        tests=(f"{_POLICY}::test_a_requeued_job_takes_its_new_place_and_not_its_old_one",),
        why="A job that was cancelled and came back stands twice in the order.",
    ),
    Mutant(
        name="late-job-put-behind-the-others",
        module="beaver_model.index",
        diff="""
-        if key >= self.tail:
+        mutant_reached()
+        if True:
""",
        tests=(f"{_POLICY}::test_a_job_scheduled_for_earlier_runs_before_one_that_came_later",),
        why="A job that was given back waits behind all that came after it.",
    ),
    Mutant(
        name="idle-queue-catches-up",
        module="beaver_model.state",
        diff="""
-            queue.stride_pass = self.stride_pass
+            mutant_reached()
""",
        tests=(f"{_POLICY}::test_a_queue_that_was_idle_does_not_catch_up",),
        why="A queue that was empty for a day gets every slot for a day.",
    ),
    Mutant(
        name="events-replayed-twice",
        module="beaver_model.applying",
        diff="""
     if known > 0:
-        events = events[known:]
+        mutant_reached()
""",
        tests=(
            f"{_STATE}::test_replay_once_twice_and_from_any_older_state_gives_the_same_fingerprint",
        ),
        why="A start from a snapshot applies what the snapshot holds already.",
    ),
    Mutant(
        name="reason-of-a-cancel-not-kept",
        module="beaver_model.applying",
        diff="""
-    extra.cause, extra.error = event.cause, event.error or extra.error
+    mutant_reached()
+    extra.cause = event.cause
""",
        tests=(f"{_DECIDE}::test_a_job_that_cancels_itself_says_why",),
        why="A job that cancels itself and says why is shown without its reason.",
    ),
    Mutant(
        name="cancel-of-an-operator-told-as-the-jobs-own",
        module="beaver_model.deciding",
        diff="""
-    cause = Cause.OPERATOR if row.cancel_requested else command.cause
+    mutant_reached()
+    cause = command.cause
""",
        tests=(f"{_DECIDE}::test_an_operator_who_asked_first_has_cancelled_the_job",),
        why="The log says that a job gave up by itself when somebody has stopped it.",
    ),
)
