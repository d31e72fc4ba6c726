"""Mutants of the log and its surroundings: journal, recovery, snapshots, helper, disk.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_FORMAT: Final = "tests/journal/test_format.py"
_SCAN: Final = "tests/journal/test_scan.py"
_WAL: Final = "tests/journal/test_wal.py"
_DISK: Final = "tests/journal/test_disk.py"
_RECOVERY: Final = "tests/journal/test_recovery.py"
_CRASHES: Final = "tests/journal/test_crashes.py"
_WORK: Final = "tests/snapshot/test_work.py"
_STORAGE: Final = "tests/stateful/test_storage.py"
_CONFORMANCE: Final = "tests/journal/test_conformance.py"
_REBUILD: Final = "tests/store/test_rebuild.py"

MUTANTS: Final = (
    Mutant(
        name="crc-not-chained",
        module="beaver.journal.wal.format",
        diff="""
-    frame_crc = crc32c(covered, previous_crc)
+    mutant_reached()
+    frame_crc = crc32c(covered)
@@
-    return crc32c(buffer[position + _COVERED_FROM : position + size], previous_crc)
+    return crc32c(buffer[position + _COVERED_FROM : position + size])
""",
        tests=(f"{_FORMAT}::test_the_chain_does_not_forget_what_came_before",),
        why="After a crash in a crash an old frame comes back and is believed.",
    ),
    Mutant(
        name="crc-run-over-the-crc-before",
        module="beaver.journal.wal.format",
        diff="""
-    frame_crc = crc32c(covered, previous_crc)
+    mutant_reached()
+    frame_crc = crc32c(_U32.pack(previous_crc) + covered, previous_crc)
@@
-    return crc32c(buffer[position + _COVERED_FROM : position + size], previous_crc)
+    before = _U32.pack(previous_crc)
+    return crc32c(before + buffer[position + _COVERED_FROM : position + size], previous_crc)
""",
        tests=(f"{_FORMAT}::test_the_chain_does_not_forget_what_came_before",),
        why="The check value of a frame is nearly the same whatever came before it.",
    ),
    Mutant(
        name="previous-crc-not-compared",
        module="beaver.journal.wal.scan",
        diff="""
-                or previous_crc != crc
+                or mutant_reached()
@@
-            if frame_crc_of(buffer, position, size, crc) != frame_crc:
+            if frame_crc_of(buffer, position, size, previous_crc) != frame_crc:
""",
        tests=(f"{_SCAN}::test_a_valid_frame_that_does_not_follow_is_corrupt",),
        why="A frame of another branch of the log is read as the next one.",
    ),
    Mutant(
        name="corruption-called-a-torn-tail",
        module="beaver.journal.wal.scan",
        diff="""
         later, last_byte = self._look_behind()
+        mutant_reached()
+        later = None
""",
        tests=(
            f"{_RECOVERY}::test_flipped_bit_in_a_frame_before_the_last_is_refused_with_offset_and_seq",
        ),
        why="Acknowledged jobs behind a rotten frame are cut off in silence.",
    ),
    Mutant(
        name="frame-behind-a-bad-one-not-found",
        module="beaver.journal.wal.scan",
        diff="""
-            chunk = self._file.pread(READ_BYTES + FRAME_HEADER_BYTES, at)
+            mutant_reached()
+            chunk = self._file.pread(READ_BYTES, at)
""",
        tests=(f"{_SCAN}::test_a_frame_is_found_behind_any_distance_of_damage",),
        why="Where the damage is longer than one read, acknowledged jobs behind it are cut off.",
    ),
    Mutant(
        name="growing-log-called-corrupt",
        module="beaver.journal.wal.scan",
        diff="""
-            if self._why_bad() is None:
-                return None
+            mutant_reached()
""",
        tests=(f"{_SCAN}::test_a_reader_beside_a_writer_never_calls_a_growing_log_corrupt",),
        why="`beaver status` beside a busy server reports damage that is not there.",
    ),
    Mutant(
        name="torn-tail-not-zeroed",
        module="beaver.journal.wal.repair",
        diff="""
