"""Mutants of `apply`, one for each kind of event at least, for the simulator to find.

Engine, recovery and replay apply events with the same code, so they agree whatever it does; what
they come to is compared with a book that shares no code with it.  What may not live here: how
they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_SEEDS: Final = (
    "tests/simulator/test_seeds.py::test_a_few_seeds_break_no_promise_and_meet_every_event_and_act"
)


def _applied(name: str, diff: str, why: str) -> Mutant:
    return Mutant(name=name, module="beaver_model.applying", diff=diff, tests=(_SEEDS,), why=why)


MUTANTS: Final = (
    _applied(
        "enqueue-applied-without-its-time",
        """
     if event.run_at_ms > ready_ms:
-        ready_ms = event.run_at_ms
+        mutant_reached()
""",
        "A job that was to run tomorrow runs now.",
    ),
    _applied(
        "enqueue-applied-without-its-parent",
        """
     if event.parent or event.tags:
-        row.extra = Extra(parent=event.parent, tags=event.tags)
+        mutant_reached()
+        row.extra = Extra(tags=event.tags)
""",
        "A child does not know whose it is.",
    ),
    _applied(
        "dispatch-applied-with-another-worker",
        """
     row.token = state.last_seq
-    row.worker = event.worker
+    mutant_reached()
+    row.worker = event.worker + 1
""",
        "What a dead worker held is looked for at another one.",
    ),
    _applied(
        "ack-applied-without-being-counted",
        """
     _move(row, _ACK)
-    state.queues[row.spec.queue].row.completed += 1
+    mutant_reached()
""",
        "`status` tells of fewer completed jobs than there were.",
    ),
    _applied(
        "retry-applied-as-a-suspect-s",
        """
     _move(row, _RETRY)
-    _extra(row).suspect = False
+    mutant_reached()
""",
        "A suspect that failed by itself waits for the others for ever.",
    ),
    _applied(
        "retry-applied-without-its-error",
        """
     extra = _extra(row)
-    extra.cause, extra.error = event.cause, event.error
     row.token = row.worker = 0
     row.ready_ms = max(event.run_at_ms, state.time_ms)
+    mutant_reached()
""",
        "Nobody is told why an attempt failed.",
    ),
    _applied(
        "timeout-applied-without-its-suspicion",
        """
     _move(row, _TIMEOUT)
-    _extra(row).suspect = event.suspect
+    mutant_reached()
+    _extra(row).suspect = False
""",
        "A job that takes the machine down takes its neighbours' attempts with it.",
    ),
    _applied(
        "release-applied-as-a-charge",
        """
     _move(row, _RELEASE)
-    row.attempt -= 1
+    mutant_reached()
""",
        "A job that never ran uses up its attempts.",
    ),
    _applied(
        "snooze-applied-without-being-counted",
        """
     if event.cause == Cause.SNOOZE:
-        _extra(row).snoozes += 1
+        mutant_reached()
""",
        "A job snoozes without end.",
    ),
    _applied(
        "dead-applied-without-its-cause",
        """
     extra = _extra(row)
     extra.suspect = extra.cancel_requested = False
-    extra.cause, extra.error = event.cause, event.error
+    mutant_reached()
""",
        "A dead job does not say of what it died.",
    ),
    _applied(
        "cancel-request-applied-and-forgotten",
        """
     _move(row, _CANCEL_REQUESTED)
-    _extra(row).cancel_requested = True
+    mutant_reached()
""",
        "A job that was to be cancelled runs again after its failure.",
    ),
    _applied(
        "cancel-applied-without-its-cause",
        """
-    extra.cause, extra.error = event.cause, event.error or extra.error
+    mutant_reached()
""",
        "A cancelled job does not say that somebody wanted that.",
    ),
    _applied(
        "requeue-applied-with-the-attempts-of-before",
        """
-    row.attempt, row.ready_ms = 0, state.time_ms
+    mutant_reached()
+    row.ready_ms = state.time_ms
""",
        "A job that is given another chance has only one attempt.",
    ),
    _applied(
        "discard-applied-as-a-completion",
        """
     state.leave(row)
     outcome = row.state
+    if outcome == _FORGOTTEN:
+        mutant_reached()
+        outcome = JobState.COMPLETED
""",
        "A discarded job is said to be completed.",
    ),
    _applied(
        "queue-applied-without-its-pause",
        """
-    row.paused, row.weight, row.bytes_max = event.paused, event.weight, event.bytes_max
+    mutant_reached()
+    row.weight, row.bytes_max = event.weight, event.bytes_max
""",
        "A queue that was paused goes on.",
    ),
    _applied(
        "queue-applied-without-its-weight",
        """
-    row.paused, row.weight, row.bytes_max = event.paused, event.weight, event.bytes_max
+    mutant_reached()
+    row.paused, row.bytes_max = event.paused, event.bytes_max
""",
        "A queue gets the share of any other.",
    ),
    _applied(
        "boot-applied-without-its-epoch",
        """
-    state.epoch = event.epoch
+    mutant_reached()
+    state.epoch = max(1, state.epoch)
""",
        "Two leaders have one epoch.",
    ),
    _applied(
        "bounds-applied-in-half",
        """
-    state.tombstones_age_ms = event.tombstones_age_ms
+    mutant_reached()
""",
        "Tombstones are kept for longer than was asked for.",
    ),
    Mutant(
        name="queue-forgotten-with-what-it-completed",
        module="beaver_model.state",
        diff="""
         queue = self.queues.pop(name)
-        self.completed_elsewhere += queue.row.completed
+        mutant_reached()
""",
        tests=(_SEEDS,),
        why="The number of completed jobs shrinks when an idle queue is forgotten.",
    ),
    Mutant(
        name="run-of-enqueues-applied-without-being-counted",
        module="beaver_model.bulk",
        diff="""
-        queue.row.enqueued += len(lane)
+        mutant_reached()
+        queue.row.enqueued += 1
""",
        tests=(_SEEDS,),
        why="A queue counts a commit of many jobs as one.",
    ),
    Mutant(
        name="run-of-dispatches-applied-with-one-token",
        module="beaver_model.bulk",
        diff="""
-        row.attempt += 1
+        mutant_reached()
+        row.attempt += token == first
         row.token = token
""",
        tests=(_SEEDS,),
        why="Of several jobs that go to a worker at once only the first is charged.",
    ),
    Mutant(
        name="run-of-acks-applied-with-another-outcome",
        module="beaver_model.bulk",
        diff="""
-        tombstones.append(pack_tombstone(row.seq, _ACKED, row.content[:DIGEST_BYTES]))
+        mutant_reached()
+        tombstones.append(pack_tombstone(row.seq, _FORGOTTEN, row.content[:DIGEST_BYTES]))
""",
        tests=(_SEEDS,),
        why="Jobs that completed together are said to be discarded.",
    ),
)
