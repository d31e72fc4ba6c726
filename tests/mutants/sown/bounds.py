"""Mutants of the bounds on what clients may take: descriptors, memory, names.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_DESCRIPTORS: Final = "tests/scenarios/test_descriptors.py"
_DOORS: Final = "tests/runtime/test_doors.py"
_MEMORY: Final = "tests/scenarios/test_memory.py"
_BUDGET: Final = "tests/runtime/test_budget.py"
_FORGETTING: Final = "tests/model/test_forgetting.py"
_ANSWERS: Final = "tests/runtime/test_answers.py"
_FIGURES: Final = "tests/runtime/test_queue_figures.py"

MUTANTS: Final = (
    Mutant(
        name="no-descriptor-for-a-segment-taken-for-a-failed-log",
        module="beaver.journal.wal.sealing",
        diff="""
-                if not is_pressure(error):
-                    raise
-                self._disk.rename(self._layout.adopted, path)
-                return False
+                mutant_reached()
+                raise
""",
        tests=(
            "tests/journal/test_wal.py::test_a_segment_without_a_descriptor_for_it_is_adopted_later",
        ),
        why="Clients that take every descriptor end the server.",
    ),
    Mutant(
        name="no-descriptor-for-a-directory-fails-the-log",
        module="beaver.system.disk",
        diff="""
-        kept = self._kept.get(path)
+        mutant_reached()
+        kept = None
""",
        tests=(f"{_DESCRIPTORS}::test_a_server_without_a_free_descriptor_goes_on_and_recovers",),
        why="Sealing a segment without a free descriptor ends the server.",
    ),
    Mutant(
        name="no-descriptor-for-the-writer-ends-the-server",
        module="beaver.journal.wal.commit_path",
        diff="""
-                return False
+                mutant_reached()
+                raise
""",
        tests=(
            "tests/runtime/test_commit_path.py::test_without_a_descriptor_for_a_writer_the_loop_writes",
        ),
        why="A writer process that cannot be started passes for a log that failed.",
    ),
    Mutant(
        name="http-takes-every-client",
        module="beaver.server.http.doors",
        diff="""
-        if len(self._doors) >= self._connections_max:
+        mutant_reached()
+        if len(self._doors) > self._connections_max:
""",
        tests=(f"{_DOORS}::test_at_the_limit_clients_are_served_and_one_more_gets_503",),
        why="One more connection than the limit.",
    ),
    Mutant(
        name="each-byte-of-a-head-buys-time",
        module="beaver.server.http.doors",
        diff="""
-        elif not self._waits_for_head:
+        else:
+            mutant_reached()
""",
        tests=(f"{_DOORS}::test_a_head_in_single_bytes_has_no_more_time_than_another",),
        why="A client that drips holds a connection for ever.",
    ),
    Mutant(
        name="answers-behind-a-commit-not-counted",
        module="beaver.server.asking",
        diff="""
-            size = size_of(answer)
+            mutant_reached()
+            size = 0
""",
        tests=(f"{_MEMORY}::test_pipelined_questions_behind_a_commit_are_answered_within_a_bound",),
        why="A client asks for gigabytes at once, and the server holds them until the commit.",
    ),
    Mutant(
        name="charge-of-an-answer-not-given-back",
        module="beaver.server.asking",
        diff="""
-            charge(-size)
+            mutant_reached()
""",
        tests=(f"{_BUDGET}::test_when_all_is_answered_nothing_is_held",),
        why="After some thousand answers nobody's requests are taken any more.",
    ),
    Mutant(
        name="those-who-do-not-read-not-bounded-together",
        module="beaver.server.budget",
        diff="""
-            member.cut_off("it does not read its answers, and others need the room")
+            mutant_reached()
""",
        tests=(f"{_BUDGET}::test_who_leaves_most_unread_is_hung_up_on_and_the_others_stay",),
        why="A few hundred clients, each within its bound, fill the memory.",
    ),
    Mutant(
        name="small-frame-overtakes-one-that-waits",
        module="beaver.server.budget",
        diff="""
-        if not arrived and (self._waiting or self.total + size > self.bytes_max):
+        mutant_reached()
+        if not arrived and self.total + size > self.bytes_max:
""",
        tests=(f"{_BUDGET}::test_a_small_frame_does_not_overtake_one_that_waits",),
        why="A large batch waits for as long as small ones keep coming.",
    ),
    Mutant(
        name="large-frame-before-hello",
        module="beaver.server.connection",
        diff="""
