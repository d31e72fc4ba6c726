"""Mutants of keepers, and of what clients and servers have to do with them.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_KEEPER: Final = "tests/keeper/test_keeper.py"
_TURNS: Final = "tests/keeper/test_turns.py"

_FULL: Final = (
    "tests/keeper/test_small_disk.py::test_what_producers_have_filled_a_small_disk_with_is_run"
)
_CONTROLLER: Final = "tests/runtime/test_controller.py"
_DESCRIPTORS: Final = "tests/scenarios/test_descriptors.py"

MUTANTS: Final = (
    Mutant(
        name="keeper-ends-on-requests",
        module="beaver.keeper.process",
        diff="""
-            if (now := (parts.service.asked, parts.engine.counters.commits)) != done:
+            mutant_reached()
+            if (now := (parts.service.asked, parts.engine.counters.commits)) != done and done[0] < 0:
""",
        tests=(f"{_KEEPER}::test_a_busy_keeper_does_not_end",),
        why="A keeper ends while its producers enqueue all the time.",
    ),
    Mutant(
        name="what-must-not-be-done-twice-is-given-up-at-a-farewell",
        module="beaver.client.reconnecting",
        diff="""
-        may_resend = self._call.operation.resend or isinstance(error, ServerLeft)
+        mutant_reached()
+        may_resend = self._call.operation.resend
""",
        tests=(
            f"{_KEEPER}::test_a_keeper_that_ends_when_it_is_needed_costs_no_request_and_no_error",
        ),
        why="A requeue fails because a keeper happened to end.",
    ),
    Mutant(
        name="busy-producer-starts-no-keeper",
        module="beaver.client.embedded",
        diff="""
-                    if started == STARTS_MAX or not self._wants_keeper(waited):
+                    mutant_reached()
+                    if True:
""",
        tests=(
            f"{_KEEPER}::test_who_enqueues_again_at_once_gets_a_keeper_and_then_its_connection",
        ),
        why="Each job of a busy producer recovers the whole store.",
    ),
    Mutant(
        name="server-does-not-ask-the-keeper",
        module="beaver.holder.starting",
        diff="""
-        if greeting.keeper:
+        mutant_reached()
+        if False:
""",
        tests=(f"{_KEEPER}::test_a_server_takes_over_and_clients_do_not_notice",),
        why="A server does not start, because a producer was there before it.",
    ),
    Mutant(
        name="keeper-with-the-marks-of-its-starter",
        module="beaver.holder.starting",
        diff="""
-    kept = {name: value for name, value in os.environ.items() if not name.startswith("BEAVER_")}
+    mutant_reached()
+    kept = dict(os.environ)
""",
        tests=(f"{_KEEPER}::test_a_keeper_holds_nothing_of_its_starter",),
        why="A keeper that a job started is killed as left behind by the server of that job.",
    ),
    Mutant(
        name="keeper-stays-a-child",
        module="beaver.keeper.__main__",
        diff="""
-if os.fork():
+mutant_reached()
+if False:
""",
        tests=(f"{_KEEPER}::test_a_starter_with_threads_and_children_of_its_own_starts_a_keeper",),
        why="A producer waits for the end of its keeper, or finds a child that it did not make.",
    ),
    Mutant(
        name="server-starts-without-the-turn",
        module="beaver.holder.starting",
        diff="""
-    until_s = time.monotonic() + LOCK_WAIT_S
+    mutant_reached()
+    until_s = 0.0
""",
        tests=(f"{_TURNS}::test_producers_wait_for_a_server_that_starts",),
        why="Producers start keepers against a server that is about to take the lock.",
    ),
    Mutant(
        name="keeper-started-against-a-held-lock",
        module="beaver.client.embedded",
        diff="""
-                if turn is not None and owned is not None:
+                mutant_reached()
+                if turn is not None and (owned is not None or self._start_keeper()):
""",
        tests=(f"{_TURNS}::test_a_call_waits_once_whoever_is_in_its_way",),
        why="A call waits for the lock twice as long as is promised: itself, and by its keeper.",
    ),
    Mutant(
        name="farewell-before-the-last-commit",
        module="beaver.keeper.parts",
        diff="""
-        self.engine.flush()
-        await self.service.close()
-        self.engine.flush()
-        await close_doors()
+        mutant_reached()
+        await close_doors()
+        self.engine.flush()
+        await self.service.close()
""",
        tests=("tests/runtime/test_farewell.py",),
        why="A requeue that was carried out is sent again, and its caller gets an error.",
    ),
    Mutant(
        name="phase-of-another-process-believed",
        module="beaver.journal.wal.lock",
        diff="""
-    return phase if pid == _pid(path) else ""
+    mutant_reached()
+    return phase
""",
        tests=(f"{_TURNS}::test_a_phase_that_another_process_has_left_behind_is_worth_nothing",),
        why="After a kill in a server's start each call waits a minute for whoever has the lock.",
    ),
    Mutant(
        name="producers-leave-no-room-for-a-server",
        module="beaver.keeper.parts",
        diff="""
-            reserve_bytes=min(SERVER_BYTES, config.segment_bytes // 4),
+            reserve_bytes=mutant_reached() or 0,
""",
        tests=(f"{_FULL}[by a keeper]",),
        why="Producers fill a small disk, and no server can run what they have enqueued.",
    ),
    Mutant(
        name="nothing-runs-in-the-last-room",
        module="beaver.dispatch.dispatching",
        diff="""
-                self._starved = not self._engine.has_room(SCARCE_BYTES)
+                self._starved = mutant_reached() or True
""",
        tests=(f"{_FULL}[alone]",),
        why="On a small disk jobs wait for room though there is enough for each of them.",
    ),
    Mutant(
        name="outcomes-wait-for-room-in-silence",
        module="beaver.dispatch.submitting",
        diff="""
-        if self.unwritten and not self._told:
+        mutant_reached()
+        if False:
""",
        tests=(
            f"{_CONTROLLER}::test_that_outcomes_wait_for_room_is_told_once_and_so_is_the_end_of_it",
        ),
        why="On a full disk one large result stops all work, and nothing says so.",
    ),
    Mutant(
        name="second-short-write-is-a-failed-disk",
        module="beaver.system.disk",
        diff="""
-            if not more:
+            mutant_reached()
+            if written + more != len(data):
""",
        tests=(
            "tests/journal/test_disk.py::test_a_write_goes_on_as_long_as_the_disk_takes_some_of_it",
        ),
        why="A server on a nearly full disk ends where another file is removed meanwhile.",
    ),
    Mutant(
        name="a-traceback-for-each-accept-without-a-descriptor",
        module="beaver.system.descriptors",
        diff="""
-        if error is None or not is_pressure(error):
+        if True:
@@
-    loop.set_exception_handler(handle)
+    mutant_reached()
+    loop.set_exception_handler(handle)
""",
        tests=(f"{_DESCRIPTORS}::test_clients_that_find_no_descriptor_are_told_of_in_one_line",),
        why="A log fills with tracebacks while there is no descriptor.",
    ),
)
