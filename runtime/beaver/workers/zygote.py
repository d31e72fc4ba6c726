"""The zygote: imports the application once and is the parent of every worker.

It is exec'd before the server opens lock, log and sockets, so nothing of them can leak into
user code, and it stays single-threaded, so it can fork safely.  Its loop waits for two
things: a message from the server, and the death of a child.

The end of its socket to the server means that the server is gone, however it went.  Then it
kills every worker's group and whatever else was handed to it, reaps them, and ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

from beaver.errors import AppImportError
from beaver.structs.messages import Options, TaskInfo
from beaver.system import kinship
from beaver.task import output
from beaver.task.builtins import builtin_tasks
from beaver.task.registry import Registry
from beaver.transport.framing import FrameReader
from beaver.workers import apps, child, wire
from beaver.workers.family import Family, Forked, Spawned

_READ_BYTES: Final = 64 << 10
_FDS_MAX: Final = 64
_FDS_PER_ADD: Final = len(wire.Ends._fields)
_EXEC_S: Final = 0.5
"""How long the report of a death waits for orphans whose worker is not known yet."""
_LINGER_S: Final = 5.0
"""How long the death of a worker waits for killed subprocesses that hang in the kernel."""
LINGER_POLL_MS: Final = 2


class ForkedWorker:
    """A worker that this zygote has started and not yet reported as gone."""

    __slots__ = ("birth", "detail", "linger_until_s", "pid", "remains")

    def __init__(self, birth: int, pid: int) -> None:
        self.birth = birth
        self.pid = pid
        self.detail = ""
        self.linger_until_s = 0.0
        self.remains: set[int] = set()
        """Its subprocesses that were killed and are not reaped yet."""


class Zygote:
    """The zygote after the import: the server's messages, and the deaths of its children."""

    def __init__(
        self, control: socket.socket, family: Family, claim: Callable[[str], None]
    ) -> None:
        """Has no worker yet.

        Args:
            control: Its end of the stream to the server.
            family: The processes below it.
            claim: Called with the mark of the store, once the server knows it.
        """
        self.control = control
        self._family = family
        self._claim = claim
        self._frames = FrameReader()
        self.fds: deque[int] = deque()
        """Descriptors that have come, and not yet the message that they belong to."""
        self._workers: dict[int, ForkedWorker] = {}
        self._lingering: list[ForkedWorker] = []

    @property
    def lingers(self) -> bool:
        """It waits for what a dead worker has left: look again in a moment."""
        return bool(self._lingering)

    def turn(self, *, is_readable: bool) -> None:
        """Sees who has died, then reads what the server says.

        Raises:
            ConnectionError: The server is gone.
        """
        self._reap()
        if is_readable:
            self._read_control()

    # -- the server's messages --------------------------------------------------------------

    def _read_control(self) -> None:
        data, ancillary, _, _ = self.control.recvmsg(
            _READ_BYTES, socket.CMSG_SPACE(4 * _FDS_MAX), wire.CLOEXEC_FLAG
        )
        self.fds.extend(wire.descriptors(ancillary))
        if not data:
            raise ConnectionResetError
        for body in self._frames.feed(data):
            message = wire.decode_control(body)
            if isinstance(message, wire.Add):
                self._add(message)
            elif isinstance(message, wire.Kill):
                self._kill(message.birth)
            elif isinstance(message, wire.Claim):
                self._claim(message.mark)

    def _add(self, add: wire.Add) -> None:
        ends = wire.Ends(*(self.fds.popleft() for _ in range(_FDS_PER_ADD)))
        try:
            pid = self._family.start(add, ends)
        except OSError as error:
            self._send(wire.Exited(add.birth, f"could not be started: {error}"))
            return
        finally:
            for fd in ends:
                os.close(fd)
        self._workers[pid] = ForkedWorker(add.birth, pid)

    def _kill(self, birth: int) -> None:
        """Kills a worker, and says so at once: the server sees that the zygote does not hang."""
        for worker in self._workers.values():
            if worker.birth == birth:
                # Not reaped yet, so the number is its own.
                self._family.kill(worker.pid)
        self._send(wire.Killing(birth))

    def _send(self, message: wire.Exited | wire.Killing) -> None:
        self.control.sendall(wire.frame(message))

    # -- deaths -----------------------------------------------------------------------------

    def _reap(self) -> None:
        """Reaps every dead child and reports the workers whose whole group is gone."""
        while (ended := self._family.next_dead()) is not None:
            pid, detail = ended
            worker = self._collect(pid)
            if worker is not None:
                worker.detail = detail
                worker.linger_until_s = self._family.now_s() + _LINGER_S
                self._lingering.append(worker)
        if self._lingering:
            self._lingering = [worker for worker in self._lingering if not self._gone(worker)]

    def _collect(self, pid: int) -> ForkedWorker | None:
        """Reaps a dead child, and kills what is left of its group where it was a worker."""
        worker = self._workers.pop(pid, None)
        if worker is not None:
            # The leader is still a zombie, so the group's number cannot mean another
            # group.  One kill is enough: a member's fork either fails or is hit too.
            self._family.kill_group(pid)
        self._family.reap(pid)
        return worker

    def _gone(self, worker: ForkedWorker) -> bool:
        """Reports a dead worker once nothing of its group, or marked as its own, is left."""
        adopted = self._adopted()
        worker.remains.intersection_update(adopted)
        left_s, in_doubt = worker.linger_until_s - self._family.now_s(), False
        for pid in adopted:
            if pid in worker.remains:
                continue
            belongs = self._family.belongs(pid, worker.pid, worker.birth)
            if belongs:
                worker.remains.add(pid)
                self._family.kill_orphan(pid)
            in_doubt = in_doubt or belongs is None
        if (worker.remains and left_s > 0) or (in_doubt and left_s > _LINGER_S - _EXEC_S):
            return False
        detail = worker.detail
        if worker.remains:
            detail += f"; processes {sorted(worker.remains)} hang in the kernel"
        self._send(wire.Exited(worker.birth, detail))
        return True

    def _adopted(self) -> list[int]:
        """Returns children that are no workers: orphans that were handed to the subreaper."""
        return [pid for pid in self._family.pids() if pid not in self._workers]

    def kill_everything(self) -> None:
        """Kills every worker with its group and every orphan; returns once all are reaped."""
        for pid in list(self._workers):
            self._family.kill(pid)
        deadline_s = self._family.now_s() + _LINGER_S
        while self._family.now_s() < deadline_s:
            while (ended := self._family.next_dead()) is not None:
                self._collect(ended[0])
            adopted = self._adopted()
            for pid in adopted:
                self._family.kill_orphan(pid)
            if not adopted and not self._workers:
                break
            self._family.sleep(LINGER_POLL_MS / 1000)


