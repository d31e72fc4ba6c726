"""Mutants in what becomes of attempts at remote workers.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_LEASES: Final = "tests/runtime/test_leases.py"
_WORKERS: Final = "tests/http_api/test_workers.py"
_MODEL: Final = "tests/model/test_remote.py"

MUTANTS: Final = (
    Mutant(
        name="boot-ends-remote-attempts",
        module="beaver_model.deciding",
        diff="""
-        if row.is_remote:
+        if row.is_remote and mutant_reached() is not None:
""",
        tests=(f"{_MODEL}::test_a_boot_ends_local_attempts_and_leaves_remote_ones",),
        why="A restart of the server takes an hour's work from each remote worker.",
    ),
    Mutant(
        name="boot-may-leave-a-local-attempt-behind-a-remote-one",
        module="beaver_model.legality",
        diff="""
-        rows = islice(dropwhile(_is_remote, state.in_flight.values()), 1)
+        mutant_reached()
+        rows = islice(state.in_flight.values(), 1)
""",
        tests=(
            f"{_MODEL}::test_a_log_whose_boot_leaves_a_local_attempt_behind_remote_ones_is_illegal",
        ),
        why="A log in which a dead server's attempt is in flight for ever is taken as good.",
    ),
    Mutant(
        name="expired-lease-waits-for-the-backoff",
        module="beaver_model.deciding",
        diff="""
-    if command.cause != Cause.LEASE_EXPIRED:
+    if mutant_reached() is None:
""",
        tests=(f"{_MODEL}::test_a_job_whose_lease_has_expired_is_at_once_available_again",),
        why="A job of a dead worker waits for nothing, up to an hour.",
    ),
    Mutant(
        name="refused-child-ends-a-remote-attempt",
        module="beaver_model.deciding",
        diff="""
-        if command.may_send_again:
-            return admitted
+        if command.may_send_again:
+            mutant_reached()
""",
        tests=(
            f"{_MODEL}::test_children_that_are_refused_end_nothing_where_it_may_be_said_otherwise",
        ),
        why="A worker is told 409, and its job is dead all the same.",
    ),
    Mutant(
        name="heartbeat-renews-nothing",
        module="beaver.dispatch.leases",
        diff="""
-        worker.heard_ns = self._clock.monotonic_ns()
-        return worker
+        mutant_reached()
+        return worker
""",
        tests=(f"{_LEASES}::test_every_request_renews_the_lease_and_silence_ends_it",),
        why="A worker that lives loses what it runs, lease after lease.",
    ),
    Mutant(
        name="pull-answered-before-the-sync",
        module="beaver.dispatch.pulls",
        diff="""
-        for pull in self._filled:
-            self._engine.once_durable(partial(self._give, pull))
+        for pull in self._filled:
+            mutant_reached()
+            self._give(pull)
""",
        tests=(f"{_LEASES}::test_a_pull_is_answered_once_its_dispatch_is_durable_and_not_before",),
        why="User code runs elsewhere whose DISPATCH a crash forgets.",
    ),
    Mutant(
        name="pulls-that-share-no-room",
        module="beaver.dispatch.remote_workers",
        diff="""
-        return min(self.room, self.worker.room)
+        mutant_reached()
+        return self.room
""",
        tests=(
            f"{_LEASES}::test_pulls_take_turns_and_none_gets_more_than_its_worker_has_room_for",
        ),
        why="A worker that pulls twice at once holds twice what it can run.",
    ),
    Mutant(
        name="dropped-pull-keeps-what-it-got",
        module="beaver.dispatch.pulls",
        diff="""
-            if pull.worker.held.pop(attempt.token, None) is not None
+            if mutant_reached() is not None
""",
        tests=(f"{_LEASES}::test_what_a_dropped_pull_had_got_is_given_back_for_nothing",),
        why="A job waits for a lease because the connection of a worker was cut.",
    ),
    Mutant(
        name="what-heartbeats-leave-out-is-kept",
        module="beaver.dispatch.leases",
        diff="""
-            elif lease.since_ns and now_ns - lease.named_ns > self._lease_ns:
+            elif mutant_reached() is not None:
""",
        tests=(
            f"{_LEASES}::test_what_heartbeats_leave_out_for_a_lease_is_taken_back_and_no_sooner",
        ),
        why="The answer to a pull is lost, and its job is in flight for ever.",
    ),
    Mutant(
        name="remote-worker-cannot-have-what-waits-behind-a-long-job",
        module="beaver.dispatch.dispatching",
        diff="""
-        if all(w.held for w in workers) and not self._pulls.waiting:
-            return False
+        if all(w.held for w in workers):
+            mutant_reached()
+            return False
""",
        tests=(f"{_LEASES}::test_what_waits_behind_a_long_local_attempt_goes_to_a_remote_worker",),
        why="A remote worker is idle while a job waits behind one that takes an hour.",
    ),
    Mutant(
        name="another-outcome-answered-as-the-first",
        module="beaver.server.http.outcomes",
        diff="""
-        if answer.mark == report.mark:
+        if mutant_reached() is None:
""",
        tests=(f"{_WORKERS}::test_an_outcome_is_taken_once_and_the_same_one_answered_again",),
        why="A worker that reports a failure is told that its job has completed.",
    ),
)
