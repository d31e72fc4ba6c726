"""One connection, many threads: who sends, who reads, and what an interrupt leaves behind."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType

import msgspec
import pytest

from beaver import Beaver
from beaver.client import blocking, channel
from beaver.client.channel import Channel, PendingAnswer
from beaver.client.reconnecting import ReconnectingClient
from beaver.errors import ServerGone
from beaver.transport import framing
from tests.api.conftest import ModelServer

WAIT_S = 20.0


class Peer:
    """The other end of a channel, which answers when it is told to."""

    def __init__(self) -> None:
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(WAIT_S)
        self.channel = Channel(ours)
        self.frames = framing.FrameReader()
        self.waiting: list[int] = []
        self.reads: list[int] = []
        """How many requests each read brought."""

    def read(self) -> list[int]:
        """Reads once; returns the numbers of the requests that came."""
        try:
            received = self.socket.recv(1 << 20)
        except TimeoutError:
            self.channel.close()  # Lets threads that wait for ever go.
            raise
        found = [msgspec.msgpack.decode(f)[0] for f in self.frames.feed(received)]
        self.reads.append(len(found))
        return found

    def answer(self, *numbers: int) -> None:
        self.socket.sendall(b"".join(framing.encode_frame([n, 0, n]) for n in numbers))

    def ask(self, body: object = None) -> PendingAnswer:
        slot = self.channel.ask("test", body)
        self.channel.wait_for(slot)
        return slot


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.channel.close()
    made.socket.close()


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_each_thread_gets_its_own_answer_in_whatever_order_they_come(peer: Peer) -> None:
    count = 40
    with ThreadPoolExecutor(count) as threads:
        asked = [threads.submit(peer.ask) for _ in range(count)]
        numbers: list[int] = []
        while len(numbers) < count:
            numbers += peer.read()
        random.Random(1).shuffle(numbers)
        for at in range(0, count, 7):
            peer.answer(*numbers[at : at + 7])
        for future in asked:
            slot = future.result(WAIT_S)
            assert slot.value is not None
            assert msgspec.msgpack.decode(slot.value[1]) == slot.number


def test_what_threads_leave_while_one_sends_goes_out_together(peer: Peer) -> None:
    """64 threads make a few writes, not 64: the holder of the connection sends for all."""
    count = 64
    large = b"x" * (4 << 20)
    with ThreadPoolExecutor(count + 1) as threads:
        first = threads.submit(peer.ask, large)  # Far more than a socket holds: it has to wait.
        until(peer.channel._sending.locked)
        others = [threads.submit(peer.ask) for _ in range(count)]
        until(lambda: len(peer.channel._unsent) == count)
        numbers: list[int] = []
        while len(numbers) < count + 1:
            numbers += peer.read()
        assert max(peer.reads) > count // 2
        peer.answer(*numbers)
        for future in (first, *others):
            assert future.result(WAIT_S).value is not None


def test_who_sends_much_reads_answers_where_nobody_else_does(peer: Peer) -> None:
    """A peer that takes nothing more until its answers are read does not lock us out."""
    slot = peer.channel.ask("first", None)
    [number] = peer.read()

    def serve() -> None:
        peer.socket.sendall(framing.encode_frame([number, 0, b"y" * (8 << 20)]))
        while not peer.read():
            pass

    with ThreadPoolExecutor(1) as threads:
        serving = threads.submit(serve)
        peer.channel.ask("second", b"x" * (8 << 20))
        serving.result(WAIT_S)
    assert slot.done


def test_a_lost_connection_wakes_everyone_once(peer: Peer) -> None:
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(peer.ask) for _ in range(8)]
        seen = 0
        while seen < 8:
            seen += len(peer.read())
        peer.socket.shutdown(socket.SHUT_RDWR)
        assert [future.result(WAIT_S).value for future in asked] == [None] * 8
    with pytest.raises(ServerGone, match="nothing was sent"):
        peer.channel.ask("later", None)


class SlowPoll:
    """A poll whose caller was put aside by the kernel just before it went to sleep."""

    def __init__(self, readable: select.poll) -> None:
        self._readable = readable
        self.about_to_sleep, self.go_on = threading.Event(), threading.Event()

    def poll(self, *timeout: int) -> list[tuple[int, int]]:
        if not timeout:
            self.about_to_sleep.set()
            assert self.go_on.wait(WAIT_S)
        return self._readable.poll(*timeout)


def test_a_connection_is_not_closed_under_a_thread_that_is_about_to_read_it(peer: Peer) -> None:
    """Its descriptor's number would be free for the next one, where the thread would wait."""
    slow = SlowPoll(peer.channel._readable)
    peer.channel._readable = slow  # type: ignore[assignment]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(peer.ask)
        assert slow.about_to_sleep.wait(WAIT_S)
        peer.channel.close()
        fresh, other_end = socket.socketpair()
        slow.go_on.set()
        try:
            assert waiting.result(WAIT_S / 4).value is None, "it hears that the connection is lost"
        finally:
            other_end.close()  # Lets a thread that waits here go.
            fresh.close()


