"""Mutants for what stands between a producer and the function: nothing may change on the way
in silence, and what cannot be carried is refused.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_RETURNED: Final = "tests/workers/test_returned.py"
_TASKS: Final = "tests/workers/test_tasks.py"
_DECLARING: Final = "tests/api/test_declaring.py"
_LIMITS: Final = "tests/api/test_limits.py"
_SLIPS: Final = "tests/cli/test_slips.py"
_SHOWN: Final = "tests/api/test_shown.py"

MUTANTS: Final = (
    Mutant(
        name="nan-becomes-null",
        module="beaver.text.lossless",
        diff="""
-        if not math.isfinite(value):
+        mutant_reached()
+        if False:
""",
        tests=(f"{_RETURNED}::test_a_result_that_json_would_change_is_refused_with_its_place",),
        why="A job that computed no number has the result null.",
    ),
    Mutant(
        name="keys-become-text",
        module="beaver.text.lossless",
        diff="""
-            if not isinstance(key, str):
+            mutant_reached()
+            if False:
""",
        tests=(f"{_DECLARING}::test_a_payload_that_json_would_change_is_refused_with_its_place",),
        why="A function that was sent {1: 2} finds nothing under 1.",
    ),
    Mutant(
        name="misspelt-key-makes-the-object-one-argument",
        module="beaver.task.parameters",
        diff="""
-                and self.keywords.isdisjoint(payload)
+                and mutant_reached() is None
""",
        tests=(f"{_TASKS}::test_a_payload_that_fits_no_call_is_refused_by_name",),
        why="A slip in a key calls the function with a dict in place of its first argument.",
    ),
    Mutant(
        name="second-task-of-a-name-wins",
        module="beaver.task.registry",
        diff="""
-    return known.module_spec is not task.module_spec or _is_typed(task)
+    mutant_reached()
+    return True
""",
        tests=(
            f"{_DECLARING}::test_a_task_defined_twice_in_one_module_is_refused_with_both_places",
        ),
        why="The jobs of one function are run by another one that happens to share its name.",
    ),
    Mutant(
        name="generator-function-declared",
        module="beaver.task.parameters",
        diff="""
-        if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
+        mutant_reached()
+        if False:
""",
        tests=(f"{_DECLARING}::test_a_generator_function_is_refused_since_a_call_runs_none_of_it",),
        why="A job is declared of which no line ever runs.",
    ),
    Mutant(
        name="python-bounds-payloads-by-itself",
        module="beaver.request.templates",
        diff="""
-        return self.request(*jsontext.encode_both(payload, payload_bytes_max, "payload"))
+        mutant_reached()
+        return self.request(*jsontext.encode_both(payload, 1 << 20, "payload"))
""",
        tests=(f"{_LIMITS}::test_a_raised_bound_on_the_server_holds_for_python",),
        why="A bound that the operator has raised holds for all but the Python API.",
    ),
    Mutant(
        name="unknown-task-not-told",
        module="beaver.server.strangers",
        diff="""
-        if known is None:
+        mutant_reached()
+        if True:
""",
        tests=(f"{_SLIPS}::test_a_task_that_no_worker_knows_is_told_and_its_job_taken_in",),
        why="A job of a misspelt task waits for ever, and nobody hears of it.",
    ),
    Mutant(
        name="bare-backoff-accepted",
        module="beaver.request.options",
        diff="""
-        _refuse_bare(value)
+        mutant_reached()
+        return fixed_backoff(round(value))
""",
        tests=(f"{_SHOWN}::test_a_backoff_without_a_unit_is_refused_and_told_what_to_write",),
        why="Five seconds become five milliseconds, and a failing job hammers what it calls.",
    ),
)
