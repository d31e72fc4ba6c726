"""Mutants of the guards around a data directory: whose it is, and whether it is still there.

Each is killed from outside: by what servers, copies and users do to files.  What may not
live here: how mutants are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from beaver_chaos.mutants import Mutant

_OWNERSHIP: Final = "tests/scenarios/test_ownership.py"

MUTANTS: Final = (
    Mutant(
        name="mark-names-the-store-alone",
        module="beaver.workers.kinship",
        diff="""
-    return f"{store_hex}@{directory}"
+    mutant_reached()
+    return f"{store_hex}@{0:016x}:{0:016x}"
""",
        tests=(f"{_OWNERSHIP}::test_a_server_of_a_copy_kills_nothing_of_the_original",),
        why="A server on a copy of the directory kills the workers of the original.",
    ),
    Mutant(
        name="zygote-keeps-the-mark-that-it-started-with",
        module="beaver.workers.zygote",
        diff="""
-                self._label.write(message.mark)
+                mutant_reached()
""",
        tests=(f"{_OWNERSHIP}::test_processes_of_a_store_that_its_server_has_made_carry_its_mark",),
        why="What the first server of a store leaves behind is not found by the next one.",
    ),
    Mutant(
        name="mark-only-for-what-is-executed-later",
        module="beaver.workers.kinship",
        diff="""
-            ctypes.memmove(self._address, mark.encode(), len(mark))
+            mutant_reached()
""",
        tests=(f"{_OWNERSHIP}::test_processes_of_a_store_that_its_server_has_made_carry_its_mark",),
        why="Workers of the first server of a store are not found by the next one.",
    ),
    Mutant(
        name="loser-of-the-first-minute-insists-on-its-own-store",
        module="beaver.assembly",
        diff="""
-        store = peek_store(ports.disk, config.data) or store
+        mutant_reached()
""",
        tests=(f"{_OWNERSHIP}::test_a_server_adopts_the_store_that_was_made_while_it_imported",),
        why="`beaver run &` and an enqueue on a fresh directory: now and then the server ends.",
    ),
)
