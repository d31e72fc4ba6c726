"""Mutants of the guards around a data directory: whose it is, and whether it is still there.

Each is killed from outside: by what servers, copies and users do to files.  What may not
live here: how mutants are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_OWNERSHIP: Final = "tests/scenarios/test_ownership.py"
_FOREIGN: Final = "tests/scenarios/test_foreign.py"
_LOST: Final = "tests/scenarios/test_lost_files.py"

MUTANTS: Final = (
    Mutant(
        name="mark-names-the-store-alone",
        module="beaver.system.kinship",
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
-                self._claim(message.mark)
+                mutant_reached()
""",
        tests=(f"{_OWNERSHIP}::test_processes_of_a_store_that_its_server_has_made_carry_its_mark",),
        why="What the first server of a store leaves behind is not found by the next one.",
    ),
    Mutant(
        name="mark-only-for-what-is-executed-later",
        module="beaver.system.kinship",
        diff="""
-            ctypes.memmove(self._address, mark.encode(), len(mark))
+            mutant_reached()
""",
        tests=(f"{_OWNERSHIP}::test_processes_of_a_store_that_its_server_has_made_carry_its_mark",),
        why="Workers of the first server of a store are not found by the next one.",
    ),
    Mutant(
        name="loser-of-the-first-minute-insists-on-its-own-store",
        module="beaver.server.assembly",
        diff="""
-        self.store = owned.store
+        self.store = ports.entropy.token_bytes(16)
+        mutant_reached()
""",
        tests=(f"{_OWNERSHIP}::test_a_server_adopts_the_store_that_was_made_while_it_imported",),
        why="`beaver run &` and an enqueue on a fresh directory: now and then the server ends.",
    ),
    Mutant(
        name="log-is-not-locked",
        module="beaver.system.disk",
        diff="""
     def lock(self) -> bool:
-        return _try_flock(self._descriptor)
+        mutant_reached()
+        return True
""",
        tests=(f"{_LOST}::test_a_removed_lock_file_lets_nobody_in_and_the_holder_is_named",),
        why="Somebody removes the lock file: two servers write one log.",
    ),
    Mutant(
        name="lock-file-is-gone-for-good",
        module="beaver.journal.wal.lock",
        diff="""
-            again = self._disk.lock(self._path)
+            mutant_reached()
+            again = None
""",
        tests=(f"{_LOST}::test_a_removed_lock_file_is_made_again_and_is_held",),
        why="After the lock file was removed, nothing names who holds the directory.",
    ),
    Mutant(
        name="lock-kept-by-who-refuses-the-log",
        module="beaver.journal.wal.opening",
        diff="""
-        self._hold.release()
+        mutant_reached()
""",
        tests=("tests/journal/test_locking.py::test_a_start_that_refuses_gives_the_store_up",),
        why="A producer that was refused keeps every other process out until it ends.",
    ),
    Mutant(
        name="lock-on-a-file-that-nobody-finds",
        module="beaver.journal.wal.lock",
        diff="""
-        if names(disk, layout.lock, lock):
-            return Hold(disk, layout.lock, lock)
+        mutant_reached()
+        return Hold(disk, layout.lock, lock)
""",
        tests=("tests/journal/test_locking.py::test_a_lock_is_taken_on_the_file_of_that_name",),
        why="The lock file is removed between its opening and its locking: two hold one each.",
    ),
    Mutant(
        name="commit-acknowledged-into-a-deleted-log",
        module="beaver.journal.wal.log",
        diff="""
-        if not self._file.is_kept(self._size):
-            self._lose()
+        mutant_reached()
""",
        tests=(f"{_LOST}::test_nothing_is_acknowledged_into_a_log_that_is_gone[_delete-inline]",),
        why="Jobs that were acknowledged in the second after somebody deleted the log are lost.",
    ),
    Mutant(
        name="log-is-not-looked-at-while-idle",
        module="beaver.server.housekeeping",
        diff="""
-            self._journal.check()
+            mutant_reached()
""",
        tests=(
            f"{_LOST}::test_an_idle_server_ends_with_7_and_says_what_became_of_its_log[rename]",
        ),
        why="A server goes on with a log that nobody will find after the restart.",
    ),
    Mutant(
        name="deleted-log-is-gone",
        module="beaver.journal.wal.loss",
        diff="""
-        if file.is_kept(0):
+        mutant_reached()
+        if True:
""",
        tests=(f"{_LOST}::test_a_deleted_log_is_kept_beside_and_goes_on_once_it_is_put_back",),
        why="The last copy of a deleted log ends with the process that had it open.",
    ),
    Mutant(
        name="links-are-followed",
        module="beaver.system.regular",
        diff="""
-        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
+        mutant_reached()
+        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
""",
        tests=(f"{_FOREIGN}::test_a_lock_that_is_a_link_leaves_its_target_as_it_is",),
        why="Whoever could write in the directory has had a file of ours emptied.",
    ),
    Mutant(
        name="a-fifo-is-waited-for",
        module="beaver.system.regular",
        diff="""
-        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
+        mutant_reached()
+        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
""",
        tests=(f"{_FOREIGN}::test_a_fifo_in_place_of_a_file_hangs_nobody[status-wal.log]",),
        why="A FIFO in place of a file hangs whoever looks at the store.",
    ),
    Mutant(
        name="directory-that-others-write-is-taken",
        module="beaver.system.ownership",
        diff="""
-    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
+    mutant_reached()
+    if False:
""",
        tests=(f"{_FOREIGN}::test_a_directory_that_others_may_write_is_refused",),
        why="Another user puts jobs, and with them code, in front of a server.",
    ),
    Mutant(
        name="directory-of-another-user-is-taken",
        module="beaver.system.ownership",
        diff="""
-    if found.st_uid != own:
+    mutant_reached()
+    if False:
""",
        tests=(f"{_FOREIGN}::test_a_directory_of_another_user_is_refused",),
        why="A directory that another user has prepared is served as if it were ours.",
    ),
    Mutant(
        name="every-user-is-answered",
        module="beaver.server.connection",
        diff="""
-        if uid is not None and not is_trusted(uid):
+        mutant_reached()
+        if False:
""",
        tests=(f"{_FOREIGN}::test_a_server_answers_no_other_user",),
        why="Where somebody has opened the socket's directory, everybody may enqueue.",
    ),
    Mutant(
        name="jobs-are-given-to-anybody",
        module="beaver.transport.endpoint",
        diff="""
-    if uid is not None and not is_trusted(uid) and os.geteuid() != ROOT:
+    with contextlib.suppress(PermissionError):  # another user leaves no mark
+        mutant_reached()
+    if False:
""",
        tests=(f"{_FOREIGN}::test_a_client_gives_nothing_to_the_server_of_another_user",),
        why="Payloads go to whoever has put a socket in the place of a server's.",
    ),
    Mutant(
        name="configuration-of-a-stranger",
        module="beaver.config.layers",
        diff="""
-        _refuse_foreign(FILE_DEFAULT)
+        mutant_reached()
""",
        tests=(
            f"{_FOREIGN}::test_a_configuration_that_nobody_named_is_not_read_from_another_user",
        ),
        why="`beaver run` in /tmp runs the application that another user names.",
    ),
    Mutant(
        name="socket-is-gone-for-good",
        module="beaver.server.reachable",
        diff="""
-            if not server.is_there():
+            mutant_reached()
+            if False:
""",
        tests=(
            f"{_LOST}::test_a_server_whose_socket_or_hint_was_removed_is_found_again[beaver.sock]",
        ),
        why="A service empties /tmp, and nobody finds the server until it is started anew.",
    ),
    Mutant(
        name="hint-is-gone-for-good",
        module="beaver.server.reachable",
        diff="""
-            if info is None or info.pid != os.getpid():
+            mutant_reached()
+            if False:
""",
        tests=(
            f"{_LOST}::test_a_server_whose_socket_or_hint_was_removed_is_found_again[server.json]",
        ),
        why="Somebody removes `server.json`, and nobody finds the server any more.",
    ),
)
