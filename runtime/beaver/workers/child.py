"""A worker process, from its first instruction to its last.

Forked by the zygote (`run` is called) or, where forking is not safe, started by it as a new
program (`python -m beaver.workers.child`), which imports the application itself.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from typing import Final, NoReturn

import msgspec

from beaver.errors import AppImportError
from beaver.system import kinship
from beaver.task import output
from beaver.task.builtins import builtin_tasks
from beaver.task.registry import Registry
from beaver.workers import apps
from beaver.workers.attempts import Steps
from beaver.workers.inbox import Inbox, OutcomeSender
from beaver.workers.slots import SlotWriter
from beaver.workers.wire import Add, Ends, WorkerConfig

EXIT_IMPORT: Final = 71
"""Exit code of a spawned worker that cannot import the application."""
EXIT_BUG: Final = 70
"""Exit code after an exception in Beaver's own code."""


def run(config: WorkerConfig, registry: Registry, add: Add, ends: Ends) -> None:
    """Runs attempts until the server ends it, or this worker has done as many as it may."""
    kinship.name_process(f"beaver-{add.worker}")
    output.configure_worker(config.log_level, config.log_format)
    steps = Steps(registry, builtin_tasks(config.executor, config.programs))
    # The server holds this end of the jobs socket too, and blocking is a property that both
    # share: it stays blocking, and the server, which must not wait, says so call by call.
    jobs, stream = socket.socket(fileno=ends.jobs), socket.socket(fileno=ends.stream)
    for end in (jobs, stream):
        end.settimeout(None)  # the application may have set a default for all sockets
    slot = SlotWriter(ends.slots, add.worker)
    os.close(ends.slots)
    inbox = Inbox(jobs, ends.permits, slot, config.max_jobs, config.max_rss_bytes)
    outbox = OutcomeSender(stream)
    os.register_at_fork(after_in_child=outbox.forked)
    if config.executor == "thread":
        from beaver.workers.threads import Threads

        Threads(inbox, outbox, steps, config.concurrency).run()
    elif config.executor == "async":
        from beaver.workers.coroutines import Coroutines

        Coroutines(inbox, outbox, steps, config.concurrency).run()
    else:
        from beaver.workers import one_by_one

        one_by_one.run(inbox, outbox, steps)


def run_forked(
    config: WorkerConfig,
    registry: Registry,
    add: Add,
    ends: Ends,
    zygote_pid: int,
) -> NoReturn:
    """The whole life of a forked worker; never returns into the zygote's code."""
    code = EXIT_BUG
    try:
        os.setsid()
        kinship.die_with_parent(zygote_pid, signal.SIGKILL)
        os.environ[kinship.WORKER_VARIABLE] = str(add.birth)
        run(config, registry, add, ends)
        code = 0
    except BaseException:  # noqa: BLE001 -- nothing may unwind into the zygote
        traceback.print_exc()
    finally:
        _end(code)


def main() -> NoReturn:
    """Entry point of a spawned worker."""
    config = msgspec.json.decode(sys.argv[1], type=WorkerConfig)
    add = msgspec.json.decode(sys.argv[2], type=Add)
    *fds, zygote_pid = map(int, sys.argv[3:])
    ends = Ends(*fds)
    code = EXIT_BUG
    try:
        kinship.outlive_hangups()
        kinship.die_with_parent(zygote_pid, signal.SIGKILL)
        for fd in ends:
            os.set_inheritable(fd, False)
        output.install(config.log_format)
        try:
            registry = apps.load(config.app)
        except AppImportError as error:
            print(error, file=sys.stderr)  # noqa: T201 -- the log of a worker is its stderr
            code = EXIT_IMPORT
        else:
            run(config, registry, add, ends)
            code = 0
    except BaseException:  # noqa: BLE001 -- the code below must be reached
        traceback.print_exc()
    finally:
        _end(code)


def _end(code: int) -> NoReturn:
    """Ends without the exit handlers: they belong to the zygote, and threads may hang."""
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()
    os._exit(code)


if __name__ == "__main__":
    main()
