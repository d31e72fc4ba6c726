"""Mutants of the running server: engine, controller, service, protocol, pool and workers.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_ENGINE: Final = "tests/runtime/test_engine.py"
_COMMITS: Final = "tests/runtime/test_commit_path.py"
_CONTROLLER: Final = "tests/runtime/test_controller.py"
_BATCHES: Final = "tests/runtime/test_controller_batches.py"
_SAMPLING: Final = "tests/runtime/test_sampling.py"
_EAGER: Final = "tests/runtime/test_durable_dispatch.py"
_KILL: Final = "tests/scenarios/test_kill.py"
_SERVICE: Final = "tests/runtime/test_service.py"
_ANSWERS: Final = "tests/runtime/test_answers.py"
_FUZZ: Final = "tests/fuzz/test_socket.py"
_MAILBOX: Final = "tests/workers/test_mailbox.py"
_PERMITS: Final = "tests/workers/test_permits.py"
_PERMITS_MODEL: Final = "tests/workers/test_permits_model.py"
_SLOTS: Final = "tests/workers/test_slots.py"
_DEATHS: Final = "tests/workers/test_deaths.py"
_RECALL: Final = "tests/workers/test_recall.py"
_RECYCLING: Final = "tests/workers/test_recycling.py"
_STOPPING: Final = "tests/workers/test_stopping.py"
_EXECUTION: Final = "tests/workers/test_execution.py"

MUTANTS: Final = (
    Mutant(
        name="acknowledged-before-the-sync",
        module="beaver.engine.engine",
        diff="""
-        if commits.durable_seq == self._state.last_seq:
+        if commits.durable_seq == self._state.last_seq or (isinstance(answer, Applied) and len(answer.events) > 0):
+            mutant_reached()
""",
        tests=(f"{_ENGINE}::test_every_reply_waits_for_what_it_is_computed_from",),
        why="A producer is told that its job is safe, and a power cut takes it.",
    ),
    Mutant(
        name="duplicate-answered-before-the-sync-of-the-original",
        module="beaver.engine.engine",
        diff="""
-        if commits.durable_seq == self._state.last_seq:
+        if commits.durable_seq == self._state.last_seq or (isinstance(answer, Applied) and not answer.events):
+            mutant_reached()
""",
        tests=(f"{_ENGINE}::test_every_reply_waits_for_what_it_is_computed_from",),
        why="Whoever sends a job again is told that it is in, and a power cut takes both.",
    ),
    Mutant(
        name="refusal-told-before-the-sync",
        module="beaver.engine.engine",
        diff="""
-        if commits.durable_seq == self._state.last_seq:
+        if commits.durable_seq == self._state.last_seq or (isinstance(answer, Rejection)):
+            mutant_reached()
""",
        tests=(f"{_ENGINE}::test_every_reply_waits_for_what_it_is_computed_from",),
        why="A client acts upon a conflict with a job that never was.",
    ),
    Mutant(
        name="answers-told-after-a-failed-write",
        module="beaver.engine.group_commit",
        diff="""
             self._fail(outcome.error)
+            mutant_reached()
+            self._replies.tell_all(batch.waiting)
             return
""",
        tests=(f"{_ENGINE}::test_after_a_failed_write_nothing_more_is_decided_or_told",),
        why="A producer is told that its job is safe, and it is not in the log.",
    ),
    Mutant(
        name="failed-writer-process-ignored",
        module="beaver.journal.wal.log",
        diff="""
         if error is not None:
+            mutant_reached()
+        if False:
""",
        tests=(f"{_COMMITS}::test_a_writer_that_dies_with_a_frame_ends_the_engine",),
        why="A batch that the writer could not write is acknowledged.",
    ),
    Mutant(
        name="batch-told-when-the-writer-gets-it",
        module="beaver.engine.group_commit",
        diff="""
         self.under_way, journal = batch, self._journal
