"""Mutants of the law: what may follow in a log, and who has to refuse the rest.

What may not live here: how mutants are tried (`workshop`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_FOREIGN: Final = "tests/foreign/test_illegal.py"
_MODEL: Final = "beaver_model.legality"
_SPEC: Final = "beaver_spec.traces.rules"


def _found(*kinds: str) -> tuple[str, ...]:
    """The tests by which replay finds such logs."""
    return tuple(f"{_FOREIGN}::test_replay_finds_it_with_seq_and_offset[{k}]" for k in kinds)


def _seen(*kinds: str) -> tuple[str, ...]:
    """The tests by which the specification alone finds such logs."""
    return tuple(f"{_FOREIGN}::test_the_specification_alone_finds_it[{k}]" for k in kinds)


MUTANTS: Final = (
    Mutant(
        name="stamps-may-go-back-in-a-log",
        module=_MODEL,
        diff="""
-        if self.time_ms < state.time_ms:
+        mutant_reached()
+        if False:
""",
        tests=_found("a_stamp_goes_back"),
        why="A log whose clock ran backwards is taken for good, and jobs start twice as late.",
    ),
    Mutant(
        name="a-log-may-start-jobs-before-their-time",
        module=_MODEL,
        diff="""
-    if row.ready_ms > frame.time_ms:
+    mutant_reached()
+    if False:
""",
        tests=_found("start_before_run_at", "start_before_the_snooze_is_over"),
        why="A forged log starts jobs before their time, and nobody notices.",
    ),
    Mutant(
        name="a-log-may-start-jobs-of-a-paused-queue",
        module=_MODEL,
        diff="""
-    if state.queues[spec.queue].row.paused:
+    mutant_reached()
+    if False:
""",
        tests=_found("dispatch_from_a_paused_queue"),
        why="A forged log starts jobs of a paused queue, and nobody notices.",
    ),
    Mutant(
        name="a-log-may-start-a-second-suspect",
        module=_MODEL,
        diff="""
-    if row.extra is not None and row.extra.suspect and _has_suspect_in_flight(state):
+    mutant_reached()
+    if False:
""",
        tests=_found("a_second_suspect", "a_second_suspect_in_one_frame"),
        why="Two jobs that may have killed the machine run at once, and the server then stops.",
    ),
    Mutant(
        name="a-suspect-that-ran-before-the-snapshot-is-forgotten",
        module=_MODEL,
        diff="""
-    job, token = state.suspect_out
-    row = state.jobs.get(job)
-    return row is not None and row.token == token
+    mutant_reached()
+    return False
""",
        tests=(f"{_FOREIGN}::test_a_start_refuses_it_and_writes_nothing[a_second_suspect]",),
        why="Recovery, which has no indexes, takes a log that replay refuses.",
    ),
    Mutant(
        name="a-boot-may-leave-attempts-in-flight",
        module=_MODEL,
        diff="""
-        if 0 < row.token < state.boot_seq and not row.is_remote:
+        mutant_reached()
+        if False:
""",
        tests=_found("boot_leaves_a_job_in_flight", "boot_leaves_one_of_two_in_flight"),
        why="A job waits for ever for a worker of a server that is long gone.",
    ),
    Mutant(
        name="an-attempt-may-outlive-its-server",
        module=_MODEL,
        diff="""
-    if event.token < state.boot_seq and not row.is_remote:
+    if mutant_reached() is not None:
""",
        tests=_found("ack_across_a_boot", "retry_across_a_boot"),
        why="An outcome of a server that was lost is taken for one of its successor's.",
    ),
    Mutant(
        name="fates-may-come-late",
        module=_MODEL,
        diff="""
-        if self.fates_end != state.last_seq or event.token < self.boot_before:
+        mutant_reached()
+        if event.token < self.boot_before:
""",
        tests=_found("boot_resolves_behind_another_event", "boot_resolves_in_the_next_frame"),
        why="For a while of the log, jobs run on no server.",
    ),
    Mutant(
        name="a-power-cut-may-give-back",
        module=_MODEL,
        diff="""
-            is_wrong = self.is_power_cut or cause != Cause.NEVER_STARTED
+            mutant_reached()
+            is_wrong = cause != Cause.NEVER_STARTED
""",
        tests=_found("a_power_cut_gives_back"),
        why="What may have killed the machine is given back uncharged, again and again.",
    ),
    Mutant(
        name="suspects-of-anything",
        module=_MODEL,
        diff="""
-    if event.suspect != (met and frame.is_power_cut):
+    mutant_reached()
+    if False:
""",
        tests=_found("a_power_cut_without_a_suspect", "a_suspect_of_a_restart"),
        why="What may have killed the machine runs beside another that may have.",
    ),
    Mutant(
        name="dead-with-attempts-left",
        module=_MODEL,
        diff="""
