"""Mutants of a server's life: its start, its reloads, who takes its place, and its end.

What may not live here: how mutants are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_CREWS: Final = "tests/runtime/test_crews.py"
_RELOAD: Final = "tests/scenarios/test_reload.py"
_TAKEOVER: Final = "tests/scenarios/test_takeover.py"
_SURROUNDINGS: Final = "tests/scenarios/test_surroundings.py"
_WAL: Final = "tests/journal/test_wal.py"
_SLOTS: Final = "tests/workers/test_slots.py"

MUTANTS: Final = (
    Mutant(
        name="new-crew-given-jobs-before-it-takes-over",
        module="beaver.dispatch.crews",
        diff="""
-            workers[number] = WorkerState(number, crew, serving=False)
+            mutant_reached()
+            workers[number] = WorkerState(number, crew)
""",
        tests=(f"{_CREWS}::test_a_new_crew_is_given_nothing_before_it_takes_over",),
        why="Jobs of a task that the new code no longer has go to its workers, and fail.",
    ),
    Mutant(
        name="handing-over-without-a-flush",
        module="beaver.dispatch.crews",
        diff="""
-        self._engine.flush()
-        former, self._slots.crew = self._slots.crew, crew
+        mutant_reached()
+        former, self._slots.crew = self._slots.crew, crew
""",
        tests=(
            f"{_CREWS}::test_what_is_on_its_way_to_the_disk_goes_out_before_the_rest_is_taken_back",
        ),
        why="An attempt starts at a worker that has given back an earlier one, and a crash "
        "charges that one too.",
    ),
    Mutant(
        name="prefetch-stays-with-a-former-worker",
        module="beaver.dispatch.crews",
        diff="""
-            self._submitter.recall(worker, Cause.DRAIN)
-            worker.crew.pool.retire(worker.number)
+            mutant_reached()
+            worker.crew.pool.retire(worker.number)
""",
        tests=(
            f"{_CREWS}::test_a_handing_over_gives_back_what_has_not_started_and_leaves_what_runs",
        ),
        why="Jobs wait behind a long one of the old code, while new workers are idle.",
    ),
    Mutant(
        name="reload-kills-what-runs",
        module="beaver.dispatch.crews",
        diff="""
-            worker.crew.pool.retire(worker.number)
+            mutant_reached()
+            worker.crew.pool.kill(worker.number)
""",
        tests=(
            f"{_RELOAD}::test_a_running_job_ends_in_the_old_code_and_the_next_ones_run_in_the_new",
        ),
        why="Each reload costs every running job an attempt.",
    ),
    Mutant(
        name="former-worker-replaced",
        module="beaver.dispatch.supervision",
        diff="""
-        if worker.leaving or worker.crew.arrival is not None:
+        mutant_reached()
+        if worker.crew.arrival is not None:
""",
        tests=(f"{_CREWS}::test_a_former_worker_is_not_replaced_and_the_last_one_is_told",),
        why="Workers of the old code never leave.",
    ),
    Mutant(
        name="former-worker-that-hangs-stays",
        module="beaver.dispatch.crews",
        diff="""
-            log.warning("worker %d does not end by itself and is killed", worker.number)
-            self._supervisor.kill(worker, KillCause.LEAVE, set())
+            mutant_reached()
""",
        tests=(
            f"{_CREWS}::test_a_former_worker_that_does_not_end_is_killed_once_it_has_nothing_to_do",
        ),
        why="A stopped worker of the old code holds its memory, and a place among the crews.",
    ),
    Mutant(
        name="former-worker-killed-while-it-works",
        module="beaver.dispatch.crews",
        diff="""
-        if worker.held:
-            self._loop.call_later(LEAVE_S, self._overdue_leave, worker)
-        else:
+        mutant_reached()
+        if True:
""",
        tests=(
            f"{_CREWS}::test_a_former_worker_that_does_not_end_is_killed_once_it_has_nothing_to_do",
        ),
        why="A job that runs longer than ten seconds loses its work at each reload.",
    ),
    Mutant(
        name="worker-that-does-not-come-up-waited-for",
        module="beaver.dispatch.supervision",
        diff="""
-            crew.arrival.fails(why)
+            mutant_reached()
""",
        tests=(f"{_CREWS}::test_a_worker_that_does_not_come_up_fails_the_crew_and_nobody_else",),
        why="A reload hangs where the new code cannot be started, and nobody hears why.",
    ),
    Mutant(
        name="crews-without-bound",
        module="beaver.dispatch.crews",
        diff="""
-        if len(former) >= CREWS_MAX:
+        mutant_reached()
+        if len(former) < 0:
""",
        tests=(f"{_CREWS}::test_crews_side_by_side_are_bounded",),
        why="Reloads beside long jobs fill the memory with workers.",
    ),
    Mutant(
        name="drain-waits-for-a-reload",
        module="beaver.dispatch.controller",
        diff="""
