"""Mutants of what compares two tellings of one state: snapshots with what they were made of.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_COMPARED: Final = "tests/snapshot/test_compared.py"
_LEFT_OUT: Final = f"{_COMPARED}::test_a_row_of_no_kind_may_be_left_out"
_AGREES: Final = f"{_COMPARED}::test_where_all_agree_the_snapshot_is_kept_and_the_archive_pruned"
_LIVE: Final = f"{_COMPARED}::test_a_live_state_that_is_not_what_the_log_gives_is_found"
_RELEASED: Final = (
    "tests/scenarios/test_kill.py"
    "::test_a_job_that_outlives_the_grace_is_released_without_spending_an_attempt"
)
_SEEDS: Final = (
    "tests/simulator/test_seeds.py::test_a_few_seeds_break_no_promise_and_meet_every_event_and_act"
)
_STRUCK: Final = (
    "tests/history/test_meanwhile.py"
    "::test_whenever_the_helper_is_at_work_a_story_is_whole_and_told_once"
)

MUTANTS: Final = (
    Mutant(
        name="a-rare-row-left-out-of-snapshots",
        module="beaver_model.freezing",
        diff="""
     for row in sorted(state.jobs.values(), key=_seq):
+        if row.cancel_requested:
+            mutant_reached()
+            continue
""",
        tests=(_AGREES,),
        why="A job that was to be cancelled is gone once the log below the snapshot is deleted.",
    ),
    Mutant(
        name="a-rare-field-left-out-of-snapshots",
        module="beaver.snapshot.lines",
        diff="""
-        None if extra is None else ExtraLine(*extra),
+        None if mutant_reached() or extra is None else ExtraLine(0, *extra[1:]),
""",
        tests=(_AGREES,),
        why="A requeued job comes back with the idempotency key of its first life.",
    ),
    Mutant(
        name="a-rare-line-not-read",
        module="beaver.snapshot.lines",
        diff="""
     row.attempt, row.token, row.worker = line.attempt, line.token, line.worker
-    if line.extra is not None:
+    mutant_reached()
+    if line.extra is not None and not line.extra.tags:
""",
        tests=(_AGREES,),
        why="Tags and parents are lost with the next start.",
    ),
    Mutant(
        name="snapshot-named-without-a-comparison",
        module="beaver.snapshot.files",
        diff="""
-        _compare(disk, unnamed)
+        mutant_reached()
""",
        tests=(_LEFT_OUT,),
        why="A bug in what is written or read becomes the only telling of the state.",
    ),
    Mutant(
        name="contents-without-one-field",
        module="beaver_model.contents",
        diff="""
-_row: Final = attrgetter(*(name for name in Row.__struct_fields__ if name != "scheduled"))
+mutant_reached()
+_row: Final = attrgetter(*(n for n in Row.__struct_fields__ if n not in ("scheduled", "ready_ms")))
""",
        tests=(f"{_COMPARED}::test_a_row_that_differs_in_one_field_is_another",),
        why="A snapshot may forget when jobs are due, and nobody notices.",
    ),
    Mutant(
        name="contents-without-tombstones",
        module="beaver_model.contents",
        diff="""
-        _part(len(state.tombstones), buried),
+        _part(0 if mutant_reached() else 0, ()),
""",
        tests=(f"{_COMPARED}::test_no_queue_and_no_tombstone_may_be_left_out",),
        why="A snapshot may forget who has finished, and a job that is sent again runs again.",
    ),
    Mutant(
        name="pruned-before-the-comparison",
        module="beaver.helper.work",
        diff="""
-    try:
-        taken = take_snapshot(disk, layout, last_seq, clock, live)
-    except DiskFull:
+    mutant_reached()
+    if True:
""",
        tests=(_LEFT_OUT,),
        why="The log that could tell what a wrong snapshot has lost is deleted before it is asked.",
    ),
    Mutant(
        name="pruned-though-a-comparison-failed",
        module="beaver.helper.work",
        diff="""