-        self._reader = framing.FrameReader(framing.HELLO_BYTES_MAX)
+        mutant_reached()
+        self._reader = framing.FrameReader()
""",
        tests=(f"{_BUDGET}::test_before_hello_a_frame_is_a_few_kilobytes_at_most",),
        why="Somebody who is not even a client fills the memory.",
    ),
    Mutant(
        name="any-number-of-waits",
        module="beaver.server.connection",
        diff="""
-        if ours < WAITS_MAX and all_waits < WAITS_ALL_MAX:
+        mutant_reached()
+        if ours < WAITS_MAX:
""",
        tests=(f"{_BUDGET}::test_waits_are_bounded_for_one_and_for_all",),
        why="Many connections, each within its bound, wait for the end of a million jobs.",
    ),
    Mutant(
        name="queue-with-settings-forgotten",
        module="beaver_model.forgetting",
        diff="""
-    return None if queue.row.is_as_new else "it has settings"
+    mutant_reached()
+    return None
""",
        tests=(f"{_FORGETTING}::test_a_queue_with_jobs_or_settings_is_never_forgotten",),
        why="A paused queue comes back running.",
    ),
    Mutant(
        name="completed-jobs-of-a-forgotten-queue-not-counted",
        module="beaver_model.state",
        diff="""
-        self.completed_elsewhere += queue.row.completed
+        mutant_reached()
""",
        tests=(f"{_FORGETTING}::test_the_count_of_completed_jobs_outlives_the_queue",),
        why="The lifetime count of completed jobs goes down.",
    ),
    Mutant(
        name="queue-used-by-the-batch-forgotten",
        module="beaver_model.forgetting",
        diff="""
-    idle = [queue for queue in idle_queues(state) if queue.row.name not in used]
+    mutant_reached()
+    idle = list(idle_queues(state))
""",
        tests=(f"{_FORGETTING}::test_a_batch_that_uses_an_idle_queue_does_not_forget_it",),
        why="A batch forgets a queue, makes it again, and there is one more than may be.",
    ),
    Mutant(
        name="idle-queues-of-an-earlier-event",
        module="beaver_model.forgetting",
        diff="""
-    if seq != state.last_seq:
+    mutant_reached()
+    if seq < 0:
""",
        tests=(f"{_FORGETTING}::test_refusals_in_a_row_look_at_the_queues_once",),
        why="A queue that has got jobs since is forgotten, or one that has become idle is not.",
    ),
    Mutant(
        name="default-queue-within-the-bound",
        module="beaver_model.forgetting",
        diff="""
-    return count - (DEFAULT_QUEUE in state.queues or DEFAULT_QUEUE in new)
+    mutant_reached()
+    return count
""",
        tests=(
            f"{_FORGETTING}::test_the_default_queue_has_room_beside_the_bound_and_is_never_forgotten",
        ),
        why="Once ten thousand names are taken, a job that names no queue is refused.",
    ),
    Mutant(
        name="forgotten-queue-of-a-forged-log-believed",
        module="beaver_model.legality",
        diff="""
-    return None if why is None else f"queue {event.queue} cannot be forgotten: {why}"
+    mutant_reached()
+    return None
""",
        tests=(f"{_FORGETTING}::test_a_log_that_forgets_what_it_may_not_is_illegal",),
        why="Recovery drops a queue with jobs, and breaks at the next event of one.",
    ),
    Mutant(
        name="queue-forgotten-for-a-job-counted-as-a-job",
        module="beaver.engine.engine",
        diff="""
-        if type(events[0]) is QueueForgotten:
+        mutant_reached()
+        if False:
""",
        tests=(f"{_ANSWERS}::test_a_queue_forgotten_for_a_new_one_is_not_taken_for_a_new_job",),
        why="A producer is told another job's seq.",
    ),
    Mutant(
        name="a-queue-called-other-has-a-label-of-its-own",
        module="beaver.server.queue_counters",
        diff="""
-            if name != OTHER:  # One label cannot stand for itself and for the rest.
+            mutant_reached()
+            if True:
""",
        tests=(f"{_FIGURES}::test_a_queue_called_as_the_rest_is_part_of_it",),
        why="One queue's jobs are counted among all the rest, or instead of them.",
    ),
    Mutant(
        name="no-room-made-for-a-reason",
        module="beaver.engine.event_sizes",
        diff="""
-    ConfirmCancel: _failure_bytes,
+    ConfirmCancel: lambda command, state: mutant_reached() or _small_bytes(command, state),
""",
        tests=("tests/runtime/test_event_sizes.py::test_the_words_of_a_job_are_reckoned_with",),
        why="A job that cancels itself with a long text finds the disk full inside a commit.",
    ),
)