+        mutant_reached()
+        self._replies.tell_all(batch.waiting)
+        batch.waiting = []
""",
        tests=(
            f"{_COMMITS}::test_a_reply_comes_after_the_writers_answer_and_the_next_batch_collects",
        ),
        why="On a slow disk every acknowledgement comes before the sync.",
    ),
    Mutant(
        name="room-of-a-commit-used-twice",
        module="beaver.engine.group_commit",
        diff="""
-        left = self.room - self.bytes - OVERHEAD_BYTES if self.events else self.room
+        mutant_reached()
+        left = self.room
""",
        tests=(f"{_ENGINE}::test_a_commit_asks_for_room_only_where_the_last_one_left_too_little",),
        why="A commit is written behind what is zero-filled: a full disk then ends the server.",
    ),
    Mutant(
        name="counted-while-clients-wait",
        module="beaver.engine.group_commit",
        diff="""
-        self._replies.tell_all(batch.waiting)
-        # An answer may have led to another commit, which has counted this one first.
+        mutant_reached()
+        self._count(*self._uncounted.popleft())
+        self._replies.tell_all(batch.waiting)
""",
        tests=(f"{_ENGINE}::test_nobody_waits_for_what_is_only_counted",),
        why="Each answer waits for metrics, lines of the log and samples.",
    ),
    Mutant(
        name="last-frame-not-marked-after-a-quiet-moment",
        module="beaver.engine.group_commit",
        diff="""
-            self._journal.idle()
+            mutant_reached()
""",
        tests=(f"{_ENGINE}::test_after_a_quiet_moment_the_last_frame_is_closed",),
        why="Rot of the last frame after a quiet night passes for a torn write.",
    ),
    Mutant(
        name="another-thread-let-in",
        module="beaver.engine.engine",
        diff="""
-            raise NotOwner("commands are submitted on the loop's thread")
+            mutant_reached()
         if self._intake.asked:
             self._take_in()
         if self._commits.is_over:
             return
         self._change(command, answer, done)
""",
        tests=(f"{_ENGINE}::test_another_thread_may_not_touch_the_engine",),
        why="Two threads change the state at once.",
    ),
    Mutant(
        name="stamps-go-back",
        module="beaver.engine.stamps",
        diff="""
-            self._last_ms += passed_ms
+            mutant_reached()
+            return wall_ms
""",
        tests=(f"{_ENGINE}::test_stamps_never_go_back_and_go_on_with_the_monotonic_clock",),
        why="After a step of the clock backoffs and schedules stand still for an hour.",
    ),
    Mutant(
        name="state-not-bounded",
        module="beaver.engine.admission",
        diff="""
-    if state_bytes_max and state.bytes + size > state_bytes_max:
+    mutant_reached()
+    if False:
""",
        tests=(f"{_ENGINE}::test_state_bytes_are_bounded_and_outcomes_go_on",),
        why="The kernel kills the server when a producer is faster than the workers.",
    ),
    Mutant(
        name="dispatched-before-the-sync",
        module="beaver.dispatch.dispatching",
        diff="""
-            send = partial(self._send, self._slots.workers[number], batch)
-            self._engine.once_durable(send)
+            mutant_reached()
+            self._send(self._slots.workers[number], batch)
""",
        tests=(f"{_CONTROLLER}::test_an_attempt_is_sent_only_once_its_dispatch_is_durable",),
        why="A job runs whose attempt nobody knows of after a power cut, so that it is not charged.",
    ),
    Mutant(
        name="timeout-logged-before-the-kill",
        module="beaver.dispatch.time_limits",
        diff="""
-                cancelled = all(worker.held[token].cancel_ns for token in overdue)
+                mutant_reached()
+                from beaver_model.commands import Expire
+                for late in overdue:
+                    limit = worker.held.pop(late).attempt
+                    self._submitter.submit(Expire(limit.job, late, Cause.TIME_LIMIT, 0.5, "late"))
+                cancelled = False
""",
        tests=(
            f"{_CONTROLLER}::test_a_timed_out_attempt_is_killed_and_reaped_before_the_log_says_so",
        ),
        why="The next attempt starts while the last one still runs.",
    ),
    Mutant(
        name="limit-taken-from-the-wall-clock",
        module="beaver.dispatch.time_limits",
        diff="""
         self._ticking = False