def test_a_connection_that_nobody_uses_is_closed_at_once(peer: Peer) -> None:
    peer.channel.close()
    assert peer.socket.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        peer.socket.send(b"x")


# -- interrupts ---------------------------------------------------------------------------------


class Alarm:
    """Raises KeyboardInterrupt in the main thread a moment after a call has begun."""

    def __init__(self) -> None:
        self.armed = False
        self._before = signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, *_: object) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt

    def interrupts(self, work: Callable[[], object], after_s: float) -> bool:
        """Does the work; True where it was interrupted."""
        try:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, after_s)
            work()
            self.armed = False
        except KeyboardInterrupt:
            return True
        return False

    def end(self) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


def ring() -> None:
    """Has the alarm ring in the main thread, now."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    made = Alarm()
    yield made
    made.end()


def test_an_interrupted_reader_passes_the_reading_on_and_the_connection_stays(
    peer: Peer, alarm: Alarm
) -> None:
    with ThreadPoolExecutor(1) as threads:
        slot = peer.channel.ask("interrupted", None)
        [ours] = peer.read()
        other = None

        def ring_once_both_wait() -> None:
            nonlocal other
            until(lambda: peer.channel._reader is slot and slot.asleep)
            other = threads.submit(peer.ask)
            until(lambda: any(s.gate is not None for s in peer.channel._slots.values()))
            ring()

        ringing = threading.Thread(target=ring_once_both_wait)

        def wait() -> None:
            ringing.start()
            peer.channel.wait_for(slot)

        assert alarm.interrupts(wait, WAIT_S)
        ringing.join()
        assert not peer.channel.lost
        [theirs] = peer.read()
        peer.answer(ours, theirs)  # Ours is awaited by nobody any more.
        assert other is not None
        try:
            assert other.result(WAIT_S / 4).value is not None
        finally:
            peer.channel.close()


class Tripwire:
    """Raises KeyboardInterrupt at the n-th step of this thread in and behind `Channel._take`.

    A step is where Python looks for signals: behind a call of what is written in C, and where
    a function begins.
    """

    def __init__(self, steps: int) -> None:
        self.left = steps
        self._begun = False

    def step(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if code.co_filename != channel.__file__:
            return
        self._begun = self._begun or code.co_name == "_take"
        if self._begun and event in ("call", "c_return"):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    def interrupts(self, work: Callable[[], object]) -> bool:
        """Does the work; True where it was interrupted."""
        before = sys.getprofile()
        sys.setprofile(self.step)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(before)
        return False


def test_an_interrupt_at_any_step_of_reading_leaves_no_thread_asleep() -> None:
    """Whoever's answer was in the reader's hands has it, or hears that the connection is lost."""
    steps, interrupted = 0, True
    while interrupted:
        peer = Peer()
        slot = peer.channel.ask("interrupted", None)
        [ours] = peer.read()
        # A daemon: one that sleeps for ever must not keep the tests from their end.
        other = threading.Thread(target=peer.ask, daemon=True)

        def answer_once_both_wait(
            peer: Peer = peer,
            slot: PendingAnswer = slot,
            other: threading.Thread = other,
            ours: int = ours,
        ) -> None:
            until(lambda: peer.channel._reader is slot and slot.asleep)
            other.start()
            until(lambda: any(s.gate is not None for s in peer.channel._slots.values()))
            peer.answer(*peer.read(), ours)

        answering = threading.Thread(target=answer_once_both_wait)
        answering.start()
        interrupted = Tripwire(steps).interrupts(partial(peer.channel.wait_for, slot))
        answering.join(WAIT_S)
        other.join(WAIT_S / 4)
        assert not other.is_alive(), f"interrupted at step {steps}"
        peer.channel.close()
        peer.socket.close()
        steps += 1
    assert steps > 5


def test_an_interrupted_sender_leaves_no_half_frame_behind(peer: Peer, alarm: Alarm) -> None:
    """A frame of which a part is sent: nothing may follow it on this connection."""

    def ring_once_a_part_is_sent() -> None:
        until(lambda: select.select([peer.socket], [], [], 0)[0] != [])
        ring()

    ringing = threading.Thread(target=ring_once_a_part_is_sent)
    ringing.start()
    assert alarm.interrupts(lambda: peer.ask(b"x" * (8 << 20)), WAIT_S)
    ringing.join()
    assert peer.channel.lost


def test_interrupts_at_any_moment_lose_no_job_and_hold_up_no_thread(
    data: str, server: ModelServer, alarm: Alarm
) -> None:
    """Ctrl-C in one thread, again and again: all others' jobs come in, each once."""
    app = Beaver(data)

    @app.job
    def echo(n: int) -> None: ...

    done = threading.Event()

    def produce(thread: int) -> list[str]:
        made: list[str] = []
        while not done.is_set():
            handle = echo.options(id=f"{thread}-{len(made)}").enqueue(len(made))
            assert handle.id == f"{thread}-{len(made)}"
            made.append(handle.id)
        return made

    seed = random.randrange(1 << 30)
    chance, interrupted = random.Random(seed), 0
    with ThreadPoolExecutor(4) as threads:
        producing = [threads.submit(produce, thread) for thread in range(4)]
        try:
            for n in range(150):
                job = echo.options(id=f"main-{n}")
                interrupted += alarm.interrupts(partial(job.enqueue, n), chance.random() / 400)
                job.enqueue(n)  # The same again, which is safe.
        finally:
            alarm.armed = False
            done.set()
        made = [job for future in producing for job in future.result(WAIT_S)]
    assert interrupted > 0, f"seed {seed}"
    wanted = {*made, *(f"main-{n}" for n in range(150))}
    assert {job.id for job in app.client.list_jobs(limit=1000)} <= wanted
    assert app.status().pending == len(wanted)


