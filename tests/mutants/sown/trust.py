"""Mutants of what the server checks of its workers, and of what it tells of their failures.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_OUTPUT: Final = "tests/workers/test_output.py"
_LINES: Final = "tests/scenarios/test_failure_lines.py"
_QUEUE: Final = "tests/runtime/test_log_output.py"
_TRUST: Final = "tests/workers/test_trust.py"
_OUTCOMES: Final = "tests/runtime/test_untrusted_outcomes.py"
_BOUNDS: Final = f"{_OUTCOMES}::test_each_bound_of_an_outcome_is_checked_on_both_sides"

_AUDIT: Final = "tests/http_api/test_audit.py"
_BULK: Final = "tests/http_api/test_bulk.py"

MUTANTS: Final = (
    Mutant(
        name="discard-that-nobody-asked-for",
        module="beaver_model.deciding",
        diff="""
-    return [Discarded(row.id, command.by)]
+    mutant_reached()
+    return [Discarded(row.id)]
""",
        tests=(f"{_AUDIT}::test_a_change_on_this_machine_tells_its_user",),
        why="Nobody can tell from the log who has removed a job.",
    ),
    Mutant(
        name="jobs-of-a-set-retried-again-after-a-restart",
        module="beaver.server.bulk.carrying_out",
        diff="""
-    if generation_of(row) != member.generation:
+    mutant_reached()
+    if False:
""",
        tests=(f"{_BULK}::test_whoever_was_changed_before_is_counted_and_not_changed_again",),
        why="A restart in the middle of an action runs jobs a second time.",
    ),
    Mutant(
        name="empty-where-matches-everything",
        module="beaver.inspect.matching",
        diff="""
-    if where == Where():
+    mutant_reached()
+    if False:
""",
        tests=(f"{_BULK}::test_what_would_match_more_than_was_meant_is_refused",),
        why="A slip of a client cancels every job of the store.",
    ),
    Mutant(
        name="socket-client-without-a-name",
        module="beaver.server.connection",
        diff="""
-        watch = self._service.handle(op, body, Asker(respond, self._charge, self._by))
+        mutant_reached()
+        watch = self._service.handle(op, body, Asker(respond, self._charge))
""",
        tests=(f"{_AUDIT}::test_a_change_on_this_machine_tells_its_user",),
        why="Changes on this machine are nobody's.",
    ),
    Mutant(
        name="token-of-another-asker-in-the-options",
        module="beaver.request.resolving",
        diff="""
-        memo = self._memo_of(by) if by else self._memo[origin]
-        spec = memo.get(request.options) or self.spec(request.options, origin, by)
+        mutant_reached()
+        memo = self._memo[origin]
+        spec = memo.get(request.options)
+        if spec is None:
+            spec = memo[request.options] = self.spec(request.options, origin, by)
""",
        tests=("tests/requests/test_requests.py::test_each_asker_has_jobs_of_their_own",),
        why="A job is said to come from whoever used the same options first.",
    ),
    Mutant(
        name="result-that-is-no-json-logged",
        module="beaver.dispatch.outcome_checks",
        diff="""
-        if fault := jsontext.fault_of_result(outcome.result):
+        mutant_reached()
+        if fault := "":
""",
        tests=(_BOUNDS,),
        why="What user code sent past the worker's checks stands in the log for ever.",
    ),
    Mutant(
        name="delay-of-a-million-years-believed",
        module="beaver.dispatch.outcome_checks",
        diff="""
-    if delay_ms is not None and not 0 <= delay_ms <= BACKOFF_MS_MAX:
+    if delay_ms is not None:
+        mutant_reached()
+    if delay_ms is not None and not 0 <= delay_ms:
""",
        tests=(_BOUNDS,),
        why="A job snoozes for ever, and counts as pending.",
    ),
    Mutant(
        name="error-of-thirty-megabytes-logged",
        module="beaver.dispatch.outcomes",
        diff="""