-        now_ns = self._clock.monotonic_ns()
+        mutant_reached()
+        now_ns = self._clock.wall_ms() * 1_000_000 - 1_000_000_000_000
""",
        tests=(f"{_CONTROLLER}::test_steps_of_the_clock_never_shorten_a_running_limit",),
        why="A step of the clock kills every running job.",
    ),
    Mutant(
        name="neighbours-of-a-killed-attempt-charged",
        module="beaver.dispatch.supervision",
        diff="""
-        if token not in worker.offenders:
-            return Release(job, token, Cause.NEIGHBOUR)
+        mutant_reached()
""",
        tests=(f"{_CONTROLLER}::test_threads_are_told_first_and_killed_after_the_grace",),
        why="A job is charged for the time limit of another one in its worker.",
    ),
    Mutant(
        name="what-never-started-charged",
        module="beaver.dispatch.supervision",
        diff="""
-        if token > started:
-            return Release(job, token, Cause.NEVER_STARTED)
+        mutant_reached()
""",
        tests=(f"{_CONTROLLER}::test_what_a_dead_worker_had_not_started_is_given_back",),
        why="A job loses an attempt to the death of a worker that never touched it.",
    ),
    Mutant(
        name="dead-worker-charges-nobody",
        module="beaver.dispatch.supervision",
        diff="""
-            return Fail(job, token, cut(f"its worker {detail}"), jitter, Cause.WORKER_LOST)
+            mutant_reached()
+            return Release(job, token, Cause.NEVER_STARTED)
""",
        tests=(f"{_CONTROLLER}::test_what_a_dead_worker_had_not_started_is_given_back",),
        why="A job that kills its worker runs for ever.",
    ),
    Mutant(
        name="drain-charges-an-attempt",
        module="beaver.dispatch.supervision",
        diff="""
-            return Release(job, token, Cause.DRAIN)
+            mutant_reached()
+            return Fail(job, token, detail, jitter)
""",
        tests=(f"{_CONTROLLER}::test_draining_gives_back_what_waits_and_then_what_runs_too_long",),
        why="Each deployment costs every long job an attempt.",
    ),
    Mutant(
        name="recalled-attempts-forgotten",
        module="beaver.dispatch.time_limits",
        diff="""
-            if rest:
-                worker.crew.pool.dispatch(worker.number, rest)
+            mutant_reached()
""",
        tests=(f"{_CONTROLLER}::test_cancelling_what_waits_in_a_prefetch_disturbs_nothing_else",),
        why="Jobs stay in flight for ever with a worker that does not have them.",
    ),
    Mutant(
        name="cancel-of-a-running-job-not-enforced",
        module="beaver.dispatch.time_limits",
        diff="""
-        self._supervisor.kill(worker, KillCause.CANCEL, {row.token})
+        mutant_reached()
""",
        tests=(f"{_CONTROLLER}::test_cancelling_what_runs_kills_it_and_releases_its_neighbours",),
        why="A cancelled job runs to its end.",
    ),
    Mutant(
        name="something-waits-behind-a-suspect",
        module="beaver.dispatch.dispatching",
        diff="""
-                continue  # Nothing waits behind a job that may take the machine down.
+                mutant_reached()
""",
        tests=(f"{_CONTROLLER}::test_a_suspect_has_nobody_waiting_behind_it",),
        why="A job that takes the machine down takes its neighbours' attempts along.",
    ),
    Mutant(
        name="outcome-dropped-on-a-full-disk",
        module="beaver.dispatch.submitting",
        diff="""
-            self.unwritten.append(command)
+            mutant_reached()
""",
        tests=(
            f"{_BATCHES}::test_several_outcomes_wait_for_room_in_the_log_and_are_written_later",
        ),
        why="A job that has run stays in flight for ever.",
    ),
    Mutant(
        name="dispatching-goes-on-while-draining",
        module="beaver.dispatch.dispatching",
        diff="""
         self._arm_timer(state)