def test_a_forked_child_has_a_connection_of_its_own_whatever_other_threads_held(
    data: str, server: ModelServer
) -> None:
    """Also where a thread was in the middle of connecting, or of a call, at the fork."""
    app = Beaver(data)
    connection = app.connection
    assert isinstance(connection, ReconnectingClient)

    @app.job
    def echo(n: int) -> None: ...

    echo.options(id="before").enqueue(0)
    connection._lock.acquire()
    try:
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if echo.options(id="child").enqueue(1).created else 1)
            finally:
                os._exit(2)
    finally:
        connection._lock.release()
    assert ended(child) == 0
    echo.options(id="after").enqueue(2)
    assert server.connections == 2
    assert app.status().pending == 3


def ended(child: int) -> int:
    """Returns the exit code of a child, which is killed where it does not end."""
    deadline_s = time.monotonic() + WAIT_S / 4
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline_s:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(found[1])


def test_a_client_that_is_closed_in_the_middle_of_a_call_says_so(
    data: str, server: ModelServer
) -> None:
    found = blocking.connect(data)
    asked = threading.Event()

    def swallow(op: str, writer: object) -> bool:
        asked.set()
        return op != "status"

    server.before_answer = swallow
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(found.status)
        assert asked.wait(WAIT_S)
        found.close()
        with pytest.raises(ServerGone, match="before it answered"):
            asking.result(WAIT_S)