-    text = cut(outcome.error)
+    mutant_reached()
+    text = outcome.error
""",
        tests=(f"{_OUTCOMES}::test_an_error_of_many_megabytes_is_cut_and_says_so",),
        why="An error text takes more room than was reserved for it, and the server ends.",
    ),
    Mutant(
        name="token-of-another-worker-accepted",
        module="beaver.dispatch.outcome_handler",
        diff="""
-            if held is None or not held.sent or held.attempt.job != outcome.job:
+            if held is None:
+                mutant_reached()
+                yield command_of(outcome, self._to_child, random)
+                continue
+            if held.attempt.job != outcome.job:
""",
        tests=(f"{_OUTCOMES}::test_the_outcome_of_an_attempt_of_another_worker_is_refused",),
        why="A job that runs elsewhere completes with a result that somebody made up.",
    ),
    Mutant(
        name="flood-of-refused-outcomes-endured",
        module="beaver.dispatch.outcome_handler",
        diff="""
-        if worker.refused >= REFUSED_MAX and worker.killed is None:
+        mutant_reached()
+        if False:
""",
        tests=(f"{_OUTCOMES}::test_a_worker_that_goes_on_answering_for_others_is_killed_and_pays",),
        why="A job keeps the server busy with refusals for as long as it likes.",
    ),
    Mutant(
        name="limit-moved-on-by-the-job",
        module="beaver.dispatch.time_limits",
        diff="""
-            held.seen_ns = held.seen_ns or min(since_ns, now_ns)
+            mutant_reached()
+            held.seen_ns = since_ns
""",
        tests=(
            f"{_OUTCOMES}::test_a_start_that_is_said_to_be_later_and_later_is_limited_all_the_same",
        ),
        why="A job that writes into its slot runs for ever.",
    ),
    Mutant(
        name="pipe-read-as-the-worker-left-it",
        module="beaver.workers.wire",
        diff="""
-        return os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
+        mutant_reached()
""",
        tests=(f"{_TRUST}::test_a_pipe_that_the_worker_makes_blocking_does_not_block_the_server",),
        why="A job makes its pipe blocking, and the next cancel freezes the server.",
    ),
    Mutant(
        name="permits-of-whomever-taken-back",
        module="beaver.workers.permits",
        diff="""
-        if len(found) % wire.PERMIT.size or taken != known:
+        mutant_reached()
+        if len(found) % wire.PERMIT.size:
""",
        tests=(f"{_TRUST}::test_permits_that_were_not_written_by_the_server_are_not_taken_back",),
        why="A job that runs is given to another worker too, since its permit lay in the pipe.",
    ),
    Mutant(
        name="shut-down-socket-raises",
        module="beaver.workers.permits",
        diff="""
-            if error.errno not in _GONE:
-                raise
+            mutant_reached()
+            raise
""",
        tests=(f"{_TRUST}::test_a_jobs_socket_that_was_shut_down_is_told_and_raises_nothing",),
        why="A job shuts its socket down, and the next dispatch fails the engine.",
    ),
    Mutant(
        name="overwritten-slot-believed",
        module="beaver.workers.starts",
        diff="""
-            if not before < slot.started <= mailbox.highest:
-                return self._lose(mailbox)
+            mutant_reached()
""",
        tests=(f"{_TRUST}::test_a_worker_whose_slot_is_cut_or_overwritten_is_replaced_and_pays",),
        why="A job writes a large number into its slot, and no limit ends it any more.",
    ),
    Mutant(
        name="outcome-before-the-start-believed",
        module="beaver.workers.pool",
        diff="""
-            outcomes = [outcome for outcome in outcomes if outcome.token <= started]
+            mutant_reached()
""",
        tests=(f"{_TRUST}::test_an_outcome_of_an_attempt_that_has_not_started_is_dropped",),
        why="A job completes in the log and starts afterwards.",
    ),
    Mutant(
        name="tasks-of-a-zygote-taken-as-they-are",
        module="beaver.workers.pool",
        diff="""