-        if row.state == _IN_FLIGHT and not row.on_last_attempt:
+        mutant_reached()
+        if False:
""",
        tests=_found("dead_with_attempts_left_of_failed", "boot_ends_a_job_with_attempts_left"),
        why="A log takes attempts from a job that it had.",
    ),
    Mutant(
        name="any-cause-in-any-event",
        module=_MODEL,
        diff="""
-    if event.cause in _MISPLACED[type(event)]:
+    mutant_reached()
+    if False:
""",
        tests=_found("release_that_charges_for_failed", "a_timeout_of_a_failure"),
        why="A failed attempt is given back, so that a poison job runs for ever.",
    ),
    Mutant(
        name="a-cancel-may-be-forgotten-in-a-log",
        module=_MODEL,
        diff="""
-    if state.jobs[event.job].cancel_requested:
+    mutant_reached()
+    if False:
""",
        tests=_found("retry_after_a_cancel_request", "dead_after_a_cancel_request"),
        why="A job that an operator cancelled runs again.",
    ),
    Mutant(
        name="children-of-anybody",
        module=_MODEL,
        diff="""
-    if event.parent and (reason := frame.why_no_child(state, event)) is not None:
+    mutant_reached()
+    if False:
""",
        tests=_found("a_child_of_a_failed_attempt", "a_child_of_nobody", "a_child_too_many"),
        why="Children of an attempt that failed are jobs, against what `ctx.enqueue` promises.",
    ),
    Mutant(
        name="ids-of-any-kind-in-a-log",
        module="beaver_model.rows",
        diff="""
-    return 0 < len(text.encode()) <= bytes_max and not _CONTROL.search(text)
+    mutant_reached()
+    return True
""",
        tests=_found("an_empty_id", "an_id_with_a_newline", "a_task_without_a_name"),
        why="A name that no client may give breaks the output of those who list it.",
    ),
    Mutant(
        name="more-queues-than-there-may-be",
        module=_MODEL,
        diff="""
-    if queue == DEFAULT_QUEUE or beside_default(state) < state.queues_max:
+    mutant_reached()
+    if True:
""",
        tests=_found("a_queue_too_many"),
        why="The server finds its invariant broken and stops to dispatch.",
    ),
    Mutant(
        name="a-queue-without-weight",
        module="beaver_model.events",
        diff="""
-Weight = Annotated[int, msgspec.Meta(ge=1, le=WEIGHT_MAX)]
+mutant_reached()
+Weight = int
""",
        tests=_found("a_weight_of_1001"),
        why="The server divides by the weight at the first job, and dies at every start.",
    ),
    Mutant(
        name="padding-of-any-kind",
        module="beaver.journal.wal.scan",
        diff="""
-    return "the padding of the frame is not zero" if padding.strip(b"\\0") else None
+    mutant_reached()
+    return None
""",
        tests=_found("padding_that_is_not_zero", "padding_of_a_mark_that_is_not_zero"),
        why="The last frame cannot be written once more as it was, and the server dies of it.",
    ),
    Mutant(
        name="marks-with-events",
        module="beaver.journal.wal.scan",
        diff="""
-        if length or count:
+        mutant_reached()
+        if False:
""",
        tests=_found("a_mark_with_events", "a_close_with_a_payload"),
        why="Two readers of a log disagree about what it holds.",
    ),
    Mutant(
        name="the-second-opinion-takes-outcomes-across-a-boot",
        module=_SPEC,
        diff="""
-        if wanted.get(step.name) != cause:
+        mutant_reached()
+        if False:
""",
        tests=_seen("ack_across_a_boot", "retry_across_a_boot"),
        why="What the model wrongly allowed would not be seen by the specification.",
    ),
    Mutant(
        name="the-second-opinion-takes-a-request-for-an-end",
        module=_SPEC,
        diff="""
-        if step.fields["job"] in self._owed:
-            return "is asked
+        mutant_reached()
+        if False:
+            return "is asked
""".replace('"is asked', '"is asked to stop, and its attempt ended with the BOOT"'),
        tests=_seen("a_cancel_request_across_a_boot"),
        why="What the model wrongly allowed would not be seen by the specification.",
    ),
    Mutant(
        name="a-queue-without-weight-in-a-snapshot",
        module="beaver.snapshot.lines",
        diff="""
-    weight: Weight
+    mutant_reached()
+    weight: int
""",
        tests=("tests/snapshot/test_format.py",),
        why="The server divides by the weight at the first job, and dies at every start.",
    ),
    Mutant(
        name="the-second-opinion-knows-no-parents",
        module=_SPEC,
        diff="""
-            if parent != self._parent:
+            mutant_reached()
+            if False:
""",
        tests=_seen("a_child_of_a_failed_attempt", "a_child_behind_other_events"),
        why="What the model wrongly allowed would not be seen by the specification.",
    ),
)
