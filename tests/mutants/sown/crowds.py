"""Mutants that show only where many come at once.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_SEEDS: Final = "tests/simulator/test_seeds.py::test_crowds_of_every_size_break_no_promise"
_COMMITS: Final = (
    "tests/stateful/test_commits.py::test_of_a_crowd_nobody_is_told_before_it_is_durable"
)
_SOCKET: Final = "tests/fuzz/test_socket.py::test_of_a_burst_nobody_is_told_before_it_is_durable"


def _told_early(count: int, tests: tuple[str, ...], layer: str) -> Mutant:
    """Answers of an intake are given before the sync where it has more than so many requests."""
    return Mutant(
        name=f"more-than-{count}-told-before-the-sync-in-{layer}",
        module="beaver.engine.engine",
        diff=f"""
-            waiting.append((asked.done, asked.answer(jobs, reply)))
+            if len(everyone) > {count}:
+                mutant_reached()
+                self._replies.tell(asked.done, asked.answer(jobs, reply))
+            else:
+                waiting.append((asked.done, asked.answer(jobs, reply)))
""",
        tests=tests,
        why=f"Where more than {count} producers come at once, a crash loses acknowledged jobs.",
    )


MUTANTS: Final = (
    *(_told_early(count, (_SEEDS,), "a-simulated-run") for count in (4, 8, 100)),
    *(_told_early(count, (_COMMITS,), "group-commit") for count in (4, 8, 100)),
    *(_told_early(count, (_SOCKET,), "a-burst-of-frames") for count in (4, 8, 100)),
    Mutant(
        name="large-commits-told-before-the-sync",
        module="beaver.engine.group_commit",
        diff="""
         self.under_way, journal = batch, self._journal
+        if len(batch.waiting) > 50:
+            mutant_reached()
+            self._replies.tell_all(batch.waiting)
+            batch.waiting = []
""",
        tests=(_SEEDS,),
        why="In a rush a crash loses jobs that were acknowledged.",
    ),
    Mutant(
        name="long-runs-applied-without-the-last",
        module="beaver_model.bulk",
        diff="""
-        queue.row.enqueued += len(lane)
+        if len(lane) > 100:
+            mutant_reached()
+        queue.row.enqueued += len(lane) - (len(lane) > 100)
""",
        tests=(_SEEDS,),
        why="What is counted of a queue is wrong after a rush.",
    ),
    Mutant(
        name="long-messages-lose-their-last-attempt",
        module="beaver.dispatch.dispatching",
        diff="""
         if not attempts:
             return
+        if len(attempts) > 15:
+            mutant_reached()
+            attempts.pop()
""",
        tests=(_SEEDS,),
        why="One of many jobs that are sent at once is never started.",
    ),
)