-        if self._slots.draining or self.halted:
-            return
+        mutant_reached()
""",
        tests=(f"{_CONTROLLER}::test_draining_gives_back_what_waits_and_then_what_runs_too_long",),
        why="A server that was told to stop starts new work.",
    ),
    Mutant(
        name="sent-early-past-what-waits",
        module="beaver.dispatch.dispatching",
        diff="""
-        return (last is None or last.sent) and worker.returned_seq <= self._engine.durable_seq
+        mutant_reached()
+        return worker.returned_seq <= self._engine.durable_seq
""",
        tests=(f"{_EAGER}::test_it_waits_behind_what_the_same_worker_has_to_wait_for",),
        why="After a crash the slot says that an attempt had started that waited for its sync.",
    ),
    Mutant(
        name="sent-early-past-what-was-given-back",
        module="beaver.dispatch.dispatching",
        diff="""
-        return (last is None or last.sent) and worker.returned_seq <= self._engine.durable_seq
+        mutant_reached()
+        return last is None or last.sent
""",
        tests=(
            f"{_EAGER}::test_it_waits_until_it_is_durable_that_an_earlier_one_was_given_back",
            f"{_EAGER}::test_what_is_given_back_late_for_want_of_room_counts_as_well",
        ),
        why="After a crash a job that never started is charged an attempt.",
    ),
    Mutant(
        name="suspect-sent-early",
        module="beaver.dispatch.dispatching",
        diff="""
-        if row.spec.queue not in self._eager or row.suspect:
+        mutant_reached()
+        if row.spec.queue not in self._eager:
""",
        tests=(f"{_EAGER}::test_a_suspect_is_counted_first",),
        why="A job that takes the machine down does so again and again, uncounted.",
    ),
    Mutant(
        name="change-answered-before-its-sync",
        module="beaver.server.service",
        diff="""
-        self._engine.change(command, answer, respond)
+        mutant_reached()
+        self._engine.change(command, lambda reply: respond(answer(reply)), lambda _: None)
""",
        tests=(f"{_ANSWERS}::test_an_operators_change_is_answered_once_it_is_durable",),
        why="An operator is told that a queue is paused, and after a crash it runs.",
    ),
    Mutant(
        name="unfinished-job-called-finished",
        module="beaver.server.asking",
        diff="""
-                self._wait_for_end(watch, job, timeout_ms)
+                mutant_reached()
+                watch.answer(_json(ResultView(job, "completed", msgspec.Raw(b"null"))))
""",
        tests=(f"{_SERVICE}::test_a_wait_is_answered_when_the_job_ends_and_not_before",),
        why="Whoever waits for a result is told that there is none to come.",
    ),
    Mutant(
        name="client-that-does-not-read-never-held-back",
        module="beaver.server.connection",
        diff="""
-        self._paused = True
-        self._stop_reading()
+        mutant_reached()
""",
        tests=(
            f"{_ANSWERS}::test_a_client_that_does_not_read_is_held_back_and_keeps_its_connection",
        ),
        why="One client that does not read its answers fills the memory.",
    ),
    Mutant(
        name="burst-of-requests-answered-at-once",
        module="beaver.server.connection",
        diff="""
                     ):
-                        self._stop_reading()
-                        break
+                        mutant_reached()
""",
        tests=(
            f"{_FUZZ}::test_a_burst_of_small_requests_for_large_answers_takes_no_memory_for_them",
        ),
        why="A few kilobytes of requests make the server hold gigabytes of answers.",
    ),
    Mutant(
        name="invalid-utf-8-taken-for-a-bug-of-ours",
        module="beaver.transport.framing",
        diff="""
     try:
+        mutant_reached()
         return _decode_request(body)
@@
             "a request is an array of a number, an operation and a body"
         ) from None
-    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
+    except (msgspec.DecodeError, RecursionError, OverflowError) as error:
""",
        tests=(f"{_FUZZ}::test_a_damaged_request_is_answered_or_ends_the_connection",),
        why="One client's garbage shows as a crash in the server's log, and its cause is hidden.",
    ),
    Mutant(
        name="frame-limit-off-by-one",
        module="beaver.transport.framing",
        diff="""