-            check_tasks(message.tasks)
+            mutant_reached()
""",
        tests=(f"{_TRUST}::test_a_zygote_whose_tasks_are_out_of_bounds_is_given_up",),
        why="A thread of the application makes every later job of a task unreadable.",
    ),
    Mutant(
        name="failures-of-a-dead-server-not-told",
        module="beaver.server.assembly",
        diff="""
-            self.failures.observe(booted.first_seq, self.engine.now_ms(), booted.events)
+            mutant_reached()
""",
        tests=(f"{_LINES}::test_what_a_dead_server_left_in_flight_is_told_at_the_next_start",),
        why="A job that takes the machine down dies without a line.",
    ),
    Mutant(
        name="left-out-lines-not-counted",
        module="beaver.server.failure_log",
        diff="""
-        self._left_out.setdefault(task, Counter())[name] += 1
+        mutant_reached()
""",
        tests=(f"{_LINES}::test_a_task_that_fails_in_masses_gets_a_few_lines_and_a_count",),
        why="Ten thousand jobs die, and the log shows ten.",
    ),
    Mutant(
        name="every-failure-a-line",
        module="beaver.server.failure_log",
        diff="""
-        if self._lines[task] < LINES_BY_TASK and self._lines.total() < LINES_MAX:
+        mutant_reached()
+        if True:
""",
        tests=(f"{_LINES}::test_a_task_that_fails_in_masses_gets_a_few_lines_and_a_count",),
        why="A broken release fills the disk with its log.",
    ),
    Mutant(
        name="death-without-its-traceback",
        module="beaver.server.failure_log",
        diff="""
-        if isinstance(event, Died) or log.isEnabledFor(logging.DEBUG):
+        mutant_reached()
+        if log.isEnabledFor(logging.DEBUG):
""",
        tests=(f"{_LINES}::test_each_retry_timeout_and_death_is_one_line_with_all_that_is_needed",),
        why="Whoever reads the log of a dead job has to look for the place elsewhere.",
    ),
    Mutant(
        name="log-queue-without-bound",
        module="beaver.server.log_output",
        diff="""
-            if self._dropped or self._bytes + len(data) > QUEUE_BYTES_MAX:
+            mutant_reached()
+            if self._dropped:
""",
        tests=(f"{_QUEUE}::test_a_queue_takes_exactly_its_bytes",),
        why="A log reader that stalls fills the server's memory.",
    ),
    Mutant(
        name="dropped-lines-not-told",
        module="beaver.server.log_output",
        diff="""
-                    data = self.notice(self._dropped).encode()
+                    mutant_reached()
+                    data = b""
""",
        tests=(f"{_QUEUE}::test_what_finds_no_room_is_dropped_and_counted_where_it_is_missing",),
        why="Lines are missing from the log, and nobody knows.",
    ),
    Mutant(
        name="output-of-jobs-steers-the-terminal",
        module="beaver.task.output",
        diff="""
-            self._emit("".join([f"{prefix}{printable(line, _TAB)}\\n" for line in lines]))
+            mutant_reached()
+            self._emit("".join([f"{prefix}{line}\\n" for line in lines]))
""",
        tests=(f"{_OUTPUT}::test_what_cannot_be_seen_in_the_output_of_a_job_is_escaped",),
        why="A job's output reorders and hides the lines of the log around it.",
    ),
    Mutant(
        name="bad-stored-result-shown-as-it-is",
        module="beaver.text.jsontext",
        diff="""
-        return msgspec.Raw(_encode(f"({len(result)} bytes that are no {what}: {fault})"))
+        mutant_reached()
""",
        tests=(
            "tests/history/test_bad_results.py::test_whoever_waits_for_a_bad_result_is_told_so",
        ),
        why="One bad result in an old log makes the whole answer unreadable.",
    ),
)