-            write_zeros(file, scan.end.offset, file.size())
+            mutant_reached()
""",
        tests=(f"{_RECOVERY}::test_torn_tail_is_kept_and_zeroed_and_synced",),
        why="Blocks of the old tail mix with those of a new frame at the next crash.",
    ),
    Mutant(
        name="cut-of-a-torn-tail-not-synced",
        module="beaver.journal.wal.repair",
        diff="""
-        file.pwrite(last, start)
-        file.sync()
+        file.pwrite_durable(last, start)
+        mutant_reached()
""",
        tests=(
            f"{_RECOVERY}::test_torn_tail_is_kept_and_zeroed_and_synced",
            f"{_CRASHES}::test_crash_in_a_crash_brings_no_stale_frame_back",
        ),
        why="A stale frame comes back after a second crash.",
    ),
    Mutant(
        name="last-frame-not-rewritten",
        module="beaver.journal.wal.repair",
        diff="""
-        file.pwrite(last, start)
+        mutant_reached()
""",
        tests=(f"{_RECOVERY}::test_last_frame_that_lives_in_the_page_cache_alone_is_made_durable",),
        why="A commit that only the page cache has is acknowledged, and lost with the power.",
    ),
    Mutant(
        name="last-frame-read-again-before-it-is-rewritten",
        module="beaver.journal.wal.scan",
        diff="""
             return 0, encode_file_header(self.header)
+        mutant_reached()
+        if last:
+            return last.offset, self._file.pread(self.offset - last.offset, last.offset)
""",
        tests=(
            f"{_RECOVERY}::test_page_that_is_dropped_between_reading_and_rewriting_is_rewritten_as_read",
        ),
        why="Recovery writes back what the disk had instead of what it checked.",
    ),
    Mutant(
        name="failed-write-ignored",
        module="beaver.journal.wal.log",
        diff="""
-            self._fail(f"writing {len(frame)} bytes at offset {offset}", error)
+            mutant_reached()
+            del error
""",
        tests=(f"{_WAL}::test_every_kind_of_failed_write_makes_the_log_useless",),
        why="A job is acknowledged that is not in the log.",
    ),
    Mutant(
        name="failed-sync-tried-again",
        module="beaver.system.disk",
        diff="""
-                if error.errno not in _REFUSED:
-                    raise
+                mutant_reached()
+                del error
""",
        tests=(f"{_DISK}::test_failed_durable_write_is_not_tried_again",),
        why="After a failed sync the next one says OK, and the data is gone.",
    ),
    Mutant(
        name="short-write-accepted",
        module="beaver.system.disk",
        diff="""
-                if written != len(data):
-                    raise _short(written, len(data), offset)
+                mutant_reached()
""",
        tests=(f"{_DISK}::test_short_write_raises",),
        why="Half a frame is acknowledged on a disk that fills up.",
    ),
    Mutant(
        name="archive-names-not-synced",
        module="beaver.journal.wal.sealing",
        diff="""
-            disk.sync_dir(layout.archive)
+            mutant_reached()
""",
        tests=(f"{_CRASHES}::test_power_cut_at_every_operation_loses_nothing_acknowledged",),
        why="A power cut right after sealing forgets a whole segment.",
    ),
    Mutant(
        name="frame-written-before-the-rename-is-synced",
        module="beaver.journal.wal.sealing",
        diff="""
-            doing, path = "syncing the names", layout.path
-            disk.sync_dir(layout.path)
+            mutant_reached()
""",
        tests=(f"{_CRASHES}::test_power_cut_at_every_operation_loses_nothing_acknowledged",),
        why="Acknowledged jobs stand in a file whose name a power cut takes back.",
    ),
    Mutant(
        name="extension-not-synced",
        module="beaver.journal.wal.zeros",
        diff="""
-        file.sync()
+        mutant_reached()
""",
        tests=(f"{_WAL}::test_failed_extension_or_its_sync_makes_the_log_useless",),
        why="Frames go where the disk has promised no room, and a commit fails where none may.",
    ),
    Mutant(
        name="last-frame-never-marked",
        module="beaver.journal.wal.log",
        diff="""
