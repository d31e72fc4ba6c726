"""Mutants of the client: what it sends, who waits for what, and what an interrupt leaves.

What may not live here: how they are tried (`mutants`).
"""

from __future__ import annotations

from typing import Final

from tests.mutants.workshop import Mutant

_CHANNEL: Final = "tests/api/test_channel.py"
_LOOKING: Final = "tests/api/test_looking.py"
_REQUESTS: Final = "tests/requests/test_requests.py"
_APP: Final = "tests/api/test_app.py"

_BY_URL: Final = "tests/http_client/test_transport.py"
_SILENT: Final = "tests/scenarios/test_silent_server.py"

MUTANTS: Final = (
    Mutant(
        name="fast-json-believed-without-reading-it",
        module="beaver.text.jsontext",
        diff="""
-        canonical_text = _sorted_encode(found) if found == value else None
+        mutant_reached()
+        canonical_text = _sorted_encode(found)
""",
        tests=(
            f"{_REQUESTS}::test_what_the_fast_encoder_would_turn_into_json_is_refused_wherever_it_stands",
        ),
        why="A worker gets null where the producer sent NaN, and a string where it sent a date.",
    ),
    Mutant(
        name="calls-told-apart-by-the-number-of-their-arguments-alone",
        module="beaver.task.registry",
        diff="""
-        shape = (len(args), *kwargs)
+        mutant_reached()
+        shape = (len(args) + len(kwargs),)
""",
        tests=(f"{_APP}::test_a_call_that_fits_does_not_let_one_of_another_shape_pass",),
        why="A call that no worker can make is enqueued because another one fitted.",
    ),
    Mutant(
        name="frames-left-behind-forgotten",
        module="beaver.client.channel",
        diff="""
-            while unsent and sending.acquire(blocking=False):
+            if unsent and sending.acquire(blocking=False):
                 try:
-                    self._send_all(held.socket, unsent)
+                    mutant_reached()
+                    self._send_rest(held.socket, memoryview(unsent.popleft()))
""",
        tests=(f"{_CHANNEL}::test_what_threads_leave_while_one_sends_goes_out_together",),
        why="A thread waits for ever for the answer to what another one should have sent.",
    ),
    Mutant(
        name="reading-not-passed-on-by-who-is-interrupted",
        module="beaver.client.channel",
        diff="""
             if self._reader is slot:
-                self._pass_on()
+                mutant_reached()
+                self._reader = None
""",
        tests=(
            f"{_CHANNEL}::test_an_interrupted_reader_passes_the_reading_on_and_the_connection_stays",
        ),
        why="Ctrl-C in one thread leaves all others waiting for answers that nobody reads.",
    ),
    Mutant(
        name="connection-closed-under-a-thread-that-reads",
        module="beaver.client.channel",
        diff="""
         self._lose()
-        self._held = None
+        mutant_reached()
+        if self._held is not None:
+            self._held.socket.close()
+        self._held = None
""",
        tests=(
            f"{_CHANNEL}::test_a_connection_is_not_closed_under_a_thread_that_is_about_to_read_it",
        ),
        why="A thread waits for ever at a connection that is another one's by now.",
    ),
    Mutant(
        name="answer-forgotten-before-it-is-given",
        module="beaver.client.channel",
        diff="""
-                    slot = self._slots.get(number)
+                    mutant_reached()
+                    slot = self._slots.pop(number, None)
                     if slot is not None:
                         # Forgotten last: an interrupt before that wakes it in `_lose`.
                         slot.value, slot.done = (status, answer), True
                         if slot.gate is not None:
                             _open_gate(slot)
-                        del self._slots[number]
""",
        tests=(f"{_CHANNEL}::test_an_interrupt_at_any_step_of_reading_leaves_no_thread_asleep",),
        why="Ctrl-C at a bad moment leaves another thread waiting for an answer that has come.",
    ),
    Mutant(
        name="half-a-frame-followed-by-others",
        module="beaver.client.channel",
        diff="""
-            # A frame may be half sent: nothing can follow it.
-            self._lose()
+            mutant_reached()
             raise
""",
        tests=(f"{_CHANNEL}::test_an_interrupted_sender_leaves_no_half_frame_behind",),
        why="The server takes the next request for the rest of an interrupted one.",
    ),
    Mutant(
        name="lock-of-a-thread-that-a-fork-left-behind",
        module="beaver.client.connection",
        diff="""
     for connection in list(_connections):
-        connection.begin_anew()
+        mutant_reached()
""",
        tests=(
            f"{_CHANNEL}::test_a_forked_child_has_a_connection_of_its_own_whatever_other_threads_held",
        ),
        why="A forked worker of a web server hangs at its first enqueue.",
    ),
    Mutant(
        name="looking-on-busy-cores",
        module="beaver.system.spinning",
        diff="""
-        return slow if running is None else running > self._cores
+        mutant_reached()
+        return False
""",
        tests=(
            f"{_LOOKING}::test_where_others_want_the_cores_the_thread_sleeps_at_once_and_longer_each_time",
        ),
        why="Eight client processes take a third of their rate from each other.",
    ),
    Mutant(
        name="looking-again-after-a-look-in-vain",
        module="beaver.system.spinning",
        diff="""
-        if (slow or over) and ((over and self._may_be_vain) or self._busy(slow)):
+        mutant_reached()
+        if (slow or over) and self._busy(slow):
""",
        tests=(
            f"{_LOOKING}::test_where_nothing_need_come_a_look_in_vain_is_followed_by_ever_longer_pauses",
        ),
        why="A server spends 30 ms of a core on each hundred requests that come one by one.",
    ),
    Mutant(
        name="server-looking-behind-many-answers",
        module="beaver.server.outbox",
        diff="""
-        self._alone = len(full) == 1
+        mutant_reached()
+        self._alone = True
""",
        tests=(
            "tests/runtime/test_looking_server.py::test_it_does_not_look_behind_answers_to_several_clients",
        ),
        why="The server takes a core from eight client processes that wait for it.",
    ),
    Mutant(
        name="core-yielded-before-the-commit",
        module="beaver.server.outbox",
        diff="""
-        if self.has_come:
+        mutant_reached()
+        if False:
""",
        tests=(
            "tests/runtime/test_looking_server.py::test_a_request_that_has_come_ends_the_look_at_once",
        ),
        why="On a busy machine a request that has come waits until others have had their turn.",
    ),
    Mutant(
        name="a-silent-server-is-none",
        module="beaver.journal.wal.lock",
        diff="""
-    says_so = told == pid or (info is not None and str(info.pid) == pid)
+    mutant_reached()
+    says_so = False
""",
        tests=(f"{_SILENT}::test_whoever_cannot_reach_a_frozen_server_is_told_its_pid",),
        why="Who looks after a frozen server is told to start one, which cannot work.",
    ),
    Mutant(
        name="reload-does-not-wait-for-a-start",
        module="beaver.client.blocking",
        diff="""
-        if client is not None or not starts:
+        mutant_reached()
+        if True:
""",
        tests=(f"{_SILENT}::test_a_server_that_starts_is_waited_for",),
        why="A deployment that starts the server and reloads it fails now and then.",
    ),
    Mutant(
        name="what-is-not-safe-is-sent-again-by-url",
        module="beaver.client.http.effort",
        diff="""
         if not self._call.operation.resend:
-            raise told from None
+            mutant_reached()
""",
        tests=(f"{_BY_URL}::test_a_lost_answer_is_asked_for_again_where_that_is_safe",),
        why="A retry by an operator acts twice where its answer was lost.",
    ),
    Mutant(
        name="half-an-answer-is-a-whole-one",
        module="beaver.client.http.wire",
        diff="""
-                    raise Lost("the answer was cut off")
+                    mutant_reached()
""",
        tests=(f"{_BY_URL}::test_a_lost_answer_is_asked_for_again_where_that_is_safe",),
        why="A server that is killed while it answers makes a call fail that would go on.",
    ),
    Mutant(
        name="a-wrong-token-sets-all-rows-of-an-outbox-aside",
        module="beaver.outbox.relay",
        diff="""
             if isinstance(error, AccessDenied) and not _is_about_jobs(error):
-                raise  # It is the token, whatever is sent.
+                mutant_reached()
""",
        tests=("tests/outbox/test_relay.py::test_a_token_that_may_not_enqueue_sets_no_row_aside",),
        why="A token that has expired over night empties the outbox into a heap of refusals.",
    ),
)
