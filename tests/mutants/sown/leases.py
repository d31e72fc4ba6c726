"""Mutants in what becomes of attempts at remote workers.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

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
)
