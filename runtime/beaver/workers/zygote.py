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
import subprocess
import sys
import time
from collections import deque
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

_READ_BYTES: Final = 64 << 10
_FDS_MAX: Final = 64
_FDS_PER_ADD: Final = len(wire.Ends._fields)
_EXEC_S: Final = 0.5
"""For so long a death waits for orphans of which nothing says yet whose they are."""
_LINGER_S: Final = 5.0
"""How long the death of a worker waits for killed subprocesses that hang in the kernel."""
_LINGER_POLL_MS: Final = 2


class ForkedWorker:
    """A worker that this zygote has started and not yet reported as gone."""

    __slots__ = ("birth", "detail", "linger_until_s", "pid", "process", "remains")

    def __init__(self, birth: int, pid: int, process: subprocess.Popen[bytes] | None) -> None:
        self.birth = birth
        self.pid = pid
        self.process = process
        """For a spawned worker: its handle, told of the exit so that it does not warn."""
        self.detail = ""
        self.linger_until_s = 0.0
        self.remains: set[int] = set()
        """Its subprocesses that were killed and are not reaped yet."""


class Zygote:
    """The zygote after the import."""

    def __init__(
        self,
        config: wire.WorkerConfig,
        registry: Registry,
        control: socket.socket,
        label: kinship.Label,
        *,
        spawns: bool,
    ) -> None:
        self._config = config
        self._registry = registry
        self._control = control
        self._label = label
        self._spawns = spawns
        self._frames = FrameReader()
        self._fds: deque[int] = deque()
        self._workers: dict[int, ForkedWorker] = {}
        self._lingering: list[ForkedWorker] = []
        self._told_to_end = False
        self._app_handlers: dict[signal.Signals, Any] = {}
        self._wake_read, self._wake_write = socket.socketpair()

    def run(self) -> None:
        """Serves until the server is gone or asks it to end; returns with no child left."""
        self._catch_signals()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        with contextlib.suppress(ConnectionError):
            while not self._told_to_end:
                ready = poll.poll(_LINGER_POLL_MS if self._lingering else None)
                for fd, _ in ready:
                    if fd == self._wake_read.fileno():
                        self._wake_read.recv(4096)
                self._reap()
                if any(fd == self._control.fileno() for fd, _ in ready):
                    self._read_control()
        self._kill_everything()

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

    # -- the server's messages --------------------------------------------------------------

    def _read_control(self) -> None:
        data, ancillary, _, _ = self._control.recvmsg(
            _READ_BYTES, socket.CMSG_SPACE(4 * _FDS_MAX), wire.CLOEXEC_FLAG
        )
        self._fds.extend(wire.descriptors(ancillary))
        if not data:
            raise ConnectionResetError
        for body in self._frames.feed(data):
            message = wire.decode_control(body)
            if isinstance(message, wire.Add):
                self._add(message)
            elif isinstance(message, wire.Kill):
                self._kill(message.birth)
            elif isinstance(message, wire.Claim):
                self._label.write(message.mark)

    def _add(self, add: wire.Add) -> None:
        ends = wire.Ends(*(self._fds.popleft() for _ in range(_FDS_PER_ADD)))
        try:
            if self._spawns:
                process = self._spawn(add, ends)
                worker = ForkedWorker(add.birth, process.pid, process)
            else:
                worker = ForkedWorker(add.birth, self._fork(add, ends), None)
        except OSError as error:
            self._send(wire.Exited(add.birth, f"could not be started: {error}"))
            return
        finally:
            for fd in ends:
                os.close(fd)
        self._workers[worker.pid] = worker

    def _fork(self, add: wire.Add, ends: wire.Ends) -> int:
        zygote_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            # This is the worker.  What belongs to the zygote is closed first: as long as
            # anybody holds its end of the control socket, the server would not see its end.
            self._release_signals()
            for end in (self._control, self._wake_read, self._wake_write):
                end.close()
            for fd in self._fds:
                os.close(fd)
            child.run_forked(self._config, self._registry, add, ends, zygote_pid)
        return pid

    def _spawn(self, add: wire.Add, ends: wire.Ends) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "beaver.workers.child",
                msgspec.json.encode(self._config).decode(),
                msgspec.json.encode(add).decode(),
                *map(str, ends),
                str(os.getpid()),
            ],
            env={**os.environ, kinship.WORKER_VARIABLE: str(add.birth)},
            stdin=subprocess.DEVNULL,
            pass_fds=ends,
            start_new_session=True,
        )

    def _kill(self, birth: int) -> None:
        """Kills a worker, and says so at once: the server sees that the zygote does not hang."""
        for worker in self._workers.values():
            if worker.birth == birth:
                # Not reaped yet, so the number is its own.  It may not lead a group yet.
                kinship.kill_group(worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
        self._send(wire.Killing(birth))

    def _send(self, message: wire.Exited | wire.Killing) -> None:
        self._control.sendall(wire.frame(message))

    # -- deaths -----------------------------------------------------------------------------

    def _reap(self) -> None:
        """Reaps every dead child and reports the workers whose whole group is gone."""
        while (ended := _next_dead()) is not None:
            pid, detail = ended
            worker = self._collect(pid)
            if worker is not None:
                worker.detail = detail
                worker.linger_until_s = time.monotonic() + _LINGER_S
                self._lingering.append(worker)
        if self._lingering:
            self._lingering = [worker for worker in self._lingering if not self._gone(worker)]

    def _collect(self, pid: int) -> ForkedWorker | None:
        """Reaps a dead child, and kills what is left of its group where it was a worker."""
        worker = self._workers.pop(pid, None)
        if worker is not None:
            # The leader is still a zombie, so the group's number cannot mean another
            # group.  One kill is enough: a member's fork either fails or is hit too.
            kinship.kill_group(pid)
        os.waitpid(pid, 0)
        if worker is not None and worker.process is not None:
            # Only now may the handle go: it would reap the child itself.
            worker.process.returncode = 0
        return worker

    def _gone(self, worker: ForkedWorker) -> bool:
        """Reports a dead worker once nothing of its group, or marked as its own, is left."""
        adopted = self._adopted()
        worker.remains.intersection_update(adopted)
        left_s, in_doubt = worker.linger_until_s - time.monotonic(), False
        for pid in adopted:
            if pid in worker.remains:
                continue
            belongs = _belongs(pid, worker)
            if belongs:
                worker.remains.add(pid)
                _kill_adopted(pid)
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
        return [pid for pid in kinship.own_children() if pid not in self._workers]

    def _kill_everything(self) -> None:
        """Kills every worker with its group and every orphan; returns once all are reaped."""
        for pid in list(self._workers):
            kinship.kill_group(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline_s = time.monotonic() + _LINGER_S
        while time.monotonic() < deadline_s:
            while (ended := _next_dead()) is not None:
                self._collect(ended[0])
            adopted = self._adopted()
            for pid in adopted:
                _kill_adopted(pid)
            if not adopted and not self._workers:
                break
            time.sleep(_LINGER_POLL_MS / 1000)


def _next_dead() -> tuple[int, str] | None:
    """Returns a dead child that is not reaped yet and how it ended, or `None`."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if info is None:
        return None
    if info.si_code == os.CLD_EXITED:
        return info.si_pid, f"exited with {info.si_status}"
    try:
        name = f" ({signal.Signals(info.si_status).name})"
    except ValueError:
        name = ""
    return info.si_pid, f"killed by signal {info.si_status}{name}"


def _belongs(pid: int, worker: ForkedWorker) -> bool | None:
    """True for an orphan that was in a worker's group, or has left it but carries its mark.

    `None` where its environment is empty: so it is in the middle of an exec.
    """
    try:
        if os.getpgid(pid) == worker.pid:
            return True
    except ProcessLookupError:
        return False
    mark = f"{kinship.WORKER_VARIABLE}={worker.birth}".encode()
    environment = kinship.environment_of(pid)
    if environment <= {b""} and kinship.identity_of(pid) is not None:
        return None
    return mark in environment


def _kill_adopted(pid: int) -> None:
    """Kills an orphan, and the group that it leads.  It is our child, so the number is its own."""
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(pid) == pid:
            kinship.kill_group(pid)
        os.kill(pid, signal.SIGKILL)


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
    zygote = Zygote(config, registry, control, label, spawns=bool(why))
    with contextlib.suppress(ConnectionError):
        control.sendall(wire.frame(wire.ZygoteReady(tasks, why, registry.store)))
        zygote.run()
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
