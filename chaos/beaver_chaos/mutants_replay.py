"""Mutants of replay: runs of like events that recovery checks and applies at once.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_RUNS: Final = "tests/model/test_bulk.py"
_REPLAYED: Final = f"{_RUNS}::test_a_run_is_replayed_as_its_events_are_one_by_one"

MUTANTS: Final = (
    Mutant(
        name="a-job-twice-in-a-commit-is-replayed",
        module="beaver_model.bulk",
        diff="""
-        len(jobs) != len(events)
-        or not state.jobs.keys().isdisjoint(jobs)
+        mutant_reached()
+        or not state.jobs.keys().isdisjoint(jobs)
""",
        tests=(_REPLAYED,),
        why="A corrupt log is taken for a good one, and a job is lost without a word.",
    ),
    Mutant(
        name="a-finished-job-of-a-commit-is-replayed",
        module="beaver_model.bulk",
        diff="""
-        or not state.tombstones.keys().isdisjoint(jobs)
+        or mutant_reached()
""",
        tests=(_REPLAYED,),
        why="A forged log runs a job again that has completed.",
    ),
    Mutant(
        name="digests-of-a-commit-not-measured",
        module="beaver_model.bulk",
        diff="""
-        or set(map(len, map(_digest, events))) != {DIGEST_BYTES}
+        or mutant_reached()
""",
        tests=(_REPLAYED,),
        why="A payload begins in the middle of a digest, and a job gets other arguments.",
    ),
    Mutant(
        name="a-job-twice-in-a-run-of-dispatches-is-replayed",
        module="beaver_model.bulk",
        diff="""
         if row is None or row.state != _PENDING or row.attempt >= row.spec.max_attempts:
             return False
-    return len(set(map(_job, events))) == len(events)
+    mutant_reached()
+    return True
""",
        tests=(_REPLAYED,),
        why="A corrupt log gives one job two attempts at once.",
    ),
    Mutant(
        name="attempts-of-a-run-not-counted",
        module="beaver_model.bulk",
        diff="""
-        if row is None or row.state != _PENDING or row.attempt >= row.spec.max_attempts:
+        mutant_reached()
+        if row is None or row.state != _PENDING:
""",
        tests=(_REPLAYED,),
        why="A forged log lets a job run more often than it may.",
    ),
    Mutant(
        name="tokens-of-a-run-not-compared",
        module="beaver_model.bulk",
        diff="""
-        if row is None or row.state != _IN_FLIGHT or row.token != event.token:
+        mutant_reached()
+        if row is None or row.state != _IN_FLIGHT:
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