-                if length > self.limit:
+                mutant_reached()
+                if length >= self._limit:
""",
        tests=(f"{_FUZZ}::test_a_frame_of_exactly_the_limit_is_read_and_not_one_byte_more",),
        why="The largest batch that is promised to fit ends the connection.",
    ),
    Mutant(
        name="outcomes-of-a-dead-worker-lost",
        module="beaver.workers.mailbox",
        diff="""
-            if not self._read():
-                break
+            mutant_reached()
""",
        tests=(
            f"{_MAILBOX}::test_outcomes_that_a_reaped_worker_has_sent_are_delivered_at_its_end",
        ),
        why="A job that has completed is charged and runs again.",
    ),
    Mutant(
        name="recall-loses-a-message",
        module="beaver.workers.permits",
        diff="""
-        tokens = found + self._tokens
+        mutant_reached()
+        tokens = found[1:] + self._tokens
""",
        tests=(
            f"{_RECALL}::test_recall_takes_back_all_but_the_running_attempt",
            f"{_RECALL}::test_large_attempts_and_those_that_wait_in_the_server_are_recalled_too",
        ),
        why="A job stays in flight for ever: neither the worker nor the server has it.",
    ),
    Mutant(
        name="body-of-a-read-permit-not-sent-again",
        module="beaver.workers.permits",
        diff="""
             if permitted:
-                self._owe(wire.only(message, permitted[-1]))
+                mutant_reached()
""",
        tests=(
            f"{_PERMITS}::test_a_recall_between_permit_and_body_sends_the_body_again",
            f"{_PERMITS_MODEL}::test_every_attempt_is_started_or_recalled_and_never_both",
        ),
        why="A worker waits for ever for an attempt that the server has read back.",
    ),
    Mutant(
        name="body-started-without-its-permit",
        module="beaver.workers.inbox",
        diff="""
-                if attempt.token == token:
-                    return attempt
+                mutant_reached()
+                return attempt
""",
        tests=(
            f"{_PERMITS}::test_a_recalled_body_that_comes_again_is_found_once",
            f"{_PERMITS_MODEL}::test_every_attempt_is_started_or_recalled_and_never_both",
        ),
        why="A worker runs what was taken back from it, beside the worker that has it now.",
    ),
    Mutant(
        name="slot-written-after-the-user-code",
        module="beaver.workers.inbox",
        diff="""
-        self._slot.start(token, self._now_ns())
+        self._slot.start(self.started, self._now_ns())
+        mutant_reached()
""",
        tests=(f"{_STOPPING}::test_the_slot_names_the_attempt_before_its_code_runs",),
        why="A job that kills its worker counts as never started, and runs for ever.",
    ),
    Mutant(
        name="worker-reported-gone-before-its-subprocesses",
        module="beaver.workers.zygote",
        diff="""
-        if (worker.remains and left_s > 0) or (in_doubt and left_s > _LINGER_S - _EXEC_S):
-            return False
+        if worker.remains:
+            mutant_reached()
+            worker.remains.clear()
""",
        tests=(f"{_DEATHS}::test_the_end_of_a_worker_waits_for_a_subprocess_that_is_slow_to_die",),
        why="What a timed-out job has started goes on beside its next attempt.",
    ),
    Mutant(
        name="leftovers-not-killed",
        module="beaver.workers.leftovers",
        diff="""
-        # All are named before one is killed: the death of a zygote ends its workers.
+        mutant_reached()
+        found.clear()
""",
        tests=(f"{_DEATHS}::test_leftovers_of_a_dead_server_are_found_by_the_next_one",),
        why="After a crash an attempt runs twice at once.",
    ),
    Mutant(
        name="slots-of-another-boot-believed",
        module="beaver.workers.slots",
        diff="""
