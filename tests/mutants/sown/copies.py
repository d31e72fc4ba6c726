"""Mutants of copies: backups, restored stores, logs that are shipped.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_BACKUP: Final = "tests/backup/test_backup.py"
_RESTORE: Final = "tests/backup/test_restore.py"
_SHIPPER: Final = "tests/shipping/test_shipper.py"

MUTANTS: Final = (
    Mutant(
        name="backup-named-before-it-was-replayed",
        module="beaver.backup.writing",
        diff="""
-    if report.ok and not torn:
+    mutant_reached()
+    if True:
""",
        tests=(f"{_BACKUP}::test_a_damaged_store_gives_no_backup",),
        why="A backup of a damaged store gets its name, and its end.",
    ),
    Mutant(
        name="members-of-a-backup-not-compared",
        module="beaver.backup.stream",
        diff="""
-            if found != told:
+            mutant_reached()
+            if not told:
""",
        tests=(f"{_RESTORE}::test_a_forged_backup_is_refused_and_leaves_nothing",),
        why="The checksums of a backup are told and never compared.",
    ),
    Mutant(
        name="restored-under-the-id-of-the-original",
        module="beaver.backup.restoring",
        diff="""
-    store = secrets.token_bytes(STORE_ID_BYTES)
+    mutant_reached()
+    store = find_source(source, name).store
""",
        tests=(f"{_RESTORE}::test_a_copy_has_an_id_of_its_own_and_the_keys_of_its_origin",),
        why="A copy cannot be told from its original.",
    ),
    Mutant(
        name="commit-restored-by-half",
        module="beaver.backup.rewriting",
        diff="""
-            if frame.count and not until.holds(frame.first_seq + frame.count - 1, time_ms):
+            mutant_reached()
+            if frame.count and not until.holds(frame.first_seq, time_ms):
""",
        tests=(f"{_RESTORE}::test_a_commit_is_restored_whole_or_not_at_all",),
        why="A restored store holds events behind the point that was asked for.",
    ),
    Mutant(
        name="unproven-frame-shipped",
        module="beaver.shipping.shipper",
        diff="""
-    if sealed:
+    mutant_reached()
+    if True:
         proven = _behind(scan)
""",
        tests=(f"{_SHIPPER}::test_a_target_holds_all_but_the_frame_that_nothing_proves_yet",),
        why="A target holds a frame that a power cut may take back.",
    ),
    Mutant(
        name="frozen-shipper-writes-on",
        module="beaver.shipping.ownership",
        diff="""
-        if self._now_s() - self._since_s < self._lease_s / 3:
+        mutant_reached()
+        if True:
             return
""",
        tests=(f"{_SHIPPER}::test_a_shipper_that_froze_for_a_lease_ends_when_it_wakes_up",),
        why="A shipper that was taken over writes to the target of its successor.",
    ),
    Mutant(
        name="target-of-another-store-taken",
        module="beaver.shipping.ownership",
        diff="""
-            if owner.store != self._store:
+            mutant_reached()
+            if not owner.store:
""",
        tests=(f"{_SHIPPER}::test_another_store_is_refused",),
        why="Two stores are mixed in one target.",
    ),
    Mutant(
        name="torn-end-of-a-copy-taken-for-a-crash",
        module="beaver.backup.rewriting",
        diff="""
-    if scan is not None and scan.end is not None and scan.end.torn_bytes:
+    mutant_reached()
+    if scan is not None and scan.end is not None and scan.end.torn_bytes < 0:
""",
        tests=(f"{_SHIPPER}::test_every_object_that_goes_or_changes_is_noticed",),
        why="Rot in the last frame of a target is taken for a torn write, and dropped in silence.",
    ),
)
