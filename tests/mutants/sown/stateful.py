"""Mutants for the state machines over lifecycle, storage, scheduling and group commit.

Each of these bugs shows only after some sequence of commands, times and crashes, which the
machines in `tests/stateful` have to draw.  What they find when a function is replaced while
they run stands beside them, in `tests/stateful/test_sown.py`.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_LIFECYCLE: Final = "tests/stateful/test_lifecycle.py"
_STORAGE: Final = "tests/stateful/test_storage.py"
_SCHEDULING: Final = "tests/stateful/test_scheduling.py"
_COMMITS: Final = "tests/stateful/test_commits.py"

MUTANTS: Final = (
    Mutant(
        name="suspects-counted-for-ever",
        module="beaver_model.state",
        diff="""
             if row.extra is not None and row.extra.suspect:
-                self.suspects_in_flight -= 1
+                mutant_reached()
""",
        tests=(_LIFECYCLE,),
        why="After a power cut one suspect runs, and no other one ever again.",
    ),
    Mutant(
        name="frames-need-not-follow",
        module="beaver.journal.wal.scan",
        diff="""
-                or previous_crc != crc
@@
-            if frame_crc_of(buffer, position, size, crc) != frame_crc:
+            mutant_reached()
+            if frame_crc_of(buffer, position, size, previous_crc) != frame_crc:
""",
        tests=(_STORAGE,),
        why="After a second crash an older frame comes back in the place of a newer one.",
    ),
    Mutant(
        name="torn-tail-kept-in-the-log",
        module="beaver.journal.wal.repair",
        diff="""
-            write_zeros(file, scan.end.offset, file.size())
+            mutant_reached()
""",
        tests=(_STORAGE,),
        why="What is left of a torn write mixes with the next frame, and a start is refused.",
    ),
    Mutant(
        name="sealed-segment-named-in-the-cache-only",
        module="beaver.journal.wal.sealing",
        diff="""
             doing, path = "syncing the names", layout.archive
-            disk.sync_dir(layout.archive)
+            mutant_reached()
""",
        tests=(_STORAGE,),
        why="A power cut right after a segment is full takes all that it holds.",
    ),
    Mutant(
        name="lost-frame-taken-for-written",
        module="beaver.journal.wal.log",
        diff="""
         assert done is not None, "a frame was handed over"
-        if error is not None:
+        if error is not None and mutant_reached():
""",
        tests=(_COMMITS,),
        why="The writer process dies, and producers are told that its frame is safe.",
    ),
    Mutant(
        name="attempts-of-a-dead-worker-still-held",
        module="beaver.dispatch.supervision",
        diff="""
-        worker.held.clear()
+        mutant_reached()
""",
        tests=(_SCHEDULING,),
        why="The worker's replacement is taken for busy, and gets nothing to do.",
    ),
)