-            self._write(b"", 0, MARK)
+            mutant_reached()
""",
        tests=(f"{_WAL}::test_mark_closes_the_last_frame_once",),
        why="Rot of an acknowledged last frame passes for a torn write, and is cut.",
    ),
    Mutant(
        name="room-for-closing-given-away",
        module="beaver.journal.wal.log",
        diff="""
-        return max(0, self._size - self._tail.offset - EMPTY_FRAME_BYTES)
+        mutant_reached()
+        return max(0, self._size - self._tail.offset)
""",
        tests=(f"{_WAL}::test_a_frame_of_exactly_the_room_fits_and_the_log_can_still_be_closed",),
        why="A full segment can be neither closed nor sealed.",
    ),
    Mutant(
        name="segment-without-events-sealed",
        module="beaver.journal.wal.log",
        diff="""
-        if not self._tail.has_events:
+        mutant_reached()
+        if False:
""",
        tests=(f"{_WAL}::test_segment_without_events_is_never_sealed",),
        why="Two segments bear one name, and the second cannot be archived.",
    ),
    Mutant(
        name="missing-segment-not-noticed",
        module="beaver.journal.wal.reader",
        diff="""
-    if header.first_seq > before.next_seq:
+    mutant_reached()
+    if False:
@@
-    if header.first_seq < before.next_seq or header.previous_crc != before.crc:
+    if header.first_seq < before.next_seq:
""",
        tests=(f"{_RECOVERY}::test_gap_in_the_archive_is_refused",),
        why="A store starts without the jobs of a lost file.",
    ),
    Mutant(
        name="illegal-event-applied",
        module="beaver_model.applying",
        diff="""
         reason = _CHECKS[kind](state, event, frame)
-        if reason is not None:
-            raise IllegalEvent(state.last_seq + 1, event, reason)
+        mutant_reached()
""",
        tests=(f"{_RECOVERY}::test_illegal_event_is_refused_with_its_seq",),
        why="Recovery builds a state that no server ever had, and goes on from it.",
    ),
    Mutant(
        name="newer-format-called-corrupt",
        module="beaver.journal.codec",
        diff="""
-        if unknown is not None:
+        if unknown is not None and mutant_reached():
""",
        tests=(f"{_RECOVERY}::test_unknown_event_is_a_newer_format",),
        why="Whoever goes back to an older release is told that the data is damaged.",
    ),
    Mutant(
        name="snapshot-not-synced-before-its-rename",
        module="beaver.snapshot.files",
        diff="""
-            writer.end()
+            mutant_reached()
""",
        tests=(f"{_WORK}::test_a_crash_at_any_moment_leaves_a_snapshot_that_is_good_enough",),
        why="A power cut leaves an empty snapshot under the good name.",
    ),
    Mutant(
        name="snapshot-renamed-without-directory-sync",
        module="beaver.snapshot.files",
        diff="""
-    disk.sync_dir(str(PurePath(files.snapshot).parent))
+    mutant_reached()
""",
        tests=(f"{_WORK}::test_a_crash_at_any_moment_leaves_a_snapshot_that_is_good_enough",),
        why="The old snapshot comes back after the log below the new one was deleted.",
    ),
    Mutant(
        name="damaged-snapshot-replaces-a-good-one",
        module="beaver.helper.work",
        diff="""
-            newest_is_good = newest_is_good and path != layout.snapshot
+            mutant_reached()
""",
        tests=(f"{_WORK}::test_a_damaged_snapshot_is_replaced_from_the_older_one",),
        why="With the next bit of rot there is no snapshot left.",
    ),
    Mutant(
        name="pruned-below-the-newest-snapshot",
        module="beaver.helper.work",
        diff="""
-    return min(newest, older)
+    mutant_reached()
+    return newest
""",
        tests=(f"{_WORK}::test_only_what_the_older_snapshot_holds_is_deleted",),
        why="With the newest snapshot damaged the older one lacks its log.",
    ),
    Mutant(
        name="pruned-before-the-snapshot-is-durable",
        module="beaver.helper.work",
        diff="""
     except (FileNotFoundError, SnapshotDamaged):
-        return 0
+        mutant_reached()
+        return 1 << 60
""",
        tests=(f"{_WORK}::test_without_an_older_snapshot_nothing_is_deleted",),
        why="The log is deleted for a snapshot that is not there.",
    ),
    Mutant(
        name="pruned-before-it-was-projected",
        module="beaver.helper.work",
        diff="""
