"""The tasks that the worker tests run."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from beaver.structs.messages import Options
from beaver.task.context import JobContext, current
from beaver.task.directives import Cancel, Dead, Retry, Snooze
from beaver.task.registry import Registry, Task

registry = Registry()


def job(function: Any) -> Any:
    task: Any = Task(function, Options(function.__name__))
    registry.add(task)
    return task


@job
def add(a: int, b: int = 10) -> int:
    return a + b


@job
def first(payload: Any) -> Any:
    return payload


@job
def nothing() -> None:
    pass


@job
def note(path: str, number: int) -> None:
    """Says in a file that it has run."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"%d\n" % number)
    os.close(fd)


@job
def about(ctx: JobContext) -> dict[str, Any]:
    return {
        "job": ctx.job_id,
        "attempt": ctx.attempt,
        "max_attempts": ctx.max_attempts,
        "queue": ctx.queue,
        "task": ctx.task,
        "key": ctx.idempotency_key,
        "tags": list(ctx.tags),
        "remaining": ctx.remaining,
        "deadline": ctx.deadline,
        "same": current() is ctx,
        "pid": os.getpid(),
    }


@job
async def later(value: Any, seconds: float = 0.0) -> Any:
    await asyncio.sleep(seconds)
    return {"value": value, "job": current().job_id}


@job
def boom(message: str) -> None:
    raise ValueError(message)


@job
def steer(how: str) -> Any:
    if how == "retry":
        raise Retry(2.5, "not yet")
    if how == "retry_from":
        raise Retry from KeyError("the cause")
    if how == "return_snooze":
        return Snooze(3)
    if how == "cancel":
        raise Cancel("unwanted")
    if how == "dead":
        return Dead("hopeless")
    if how == "exit":
        sys.exit(4)
    if how == "bad_delay":
        raise Snooze(-1)
    return how


@job
def unwritable(how: str) -> Any:
    if how == "object":
        return object()
    if how == "surrogate":
        return "\ud800"
    if how == "large":
        return "x" * (1 << 20)
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@job
def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@job
def nap_in_slices(path: str) -> str:
    """Python code that a soft stop reaches; says when it started."""
    Path(path).write_text(str(os.getpid()))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.01)
    return "slept"


@job
def stubborn(path: str) -> str:
    """Swallows a soft stop and completes."""
    Path(path).write_text(str(os.getpid()))
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.01)
    except BaseException:  # noqa: BLE001 -- just what the test is about
        return "completed all the same"
    return "slept"


@job
async def nap_async(path: str) -> str:
    Path(path).write_text(str(os.getpid()))  # noqa: ASYNC240 -- a few bytes
    await asyncio.sleep(60)
    return "slept"


@job
def wait_for_cancel(path: str, ctx: JobContext) -> str:
    Path(path).write_text(str(os.getpid()))
    end = time.monotonic() + 60
    while not ctx.cancelled:
        assert time.monotonic() < end
        time.sleep(0.001)
    raise Cancel("as you wish")


@job
def busy_in_c(path: str) -> None:
    """One call into C that no signal handler of Python interrupts for a very long time."""
    Path(path).write_text(str(os.getpid()))
    sum(range(10**12))


@job
def with_subprocess(pid_file: str, own_pid_file: str, new_session: bool = False) -> None:
    """Starts a program that outlives a plain kill of this process, then waits for ever."""
    program = subprocess.Popen(["sleep", "1000"], start_new_session=new_session)
    Path(own_pid_file).write_text(str(os.getpid()))
    Path(pid_file).write_text(str(program.pid))
    time.sleep(1000)


@job
def die_beside_a_program(pid_file: str) -> None:
    """Dies at the very moment at which a program of its own begins."""
    file = os.open(pid_file, os.O_WRONLY | os.O_CREAT)
    program = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    os.write(file, b"%d" % program.pid)
    os.kill(os.getpid(), signal.SIGKILL)


@job
def leave_subprocess(pid_file: str) -> None:
    """Starts a program and leaves it running."""
    program = subprocess.Popen(["sleep", "1000"])
    Path(pid_file).write_text(str(program.pid))
    program.returncode = 0  # so that Python does not warn of it


@job
def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGSEGV if how == "segv" else signal.SIGKILL)


@job
def say(text: str) -> None:
    print(f"out {text}")
    print(f"err {text}", file=sys.stderr)
    logging.getLogger("shop").warning("log %s", text)
    print("begun", end="")
    thread = threading.Thread(target=print, args=(" by a thread",))
    thread.start()
    thread.join()
    sys.stdout.buffer.write(b"bytes\n")
    print("unended", end="")


@job
def say_slowly(letter: str) -> None:
    for _ in range(50):
        print(letter, end="")
        time.sleep(0.0005)
    print()


@job
def have_children(count: int, fail: bool, ctx: JobContext) -> list[str]:
    ids = [ctx.enqueue(add, number, b=1) for number in range(count)]
    ids.append(ctx.enqueue_json("echo", {"by": "name"}, queue="other", id="a-child"))
    if fail:
        raise ValueError("no children of a failed attempt")
    return ids


@job
def descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return found


@job
def grow(megabytes: int) -> int:
    block = bytearray(megabytes << 20)
    registry.__dict__.setdefault("kept", []).append(block)
    return os.getpid()


@job
def peak_of(seconds: float, path: str) -> int:
    """Returns how many of its kind ran at once in this process."""
    running = registry.__dict__.setdefault("running", [])
    running.append(1)
    count = len(running)
    time.sleep(seconds)
    running.pop()
    return count


@job
def garble() -> None:
    """Writes rubbish into the worker's stream, as only broken native code would."""
    for name in os.listdir("/proc/self/fd"):
        try:
            stream = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with stream:
            if stream.type == socket.SOCK_STREAM:
                stream.sendall(b"\x03\x00\x00\x00\xc1\xc1\xc1")
    time.sleep(1000)


@job
def fork_and_return(ctx: JobContext) -> str:
    """Its child returns from the job's code, too."""
    return "child" if os.fork() == 0 else "parent"


@job
def signals() -> dict[str, str]:
    found = {name: str(signal.getsignal(getattr(signal, name))) for name in ("SIGTERM", "SIGCHLD")}
    found["wakeup"] = str(signal.set_wakeup_fd(-1))
    return found


@job
def with_slow_to_die_subprocess(pid_file: str) -> None:
    """Starts a program whose memory takes the kernel a while to give back."""
    code = "import os, sys, time; block = bytearray(b'x') * (300 << 20);"
    code += "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(1000)"
    subprocess.Popen([sys.executable, "-c", code, pid_file])
    time.sleep(1000)
