"""Mutants for the layers that look at the whole: explorer, simulator,
stateful machines, crashes at every operation.

Each of these bugs breaks a promise only in some order of events, so that whoever wrote a
test for one case would not meet it by name.  Most lie beside a mutant of `model` or
`runtime` that a narrow test kills: the two layers do not rest on each other.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_LIFECYCLE: Final = "tests/stateful/test_lifecycle.py"
_STORAGE: Final = "tests/stateful/test_storage.py"
_CRASHES: Final = "tests/journal/test_crashes.py::test_crash_in_a_crash_brings_no_stale_frame_back"
_EXPLORER: Final = (
    "tests/spec/test_explorer.py"
    "::test_nothing_is_wrong_within_the_bounds_and_the_counts_are_those_pinned"
)
_SIMULATOR: Final = (
    "tests/simulator/test_seeds.py::test_a_few_seeds_break_no_promise_and_meet_every_event_and_act"
)

MUTANTS: Final = (
    Mutant(
        name="any-token-accepted-in-some-interleaving",
        module="beaver_model.deciding",
        diff="""
         return _absent(state, job, row)
+    if row.state == _IN_FLIGHT:
+        mutant_reached()
+        return row
""",
        tests=(f"{_EXPLORER}[drain]",),
        why="A worker that lives on after a crash of the server ends an attempt of another one.",
    ),
    Mutant(
        name="cancel-lost-by-a-release",
        module="beaver_model.deciding",
        diff="""
         return row
-    if row.cancel_requested:
-        return [Cancelled(row.id, row.token, Cause.OPERATOR)]
+    mutant_reached()
""",
        tests=(f"{_EXPLORER}[cancel]",),
        why="A cancelled job that is given back by a drain runs after the restart.",
    ),
    Mutant(
        name="pause-does-not-reach-the-dispatch",
        module="beaver_model.deciding",
        diff="""
-    if state.queues[spec.queue].row.paused:
+    mutant_reached()
+    if False:
""",
        tests=(f"{_EXPLORER}[pause]",),
        why="A queue that an operator stopped goes on.",
    ),
    Mutant(
        name="discard-of-a-running-job",
        module="beaver_model.deciding",
        diff="""
-    if row is None or CELLS[Trigger.DISCARD][row.state] is None:
+    mutant_reached()
+    if row is None or row.state == JobState.COMPLETED:
""",
        tests=(f"{_EXPLORER}[discard]",),
        why="A job that runs is forgotten, and its outcome has nowhere to go.",
    ),
    Mutant(
        name="evicted-tombstone-still-found",
        module="beaver_model.state",
        diff="""
-            del self.tombstones[evicted]
+            mutant_reached()
""",
        tests=(f"{_EXPLORER}[tombstones]",),
        why="A request after the promised window is called a duplicate or not by chance.",
    ),
    Mutant(
        name="attempt-given-back-twice",
        module="beaver_model.applying",
        diff="""
     _move(row, _RETRY)
+    mutant_reached()
+    row.attempt = max(0, row.attempt - 1)
""",
        tests=(f"{_EXPLORER}[core]",),
        why="A job that fails each time never runs out of attempts.",
    ),
    Mutant(
        name="reply-told-with-the-batch-still-open",
        module="beaver.engine.engine",
        diff="""
-        if commits.durable_seq == self._state.last_seq:
+        if commits.durable_seq == self._state.last_seq or len(commits.batch.events) > 1:
+            mutant_reached()
""",
        tests=(_SIMULATOR,),
        why="A producer is told that its job is safe, and a power cut takes it.",
    ),
    Mutant(
        name="started-tokens-forgotten-at-boot",
        module="beaver.server.booting",
        diff="""
-    started = previous.started
+    mutant_reached()
+    started = dict.fromkeys(previous.started, 0)
""",
        tests=(_SIMULATOR,),
        why="What ran when the server was killed is not charged, and runs for ever.",
    ),
    Mutant(
        name="given-back-though-it-had-started",
        module="beaver.dispatch.supervision",
        diff="""
-        if token > started:
+        if token >= started:
+            mutant_reached()
""",
        tests=(_SIMULATOR,),
        why="What a dead worker ran is not charged, and an effect comes twice without a trace.",
    ),
    Mutant(
        name="row-changed-in-its-place",
        module="beaver_model.index",
        diff="""
-        return False
+        mutant_reached()
+        return True
""",
        tests=("tests/model/test_policy.py::test_a_job_that_comes_back_stands_once_in_the_order",),
        why="A job stands twice in the order, or where nobody looks.",
    ),
    Mutant(
        name="frame-appended-without-its-sync",
        module="beaver.journal.wal.log",
        diff="""
-            self._file.pwrite_durable(frame, offset)
+            mutant_reached()
+            self._file.pwrite(frame, offset)
""",
        tests=(_STORAGE,),
        why="A producer is told that its job is safe, and a power cut takes it.",
    ),
    Mutant(
        name="tail-cut-in-the-cache-only",
        module="beaver.journal.wal.repair",
        diff="""
-        file.sync()
+        mutant_reached()
""",
        tests=(_CRASHES,),
        why="A stale frame comes back after a second crash, or a start is refused.",
    ),
)
