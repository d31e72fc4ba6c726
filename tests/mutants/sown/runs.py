"""Mutants of runs and batches: what is done for many events at once, or chosen for many.

Most of these bugs change nothing that is logged: they leave an index, a count or a turn that
one event after the other would not have left.  So it takes the two ways side by side.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_RUNS: Final = "tests/model/test_bulk.py"
_SCHEDULING: Final = "tests/stateful/test_scheduling.py"
_CONTROLLER: Final = "tests/runtime/test_controller.py"
_BATCHES: Final = "tests/runtime/test_controller_batches.py"
_SIZES: Final = "tests/runtime/test_event_sizes.py"
_AT_ONCE: Final = f"{_RUNS}::test_a_run_applied_at_once_leaves_what_its_events_leave_one_by_one"
_EVICTED: Final = (
    f"{_RUNS}::test_a_run_of_completions_evicts_as_many_tombstones_as_they_do_one_by_one"
)
_DISPATCH: Final = (
    f"{_RUNS}::test_a_batch_is_dispatched_where_each_in_turn_would_be_and_refused_whole_otherwise"
)
_SUSPECT: Final = f"{_RUNS}::test_one_suspect_of_a_batch_may_go_and_a_second_one_may_not"
_COMPLETE: Final = (
    f"{_RUNS}::test_of_a_batch_that_completes_exactly_those_are_left_out_that_would_be_refused"
)
_SELECT: Final = f"{_RUNS}::test_a_run_for_a_slot_is_what_the_policy_gives_one_after_another"
_TURNS: Final = (
    "tests/model/test_stride.py::test_a_queue_has_its_turns_up_to_the_time_of_the_next_one"
)

MUTANTS: Final = (
    Mutant(
        name="run-of-scheduled-jobs-taken-for-ready",
        module="beaver_model.bulk",
        diff="""
-        if not (event.run_at_ms > time_ms or event.parent or event.tags)
+        if mutant_reached() or not (event.parent or event.tags)
""",
        tests=(_AT_ONCE,),
        why="Of jobs that come in together those for tomorrow run now.",
    ),
    Mutant(
        name="run-forgets-tags",
        module="beaver_model.bulk",
        diff="""
-        if not (event.run_at_ms > time_ms or event.parent or event.tags)
+        if mutant_reached() or not (event.run_at_ms > time_ms or event.parent)
""",
        tests=(_AT_ONCE,),
        why="Jobs that come in together have no tags until the next start reads the log.",
    ),
    Mutant(
        name="run-mixes-last-attempts-into-the-lane-of-others",
        module="beaver_model.bulk",
        diff="""
-        lane = (spec.queue, spec.task, spec.priority, spec.max_attempts <= 1)
+        mutant_reached()
+        lane = (spec.queue, spec.task, spec.priority, False)
""",
        tests=(_AT_ONCE,),
        why="A job that may run only once is prefetched, and a power cut kills it for good.",
    ),
    Mutant(
        name="run-for-two-workers-goes-to-the-first",
        module="beaver_model.bulk",
        diff="""
-    if len(set(map(_worker, events))) > 1 or not _take_heads(state, rows):
+    mutant_reached()
+    if not _take_heads(state, rows):
""",
        tests=(_AT_ONCE,),
        why="The state says that a job is where it is not, and it is never given back.",
    ),
    Mutant(
        name="run-pays-for-one-turn",
        module="beaver_model.bulk",
        diff="""