-    return PreviousSlots(boot == boot_id(), store, started)
+    mutant_reached()
+    return PreviousSlots(True, store, started)
""",
        tests=(f"{_SLOTS}::test_another_boot_is_told_apart",),
        why="After a power cut jobs that had run count as never started.",
    ),
    Mutant(
        name="slots-not-cut-at-the-logs-end",
        module="beaver.workers.slots",
        diff="""
-        keep = {worker: min(token, last_seq) for worker, token in keep.items()}
+        mutant_reached()
""",
        tests=(f"{_SLOTS}::test_a_token_that_the_log_never_came_to_does_not_outlive_its_server",),
        why="A crash in a queue that has opted out makes later jobs seem to have started.",
    ),
    Mutant(
        name="slots-mapped-to-their-end",
        module="beaver.workers.slots",
        diff="""
-        self._map = mmap.mmap(fd, (worker + 1) * _SLOT_BYTES)
+        mutant_reached()
+        self._map = mmap.mmap(fd, 0)
""",
        tests=(f"{_SLOTS}::test_bytes_behind_the_last_slot_do_not_stop_the_next_worker",),
        why="A job that lengthens the file stops every later worker, and with them the server.",
    ),
    Mutant(
        name="server-takes-over-slots-uncut",
        module="beaver.server.assembly",
        diff="""
-        ports.pool.attach(self._layout.slots, self.engine.durable_seq)
+        mutant_reached()
+        ports.pool.attach(self._layout.slots, 1 << 60)
""",
        tests=(
            f"{_KILL}::test_a_token_that_the_log_never_came_to_charges_nothing_of_a_later_server",
        ),
        why="After a kill -9 a job that its worker never took is charged an attempt.",
    ),
    Mutant(
        name="recycled-worker-drops-what-it-was-sent",
        module="beaver.workers.inbox",
        diff="""
+        token = self._permit(wait)
         if self.has_enough():
+            mutant_reached()
             return None
-        token = self._permit(wait)
""",
        tests=(f"{_RECYCLING}::test_recycling_loses_nothing_and_repeats_nothing",),
        why="Each recycling of a worker loses the job that comes next.",
    ),
    Mutant(
        name="worker-that-has-done-enough-waits-for-more",
        module="beaver.workers.coroutines",
        diff="""
-        elif self._inbox.has_enough():  # no permit may ever come that would lead to `_take`
+        elif self._inbox.closed:
             self._end_if_idle()
         else:
+            mutant_reached()
             self._listen()
""",
        tests=(f"{_RECYCLING}::test_a_worker_that_has_done_enough_ends_though_nothing_more_comes",),
        why="A worker that leaks stays, with all that it holds, until another job comes.",
    ),
    Mutant(
        name="children-of-a-failed-attempt-sent",
        module="beaver.workers.attempts",
        diff="""
-        return Outcome(attempt.token, attempt.job, int(kind), b"null", cut(text), delay_ms)
+        mutant_reached()
+        left = tuple(context.children or ())
+        return Outcome(attempt.token, attempt.job, int(kind), b"null", cut(text), delay_ms, left)
""",
        tests=(f"{_EXECUTION}::test_children_travel_with_the_success_and_only_with_it",),
        why="A failed attempt leaves children behind, and the next one enqueues them again.",
    ),
    Mutant(
        name="start-that-hangs-waited-for",
        module="beaver.dispatch.supervision",
        diff="""
-        self.kill(worker, KillCause.START, set())
+        mutant_reached()
""",
        tests=(
            f"{_CONTROLLER}::test_a_worker_that_does_not_get_ready_is_killed_and_replaced_ever_later",
        ),
        why="A worker whose import hangs takes its slot for ever.",
    ),
    Mutant(
        name="violated-invariant-without-consequence",
        module="beaver.server.housekeeping",
        diff="""
-            self._on_violation(f"at seq {seq}: {sampled.wrong}")
+            mutant_reached()
""",
        tests=(
            f"{_SAMPLING}::test_a_violation_stops_dispatch_names_the_seq_and_a_restart_mends_it",
        ),
        why="A server goes on dispatching from a state that it knows to be wrong.",
    ),
)