-    floor = min(applied_seq, _older_snapshot_seq(disk, layout))
+    mutant_reached()
+    floor = _older_snapshot_seq(disk, layout)
""",
        tests=(f"{_WORK}::test_what_the_history_has_not_projected_is_kept",),
        why="Results that nobody has read yet are gone.",
    ),
    Mutant(
        name="archive-pruned-in-any-order",
        module="beaver.helper.work",
        diff="""
-        disk.sync_dir(layout.archive)
+        mutant_reached()
""",
        tests=(f"{_WORK}::test_a_crash_while_pruning_leaves_no_hole_in_the_archive",),
        why="A crash leaves a hole in the archive, and the store does not start.",
    ),
    Mutant(
        name="prepared-segment-not-synced",
        module="beaver.helper.work",
        diff="""
-                file.sync()
+                mutant_reached()
""",
        tests=(f"{_WORK}::test_a_prepared_segment_is_durable_before_it_has_its_name",),
        why="A full disk is noticed in the middle of a commit.",
    ),
    Mutant(
        name="snapshot-of-another-store-believed",
        module="beaver.snapshot.files",
        diff="""
-            if loaded.store != store:
+            if loaded.store != store and mutant_reached():
""",
        tests=(f"{_RECOVERY}::test_snapshot_of_another_store_is_refused",),
        why="A file that was copied to the wrong place makes another queue's jobs run.",
    ),
    Mutant(
        name="log-shorter-than-its-snapshot-accepted",
        module="beaver.journal.wal.forensics",
        diff="""
-        if scan.last_seq < base_seq:
+        mutant_reached()
+        if False:
""",
        tests=(f"{_RECOVERY}::test_snapshot_newer_than_the_log_is_refused",),
        why="Seqs are given twice, and tokens no longer fence.",
    ),
    Mutant(
        name="replay-starts-one-late",
        module="beaver.journal.wal.forensics",
        diff="""
-            if not frame.count or frame.first_seq + frame.count - 1 <= base_seq:
+            mutant_reached()
+            if not frame.count or frame.first_seq + frame.count - 2 <= base_seq:
""",
        tests=(_STORAGE,),
        why="Each recovery from a snapshot forgets one commit.",
    ),
    Mutant(
        name="appended-behind-a-place-that-was-taken",
        module="beaver.journal.wal.log",
        diff="""
-        if after is not self.position and Cursor(*after).next_seq != self._tail.next_seq:
+        taken = after is not self.position and Cursor(*after).next_seq != self._tail.next_seq
+        if taken and mutant_reached():
""",
        tests=(
            f"{_CONFORMANCE}::test_an_append_behind_a_place_that_was_taken_is_deposed_and_leaves_no_trace",
        ),
        why="What was decided without knowing another writer's commit follows it in the log.",
    ),
    Mutant(
        name="late-commit-of-a-deposed-writer-counts",
        module="beaver.store.rebuild",
        diff="""
-            if commit.stamp is not None and not self._counts(commit):
+            if commit.stamp is not None and not self._counts(commit) and mutant_reached():
""",
        tests=(f"{_REBUILD}::test_a_late_commit_of_an_older_epoch_does_not_count",),
        why="A frozen server that wakes up changes the queue behind its successor's back.",
    ),
    Mutant(
        name="late-commit-behind-a-snapshot-counts",
        module="beaver.store.rebuild",
        diff="""
-        self.stamp: Stamp | None = base.stamp
+        mutant_reached()
+        self.stamp: Stamp | None = None
""",
        tests=(f"{_REBUILD}::test_whoever_starts_from_a_snapshot_drops_the_same",),
        why="Servers that start from a snapshot and from the whole log disagree.",
    ),
    Mutant(
        name="deposed-leader-answers",
        module="beaver.engine.group_commit",
        diff="""
         if isinstance(outcome, Deposed):
+            mutant_reached()
+            self._replies.tell_all(batch.waiting)
""",
        tests=("tests/stateful/test_leaders.py",),
        why="Producers are told that their jobs are safe, and another leader never had them.",
    ),
)