-    queue.stride_pass += len(rows) * (STRIDE // queue.row.weight)
+    mutant_reached()
+    queue.stride_pass += STRIDE // queue.row.weight
""",
        tests=(_AT_ONCE,),
        why="A queue whose jobs go out in runs gets the slots of all others.",
    ),
    Mutant(
        name="run-dates-tokens-from-the-seq-before",
        module="beaver_model.bulk",
        diff="""
-    first = state.last_seq + 1
+    mutant_reached()
+    first = state.last_seq
""",
        tests=(_AT_ONCE,),
        why="Workers hold tokens that the log does not know, and every outcome is stale.",
    ),
    Mutant(
        name="run-ends-the-time-of-nobody",
        module="beaver_model.applying",
        diff="""
-            if time_ms > state.time_ms:
-                state.time_ms = time_ms
-            if form(state, events, are_legal=True):
+            mutant_reached()
+            if form(state, events, are_legal=True):
""",
        tests=(_AT_ONCE,),
        why="Jobs that come in together are as old as the commit before, and go first.",
    ),
    Mutant(
        name="run-dispatched-out-of-its-order",
        module="beaver_model.index",
        diff="""
-        if self.late or list(islice(self.arrivals, count)) != rows:
+        mutant_reached()
+        if self.late or len(self.arrivals) < count:
""",
        tests=(_AT_ONCE,),
        why="Other jobs are in flight than those that left the lane, and these never run.",
    ),
    Mutant(
        name="run-leaves-the-late-ones-behind",
        module="beaver_model.index",
        diff="""
-        if self.late:
-            return [head]
+        mutant_reached()
""",
        tests=(_SELECT,),
        why="A job that was given back waits until all that came after it has gone out.",
    ),
    Mutant(
        name="run-of-a-lane-with-husks",
        module="beaver_model.index",
        diff="""
-        if states.count(_PENDING) == len(rows):
+        mutant_reached()
+        if states.count(_PENDING):
""",
        tests=(_SELECT,),
        why="A cancelled job is offered to a worker again and again, and refused.",
    ),
    Mutant(
        name="end-of-a-lane-forgotten",
        module="beaver_model.index",
        diff="""
         self.arrivals.extend(rows)
-        self.tail = (rows[-1].ready_ms, rows[-1].seq)
+        mutant_reached()
""",
        tests=(_AT_ONCE,),
        why="A job that was given back goes behind what came in after it.",
    ),
    Mutant(
        name="empty-lane-still-marked",
        module="beaver_model.index",
        diff="""
         self.live -= len(rows)
-        if not lane.live:
-            self.mask &= ~(1 << priority)
-        return True
+        mutant_reached()
+        return True
""",
        tests=(_AT_ONCE,),
        why="A queue of one priority gives its jobs away no more: an empty one hides it.",
    ),
    Mutant(
        name="queue-of-a-run-gets-no-turn",
        module="beaver_model.bulk",
        diff="""
-    if bucket.live == len(rows):
-        state.list_bucket(queue, bucket)
+    mutant_reached()
""",
        tests=(_AT_ONCE,),
        why="What comes in together is never handed out.",
    ),
    Mutant(
        name="run-of-completed-suspects-not-counted",
        module="beaver_model.bulk",
        diff="""
-    state.suspects_in_flight -= suspects
+    mutant_reached()
""",
        tests=(_AT_ONCE,),
        why="After a power cut one suspect completes, and no other one ever runs.",
    ),
    Mutant(
        name="run-of-completed-jobs-still-charged",
        module="beaver_model.bulk",
        diff="""
         queue.counts[_IN_FLIGHT] -= len(queued)
-        queue.bytes -= size
+        mutant_reached()
""",
        tests=(_AT_ONCE,),
        why="A queue that completes its jobs in runs is full for ever.",
    ),
    Mutant(
        name="few-tombstones-evicted-for-a-run",
        module="beaver_model.bulk",
        diff="""
-        state.evict(len(jobs) * TOMBSTONES_EVICTED_PER_EVENT)
+        mutant_reached()
+        state.evict(TOMBSTONES_EVICTED_PER_EVENT)
""",
        tests=(_EVICTED,),
        why="A leader that applies runs and one that replays forget different ids.",
    ),
    Mutant(
        name="batch-dispatches-jobs-before-their-time",
        module="beaver_model.deciding",
        diff="""
-    if row.ready_ms > now_ms:
+    mutant_reached()
+    if row.ready_ms > now_ms + 1_000_000:
""",
        tests=(_DISPATCH,),
        why="A job that is to be tried again in an hour is tried at once.",
    ),
    Mutant(
        name="two-suspects-in-one-batch",
        module="beaver_model.deciding",
        diff="""
-            suspects += 1
+            mutant_reached()
""",
        tests=(_SUSPECT,),
        why="Two jobs that may take the machine down run at once.",
    ),
    Mutant(
        name="batch-dispatches-a-job-twice",
        module="beaver_model.deciding",
        diff="""
-    if len(set(ids)) != len(ids) and not isinstance(decision, Rejection):
+    mutant_reached()
+    if False:
""",
        tests=(_DISPATCH,),
        why="One job is in flight with two tokens.",
    ),
    Mutant(
        name="batch-completes-a-job-twice",
        module="beaver_model.deciding",
        diff="""
-            answered.add(token)
+            mutant_reached()
""",
        tests=(_COMPLETE,),
        why="A worker that reports twice stops the server: the second ACK cannot be applied.",
    ),
    Mutant(
        name="batch-completes-whatever-holds-the-token",
        module="beaver_model.deciding",
        diff="""
-        row = _fenced(state, done.job, token)
+        mutant_reached()
+        row = state.in_flight.get(token)
""",
        tests=(_COMPLETE,),
        why="An outcome of one job ends another one.",
    ),
    Mutant(
        name="run-over-priorities",
        module="beaver_model.policy",
        diff="""
-    if count < 2 or len(live) > 1 or bucket.kind == _SUSPECT or mask & (mask - 1):
+    mutant_reached()
+    if count < 2 or len(live) > 1 or bucket.kind == _SUSPECT:
""",
        tests=(_SELECT,),
        why="Jobs of the lowest priority go out first, in runs.",
    ),
    Mutant(
        name="run-of-one-task-before-all-others",
        module="beaver_model.policy",
        diff="""
-    if count < 2 or len(live) > 1 or bucket.kind == _SUSPECT or mask & (mask - 1):
+    mutant_reached()
+    if count < 2 or bucket.kind == _SUSPECT or mask & (mask - 1):
""",
        tests=(_SELECT,),
        why="A worker is given jobs of a task that it does not know.",
    ),
    Mutant(
        name="run-as-long-as-the-queue",
        module="beaver_model.policy",
        diff="""
-    return lane.heads(min(count, order.in_a_row(queue))) if lane is not None else [first]
+    mutant_reached()
+    return lane.heads(count) if lane is not None else [first]
""",
        tests=(_SELECT,),
        why="The queue that is asked first fills every worker, whatever the weights.",
    ),
    Mutant(
        name="tie-of-turns-goes-to-the-wrong-queue",
        module="beaver_model.stride",
        diff="""
-        return max(1, turns + (1 if rest or queue.number < number else 0))
+        mutant_reached()
+        return max(1, turns + (1 if rest or queue.number > number else 0))
""",
        tests=(_TURNS,),
        why="Of two queues that are as far one gets a slot more than is its due, in every run.",
    ),
    Mutant(
        name="only-one-other-queue-looked-at",
        module="beaver_model.stride",
        diff="""
-        others = self._heap[1:3]
+        mutant_reached()
+        others = self._heap[1:2]
""",
        tests=(_TURNS,),
        why="A queue that has its turn is passed over by a run.",
    ),
    Mutant(
        name="last-successes-not-told",
        module="beaver.dispatch.outcome_handler",
        diff="""
-        if done:
-            yield CompleteBatch(done)
+        mutant_reached()
""",
        tests=(_SCHEDULING,),
        why="What a worker has completed is in flight for ever.",
    ),
    Mutant(
        name="children-of-a-success-dropped",
        module="beaver.dispatch.outcome_handler",
        diff="""
-            plain = outcome.kind == _OK and not outcome.children and not fault_of(outcome)
+            mutant_reached()
+            plain = outcome.kind == _OK
""",
        tests=(f"{_BATCHES}::test_a_success_with_children_among_others_enqueues_them",),
        why="A job that enqueues others completes, and these are lost.",
    ),
    Mutant(
        name="successes-without-room-dropped",
        module="beaver.dispatch.submitting",
        diff="""
-            self.unwritten += [Complete(d.job, d.token, d.result) for d in command.done]
+            mutant_reached()
""",
        tests=(f"{_CONTROLLER}::test_outcomes_wait_for_room_in_the_log_and_are_written_later",),
        why="What completes while the disk is full runs again after the next start.",
    ),
    Mutant(
        name="run-given-to-a-worker-is-not-held",
        module="beaver.dispatch.dispatching",
        diff="""
-            held[attempt.token] = Held(attempt)
+            mutant_reached()
""",
        tests=(_SCHEDULING,),
        why="Attempts of a worker that dies are never given back.",
    ),
    Mutant(
        name="prefetch-deeper-than-is-due",
        module="beaver.dispatch.dispatching",
        diff="""
-                del rows[depth - len(worker.held) :]
+                mutant_reached()
""",
        tests=(f"{_BATCHES}::test_a_worker_is_given_no_more_than_its_task_is_due",),
        why="Sixty-four jobs of a slow task wait at one worker, and the others are idle.",
    ),
    Mutant(
        name="successes-go-before-a-failure-that-came-first",
        module="beaver.dispatch.outcome_handler",
        diff="""
-            if done and not (plain and size < DONE_BYTES):
+            mutant_reached()
+            if done and plain and size >= DONE_BYTES:
""",
        tests=(f"{_BATCHES}::test_outcomes_are_logged_in_the_order_in_which_they_came",),
        why="The log tells outcomes in another order than that in which they came.",
    ),
    Mutant(
        name="results-of-any-size-in-one-command",
        module="beaver.dispatch.outcome_handler",
        diff="""
-                size += len(outcome.result)
+                mutant_reached()
""",
        tests=(f"{_BATCHES}::test_large_results_are_told_a_few_at_a_time",),
        why="A worker that ends jobs with large results asks for more than a commit holds.",
    ),
    Mutant(
        name="batch-announces-one-event",
        module="beaver.engine.event_sizes",
        diff="""
-    return len(command.done) if type(command) is CompleteBatch else 1
+    mutant_reached()
+    return 1
""",
        tests=(f"{_SIZES}::test_no_command_for_several_leads_to_more_than_is_reckoned_with",),
        why="A commit gets more events than its bound.",
    ),
    Mutant(
        name="results-of-a-batch-take-no-room",
        module="beaver.engine.event_sizes",
        diff="""
-    return (EVENT_BYTES + ID_BYTES_MAX) * len(command.done) + results
+    mutant_reached()
+    return (EVENT_BYTES + ID_BYTES_MAX) * len(command.done)
""",
        tests=(f"{_SIZES}::test_no_command_for_several_leads_to_more_than_is_reckoned_with",),
        why="A log that is nearly full turns out to be full in the middle of a commit.",
    ),
)
