"""Mutants of replay: runs of like events that recovery checks and applies at once.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_RUNS: Final = "tests/model/test_bulk.py"
_REPLAYED: Final = f"{_RUNS}::test_a_run_is_replayed_as_its_events_are_one_by_one"
_NAMED: Final = f"{_RUNS}::test_one_of_many_that_cannot_have_come_in_is_named_with_its_seq"

MUTANTS: Final = (
    Mutant(
        name="a-job-twice-in-a-commit-is-replayed",
        module="beaver_model.bulk",
        diff="""
-    if list(map(known.setdefault, jobs, rows)) == rows:
+    mutant_reached()
+    if list(map(known.setdefault, jobs, rows)):
""",
        tests=(_NAMED,),
        why="A corrupt log is taken for a good one, and a job is lost without a word.",
    ),
    Mutant(
        name="what-came-in-before-a-job-twice-is-kept",
        module="beaver_model.bulk",
        diff="""
-        if known.get(job) is row:
-            del known[job]
+        mutant_reached()
""",
        tests=(_NAMED,),
        why="Recovery names another event than the one that is wrong.",
    ),
    Mutant(
        name="a-finished-job-of-a-commit-is-replayed",
        module="beaver_model.bulk",
        diff="""
-        state.tombstones.keys().isdisjoint(jobs)
+        not mutant_reached()
""",
        tests=(_NAMED,),
        why="A forged log runs a job again that has completed.",
    ),
    Mutant(
        name="digests-of-a-commit-not-measured",
        module="beaver_model.bulk",
        diff="""
-        and set(map(len, map(_digest, events))) == {DIGEST_BYTES}
+        and not mutant_reached()
""",
        tests=(_NAMED,),
        why="A payload begins in the middle of a digest, and a job gets other arguments.",
    ),
    Mutant(
        name="a-job-twice-in-a-run-of-dispatches-is-replayed",
        module="beaver_model.bulk",
        diff="""
             if found.extra is not None and found.extra.suspect:
                 return False
-        if len(set(map(_job, events))) != len(events):
-            return False
+        mutant_reached()
""",
        tests=(_REPLAYED,),
        why="A corrupt log gives one job two attempts at once.",
    ),
    Mutant(
        name="attempts-of-a-run-not-counted",
        module="beaver_model.bulk",
        diff="""
-            if found.attempt >= found.spec.max_attempts:
-                return False
+            mutant_reached()
""",
        tests=(_REPLAYED,),
        why="A forged log lets a job run more often than it may.",
    ),
    Mutant(
        name="tokens-of-a-run-not-compared",
        module="beaver_model.bulk",
        diff="""
-            if row is None or row.state != _IN_FLIGHT or row.token != event.token:
+            mutant_reached()
+            if row is None or row.state != _IN_FLIGHT:
""",
        tests=(_REPLAYED,),
        why="A log in which a stale worker ends a job is taken for a good one.",
    ),
    Mutant(
        name="run-without-indexes-counts-one-queue-for-all",
        module="beaver_model.bulk",
        diff="""
-        return len({row.spec.queue for row in rows}) == 1
+        mutant_reached()
+        return True
""",
        tests=(_REPLAYED,),
        why="After a start one queue has had the turns of all, and waits for them.",
    ),
    Mutant(
        name="recovery-counts-no-completions-of-a-run",
        module="beaver_model.bulk",
        diff="""
-        state.queues[name].row.completed += len(queued)
+        mutant_reached()
+        state.queues[name].row.completed += len(queued) if state.indexed else 1
""",
        tests=(_REPLAYED,),
        why="A start from the log and one from a snapshot count differently.",
    ),
    Mutant(
        name="indexes-of-a-whole-state-in-another-order",
        module="beaver_model.bulk",
        diff="""
-    state.in_flight = dict(sorted(state.in_flight.items()))
+    mutant_reached()
""",
        tests=(_REPLAYED,),
        why="What a power cut charges, and in which order, depends on how the server started.",
    ),
)
