"""Mutants of the index of the log and of what is told from it."""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_STORIES: Final = "tests/history/test_stories.py"
_INDEX: Final = "tests/history/test_index.py"
_FILE: Final = "tests/history/test_index_file.py"

MUTANTS: Final = (
    Mutant(
        name="the-end-of-the-log-is-not-looked-through",
        module="beaver.history.stories",
        diff="""
-        if open_jobs:
+        mutant_reached()
+        if False:
             as_of_seq = past.search_tail({job: found[job] for job in open_jobs}, tail_bytes)
""",
        tests=(f"{_STORIES}::test_every_job_has_the_story_that_the_model_tells",),
        why="An answer leaves out what the index does not hold yet, and says that it does not.",
    ),
    Mutant(
        name="the-bound-of-a-search-is-not-told",
        module="beaver.history.indexed_log",
        diff="""
-        return max(self.indexed_seq, follower.cursor.next_seq - 1)
+        mutant_reached()
+        return self.until_seq
""",
        tests=(f"{_STORIES}::test_what_lies_behind_the_bound_is_said_to_be_missing",),
        why="Half a story passes for a whole one.",
    ),
    Mutant(
        name="a-lost-block-is-not-missed",
        module="beaver.history.indexed_log",
        diff="""
-            raise HistoryDamaged(f"{index.path} has lost events of job {job}")
+            mutant_reached()
""",
        tests=(f"{_FILE}::test_kept_events_that_have_rotted_are_missed",),
        why="A job whose key has rotted has no story, and nobody wonders.",
    ),
    Mutant(
        name="an-ending-behind-the-index-is-missed",
        module="beaver.history.endings",
        diff="""
             elif isinstance(event, AttemptEnded) and event.token in found:
-                _end(found[event.token], [(seq, commit.time_ms, event)])
+                mutant_reached()
""",
        tests=("tests/history/test_endings.py::test_each_attempt_ended_as_the_log_says",),
        why="The same outcome sent again is refused, since the log seems not to know its attempt.",
    ),
    Mutant(
        name="a-hash-passes-for-an-id",
        module="beaver.history.database",
        diff="""
-                if isinstance(event, JobEvent) and event.job == job:
+                mutant_reached()
+                if isinstance(event, JobEvent):
""",
        tests=(f"{_STORIES}::test_kept_events_of_one_hash_are_told_apart",),
        why="Two jobs whose ids have one hash have each other's events.",
    ),
    Mutant(
        name="pruned-before-it-was-kept",
        module="beaver.helper.work",
        diff="""
-            before=lambda first_seq: history.keep(first_seq, reader.read),
+            before=lambda _: mutant_reached(),
""",
        tests=(f"{_INDEX}::test_pruning_forgets_what_ended_before_and_nothing_else",),
        why="The story of a dead job ends with the segment that it began in.",
    ),
    Mutant(
        name="a-job-that-ended-is-kept",
        module="beaver.history.database",
        diff="""
-                stays.pop(event.job, None)
+                mutant_reached()
""",
        tests=(f"{_INDEX}::test_pruning_forgets_what_ended_before_and_nothing_else",),
        why="The index grows with every job that ever was.",
    ),
    Mutant(
        name="a-search-goes-on-behind-what-it-left-out",
        module="beaver.history.stories",
        diff="""
             if self._found and self._bytes > LIST_BYTES_MAX:
+                mutant_reached()
+                self._come_to = seq
                 return False
""",
        tests=(f"{_STORIES}::test_a_page_of_finished_jobs_ends_with_its_bytes",),
        why="One finished job a page is never listed.",
    ),
    Mutant(
        name="what-was-read-ahead-is-taken-as-it-was",
        module="beaver.journal.wal.forensics",
        diff="""
-        if scan.frames != earlier.scan.frames or end != earlier.scan.end:
+        mutant_reached()
+        if False:
""",
        tests=("tests/journal/test_read_ahead.py",),
        why="What another process acknowledged between reading and locking is overwritten.",
    ),
)
