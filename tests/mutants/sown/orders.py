"""Mutants of what happens within one callback or system call: the order of its steps.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_CONTROLLER: Final = "tests/runtime/test_controller.py"
_ENGINE: Final = "tests/runtime/test_engine.py"
_INBOX: Final = "tests/workers/test_inbox.py"
_EXPLORER: Final = (
    "tests/spec/test_explorer.py"
    "::test_nothing_is_wrong_within_the_bounds_and_the_counts_are_those_pinned"
)
_KILLS: Final = (
    "tests/simulator/test_seeds.py::test_seeds_in_which_servers_are_killed_break_no_promise"
)

_ZYGOTES: Final = (
    "tests/simulator/test_seeds.py::test_seeds_in_which_zygotes_are_lost_break_no_promise"
)

MUTANTS: Final = (
    Mutant(
        name="zygote-that-is-lost-not-replaced",
        module="beaver.workers.pool",
        diff="""
-                self._zygote = self._start_zygote()
+                mutant_reached()
+                self._zygote = zygote
""",
        tests=(_ZYGOTES,),
        why="Every worker is lost for good, and the server waits for its next one.",
    ),
    Mutant(
        name="death-told-before-what-the-worker-left-is-gone",
        module="beaver.workers.zygote",
        diff="""
-        if (worker.remains and left_s > 0) or (in_doubt and left_s > _LINGER_S - _EXEC_S):
-            return False
+        if worker.remains and left_s > 0:
+            mutant_reached()
""",
        tests=(_ZYGOTES,),
        why="What a lost attempt has started goes on beside the next one.",
    ),
    Mutant(
        name="slots-read-before-leftovers-are-killed",
        module="beaver.server.assembly",
        diff="""
+        previous = ports.read_slots(self._layout.slots)
+        mutant_reached()
         killed = ports.pool.claim(self.mark)
         if killed:
             log.warning("killed %s that a dead server left behind", counted(killed, "process"))
-        previous = ports.read_slots(self._layout.slots)
""",
        tests=(_KILLS,),
        why="What a leftover starts in its last moment is given back, and counts as never run.",
    ),
    Mutant(
        name="mark-takes-the-room-of-an-open-batch",
        module="beaver.engine.group_commit",
        diff="""
-        if self.counters.commits != self._idle_after or self.under_way or self.batch.events:
+        mutant_reached()
+        if self.counters.commits != self._idle_after or self.under_way:
""",
        tests=(f"{_ENGINE}::test_no_quiet_moment_is_told_while_a_batch_is_open",),
        why="On a disk that is nearly full a commit does not fit any more, and the server ends.",
    ),
    Mutant(
        name="limit-begins-late-in-the-inbox",
        module="beaver.workers.inbox",
        diff="""
-        self._slot.start(token, self._now_ns())
+        mutant_reached()
+        self._slot.start(token, self._now_ns() + 5_000_000_000)
""",
        tests=(f"{_INBOX}::test_the_limit_of_an_attempt_begins_when_it_is_taken",),
        why="A job runs over its limit, and what reads the slot says that it has not begun.",
    ),
    Mutant(
        name="limit-begins-with-the-wait-for-an-attempt",
        module="beaver.workers.inbox",
        diff="""
+        mutant_reached()
+        began_ns = self._now_ns()
+        self._now_ns = lambda: began_ns
         token = self._permit(wait)
""",
        tests=(f"{_INBOX}::test_the_limit_of_an_attempt_begins_when_it_is_taken",),
        why="The first job of a worker that has long waited is killed at once.",
    ),
    Mutant(
        name="overrun-beside-a-cancel-told-as-cancelled",
        module="beaver.dispatch.time_limits",
        diff="""
-                cancelled = all(worker.held[token].cancel_ns for token in overdue)
+                mutant_reached()
+                cancelled = any(worker.held[token].cancel_ns for token in overdue)
""",
        tests=(f"{_CONTROLLER}::test_what_ran_too_long_beside_a_cancelled_one_is_not_cancelled",),
        why="A job that ran too long beside a cancelled one never runs again; nobody asked for it.",
    ),
    Mutant(
        name="cancel-forgotten-in-a-power-cut",
        module="beaver_model.deciding",
        diff="""
-        elif row.cancel_requested or row.on_last_attempt:
+        elif mutant_reached() or row.on_last_attempt or (
+            row.cancel_requested and not command.power_cut
+        ):
""",
        tests=(f"{_EXPLORER}[cancel-power-cut]",),
        why="A job that an operator cancelled runs again after the power has failed.",
    ),
)