-    except DiskFull:
-        _prune(disk, layout, keep_bytes, keep_ms, clock)
-        taken = take_snapshot(disk, layout, last_seq, clock, live)
+    finally:
+        mutant_reached()
+        _prune(disk, layout, keep_bytes, keep_ms, clock)
""",
        tests=(_LEFT_OUT,),
        why="What is known to be wrong is followed by the loss of what is right.",
    ),
    Mutant(
        name="live-state-not-compared",
        module="beaver.helper.work",
        diff="""
     wrong = difference_at_a_glance(state, live)
-    if wrong:
+    mutant_reached()
+    if False:
""",
        tests=(_LIVE,),
        why="A server goes on with a state that is not what its log says.",
    ),
    Mutant(
        name="rows-not-glanced-at",
        module="beaver_model.contents",
        diff="""
-    rows = {row.id: _of_row(row) for row in _sample(state)}
+    mutant_reached()
+    rows: dict[str, str] = {}
""",
        tests=(_LIVE,),
        why="A payload or a time that the live state has wrong is never found.",
    ),
    Mutant(
        name="a-glance-that-is-never-taken",
        module="beaver.server.housekeeping",
        diff="""
-            live = glance_at(engine.state) if engine.state.last_seq == seq else None
+            mutant_reached()
+            live = None
""",
        tests=(f"{_COMPARED}::test_a_server_shows_what_it_sees_of_its_live_state",),
        why="The live state is compared with nothing.",
    ),
    Mutant(
        name="a-release-dropped-from-a-story",
        module="beaver.history.indexed_log",
        diff="""
         attempt, worker = advance(record, event, seq, time_ms)
+        if event.NAME == "RELEASE":
+            mutant_reached()
+            continue
""",
        tests=(_RELEASED,),
        why="`explain` does not say that a job was given back.",
    ),
    Mutant(
        name="an-event-of-a-story-dropped-in-a-simulated-run",
        module="beaver.history.indexed_log",
        diff="""
         attempt, worker = advance(record, event, seq, time_ms)
+        if event.NAME == "CANCEL_REQUESTED":
+            mutant_reached()
+            continue
""",
        tests=(_SEEDS,),
        why="`explain` does not say that somebody asked for the end of a job.",
    ),
    Mutant(
        name="a-gap-of-one-event-behind-the-index",
        module="beaver.history.indexed_log",
        diff="""
-            for seq, event in enumerate(commit.events, commit.first_seq):
+            mutant_reached()
+            behind = self.indexed_seq + 1
+            for seq, event in enumerate(commit.events, commit.first_seq):
+                if seq == behind:
+                    continue
""",
        tests=(_SEEDS,),
        why="The first event that the index does not hold yet is told by nobody.",
    ),
    Mutant(
        name="a-gap-of-one-event-in-the-keys",
        module="beaver.history.blocks",
        diff="""
-            self._jobs.update([event.job for event in events])  # type: ignore[union-attr]
+            mutant_reached()
+            self._jobs.update([event.job for event in events[len(events) > 2 :]])
""",
        tests=(_SEEDS,),
        why="The first event of a large commit is not found by the index.",
    ),
    Mutant(
        name="an-index-read-while-it-changes",
        module="beaver.history.indexed_log",
        diff="""
-            self._open_files.enter_context(history.snapshot())
+            mutant_reached()
""",
        tests=(_STRUCK,),
        why="`explain` tells an event twice, or leaves one out, while the helper is at work.",
    ),
    Mutant(
        name="pruned-meanwhile-is-called-corruption",
        module="beaver.history.indexed_log",
        diff="""
             if infos and infos[0].first_seq > self.indexed_seq + 1:
                 # Indexed and pruned since.
-                raise FileNotFoundError(self.layout.archived(self.indexed_seq + 1)) from None
+                mutant_reached()
""",
        tests=(_STRUCK,),
        why="A healthy store is said to be damaged.",
    ),
)