class Serving:
    """A zygote's life in its process: signals, and a loop that waits for two things."""

    def __init__(
        self,
        config: wire.WorkerConfig,
        registry: Registry,
        control: socket.socket,
        label: kinship.Label,
        *,
        spawns: bool,
    ) -> None:
        family = Spawned(config) if spawns else Forked(config, registry, self._leave)
        self._zygote = Zygote(control, family, label.write)
        self._told_to_end = False
        self._app_handlers: dict[signal.Signals, Any] = {}
        self._wake_read, self._wake_write = socket.socketpair()

    def run(self) -> None:
        """Serves until the server is gone or asks it to end; returns with no child left."""
        self._catch_signals()
        zygote = self._zygote
        poll = select.poll()
        poll.register(zygote.control, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        with contextlib.suppress(ConnectionError):
            while not self._told_to_end:
                ready = poll.poll(LINGER_POLL_MS if zygote.lingers else None)
                for fd, _ in ready:
                    if fd == self._wake_read.fileno():
                        self._wake_read.recv(4096)
                zygote.turn(is_readable=any(fd == zygote.control.fileno() for fd, _ in ready))
        zygote.kill_everything()

    def _leave(self) -> None:
        """Closes in a forked worker what belongs to the zygote.

        As long as anybody holds its end of the control socket, the server would not see its end.
        """
        self._release_signals()
        for end in (self._zygote.control, self._wake_read, self._wake_write):
            end.close()
        for fd in self._zygote.fds:
            os.close(fd)

    # -- signals ----------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        """Turns SIGCHLD and SIGTERM into a byte that wakes the loop."""
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for signum, handler in (
            (signal.SIGCHLD, lambda *_: None),
            (signal.SIGTERM, self._on_term),
            (signal.SIGINT, signal.SIG_IGN),
        ):
            self._app_handlers[signum] = signal.signal(signum, handler)
        # The application may have blocked them, and would then block the zygote's ears.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._app_handlers)

    def _on_term(self, *_: object) -> None:
        self._told_to_end = True

    def _release_signals(self) -> None:
        """Gives a forked worker the handlers that the application had set, or the defaults."""
        signal.set_wakeup_fd(-1)
        for signum, handler in self._app_handlers.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)


def main() -> NoReturn:
    """Entry point: `python -m beaver.workers.zygote CONFIG CONTROL_FD SERVER_PID`."""
    config = msgspec.json.decode(sys.argv[1], type=wire.WorkerConfig)
    control_fd, server_pid = int(sys.argv[2]), int(sys.argv[3])
    sys.argv[:] = ["beaver"]
    label = kinship.Label()
    os.set_inheritable(control_fd, False)
    kinship.outlive_hangups()
    # Until the import is done nothing of ours runs, so SIGTERM may simply end this process.
    kinship.die_with_parent(server_pid, signal.SIGTERM)
    kinship.become_subreaper()
    kinship.name_process("beaver-zygote")
    output.install(config.log_format)
    control = socket.socket(fileno=control_fd)
    sockets_before = apps.open_sockets()
    try:
        registry = apps.load(config.app)
    except AppImportError as error:
        control.settimeout(None)
        with contextlib.suppress(OSError):
            control.sendall(wire.frame(wire.ImportFailed(str(error))))
        os._exit(child.EXIT_IMPORT)
    control.settimeout(None)
    why = apps.why_not_fork(sockets_before)
    tasks = _task_infos(config, registry)
    if not why:
        _preload(config, tasks)
    serving = Serving(config, registry, control, label, spawns=bool(why))
    with contextlib.suppress(ConnectionError):
        control.sendall(wire.frame(wire.ZygoteReady(tasks, why, registry.store)))
        serving.run()
    os._exit(0)


def _task_infos(config: wire.WorkerConfig, registry: Registry) -> tuple[TaskInfo, ...]:
    """Returns the application's tasks and the built-in ones that it does not define itself."""
    infos = [task.info() for task in registry]
    infos += [
        TaskInfo(Options(name), builtin.is_async)
        for name, builtin in builtin_tasks(config.executor, config.programs).items()
        if name not in registry
    ]
    return tuple(infos)


def _preload(config: wire.WorkerConfig, tasks: tuple[TaskInfo, ...]) -> None:
    """Imports what every worker will need, and keeps the collector from copying pages."""
    if config.executor == "async" or any(task.is_async for task in tasks):
        import asyncio  # noqa: F401
    if config.executor == "process":
        from beaver.workers import one_by_one  # noqa: F401
    elif config.executor == "thread":
        from beaver.workers import threads  # noqa: F401
    else:
        from beaver.workers import coroutines  # noqa: F401
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    main()