-                worker.crew.arrival.fails("the server is shutting down")
+                mutant_reached()
""",
        tests=(f"{_CREWS}::test_a_drain_ends_a_reload_that_waits_and_refuses_another",),
        why="A server that is told to stop starts new workers instead.",
    ),
    Mutant(
        name="known-tasks-of-the-old-code",
        module="beaver.server.assembly",
        diff="""
-        self.controller.know(_names_of(tasks))
-        self.controller.leases.adjust(config.lease_ms, config.heartbeat_ms)
-        self.engine.admission.state_bytes_max = config.state_bytes_bound
+        mutant_reached()
+        self.engine.admission.state_bytes_max = config.state_bytes_bound
""",
        tests=(f"{_RELOAD}::test_a_new_task_runs_after_a_reload_and_a_removed_one_waits",),
        why="A task that a reload brings is never run, and one that it takes away fails.",
    ),
    Mutant(
        name="slots-of-a-second-crew-not-counted",
        module="beaver.workers.slots",
        diff="""
-        os.pwrite(self.fd, struct.pack("=Q", worker), len(_MAGIC))
+        mutant_reached()
""",
        tests=(f"{_RELOAD}::test_a_kill_9_with_two_crews_charges_what_had_started_in_either",),
        why="After a crash jobs of new workers are run again for nothing, without end.",
    ),
    Mutant(
        name="limit-on-file-sizes-taken-for-a-failed-disk",
        module="beaver.errors",
        diff="""
-NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
+mutant_reached()
+NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
""",
        tests=(f"{_WAL}::test_a_limit_on_file_sizes_is_a_full_disk",),
        why="Under `ulimit -f` a server ends with 7 instead of refusing new jobs.",
    ),
    Mutant(
        name="room-beyond-the-limit-on-file-sizes",
        module="beaver.journal.wal.log",
        diff="""
-        self._size = min(file.size(), disk.file_bytes_max())
+        mutant_reached()
+        self._size = file.size()
""",
        tests=(
            _WAL + "::test_a_segment_that_was_prepared_under_a_higher_limit_has_the_room_of_"
            "the_lower_one",
        ),
        why="A restart under a lower limit ends with 7 in the middle of a commit.",
    ),
    Mutant(
        name="closed-descriptors-not-passed-on",
        module="beaver.system.standard",
        diff="""
-            os.set_inheritable(fd, True)
+            mutant_reached()
""",
        tests=(f"{_SURROUNDINGS}::test_a_job_has_standard_descriptors_where_the_server_has_none",),
        why="What a job prints goes into a socket of Beaver's, or of its own.",
    ),
    Mutant(
        name="standard-descriptors-left-closed",
        module="beaver.system.standard",
        diff="""
-    for fd in range(3):
+    mutant_reached()
+    for fd in ():
""",
        tests=(f"{_SURROUNDINGS}::test_a_server_runs_jobs_with_standard_descriptors_closed",),
        why="`beaver run <&-` aborts: the server's first socket is taken for standard input.",
    ),
    Mutant(
        name="hangup-ends-workers",
        module="beaver.system.kinship",
        diff="""
-    for number in (signal.SIGHUP, signal.SIGQUIT):
+    mutant_reached()
+    for number in ():
""",
        tests=(f"{_SURROUNDINGS}::test_a_signal_for_the_server_ends_no_process_beside_it",),
        why="A supervisor that sends SIGHUP to the whole service costs every job an attempt.",
    ),
    Mutant(
        name="request-to-leave-counts-as-a-signal",
        module="beaver.server.serve",
        diff="""
-            log.warning("another server takes over: running jobs get %d s", grace_s)
+            log.warning("another server takes over: running jobs get %d s", grace_s)
+            mutant_reached()
+            self._signals += 1
""",
        tests=(
            f"{_TAKEOVER}::test_a_first_sigterm_behind_the_request_to_leave_is_still_a_gentle_one",
        ),
        why="A supervisor that stops the old server during a takeover charges its jobs.",
    ),
    Mutant(
        name="application-served-elsewhere",
        module="beaver.server.storage",
        diff="""
-        return msgspec.structs.replace(config, data=str(Path(app_store)), origins=origins)
+        mutant_reached()
+        return msgspec.structs.replace(config, origins=origins)
""",
        tests=(f"{_TAKEOVER}::test_an_application_is_served_where_its_own_store_is",),
        why="What an application enqueues is never run by the server of that application.",
    ),
    Mutant(
        name="a-takeover-asks-before-it-looks-for-room",
        module="beaver.holder.takeover",
        diff="""
-    if owned is None:
-        endpoint.check_room(data)  # Before anybody leaves for a server that cannot start.
+    mutant_reached()
""",
        tests=(
            (
                "tests/keeper/test_small_disk.py::"
                "test_a_start_or_takeover_without_room_says_so_and_nobody_leaves_for_it"
            ),
        ),
        why="On a full disk a server leaves for one that ends at once, and nobody runs jobs.",
    ),
)
