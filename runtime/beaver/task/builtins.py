"""The built-in tasks: `echo`, and `exec` where the operator allows it.

They take the context alone and read the payload as it was sent.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from beaver.errors import InvalidInput
from beaver.task.context import JobContext
from beaver.task.directives import Dead, Retry
from beaver.task.programs import EXEC, Programs

ECHO: Final = "echo"
OUTPUT_TAIL_BYTES: Final = 4 << 10
"""Bytes of a program's output that its job's result keeps."""

_SLICE_S: Final = 0.05
"""Longest wait in one call: a soft stop reaches Python code only between calls."""
_READ_BYTES: Final = 64 << 10
_SLEEP_MS_MAX: Final = 30 * 86_400_000
_KEPT_VARIABLES: Final = ("BEAVER_STORE", "BEAVER_GENERATION", "BEAVER_WORKER")
"""A job's `env` cannot take these away: leftovers are found by them."""


class BuiltinTask(NamedTuple):
    """A built-in task for one executor."""

    function: Callable[[JobContext], Any]
    is_async: bool


def builtin_tasks(executor: str, programs: Programs) -> dict[str, BuiltinTask]:
    """Returns the built-in tasks by name; waiting costs no thread in the async executor."""
    tasks = {ECHO: BuiltinTask(echo, is_async=False)}
    if executor == "async":
        tasks[ECHO] = BuiltinTask(echo_async, is_async=True)
    if programs:
        tasks[EXEC] = BuiltinTask(partial(run_program, programs), is_async=False)
    return tasks


# -- echo -----------------------------------------------------------------------------------


def echo(context: JobContext) -> msgspec.Raw:
    """Completes with its payload; `sleep_ms` and `fail` in an object make it slow or fail."""
    until = time.monotonic() + _sleep_ms(context) / 1000
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _SLICE_S))
    return msgspec.Raw(context.payload)


async def echo_async(context: JobContext) -> msgspec.Raw:
    """The same for the async executor."""
    import asyncio

    if sleep_ms := _sleep_ms(context):
        await asyncio.sleep(sleep_ms / 1000)
    return msgspec.Raw(context.payload)


def _sleep_ms(context: JobContext) -> float:
    """Returns how long to sleep, or raises where this attempt is one that fails."""
    if not context.payload.lstrip().startswith(b"{"):
        return 0
    payload = msgspec.json.decode(context.payload)
    sleep_ms = _number(payload, "sleep_ms", _SLEEP_MS_MAX)
    if context.attempt <= _number(payload, "fail", float("inf")):
        raise Retry(error=f"attempt {context.attempt} fails, as the payload's `fail` asks")
    return sleep_ms


def _number(payload: Mapping[str, Any], key: str, maximum: float) -> float:
    value = payload.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= maximum:
        raise Dead(f"`{key}` in the payload of {ECHO} must be a number from 0 to {maximum}")
    return value


# -- exec -----------------------------------------------------------------------------------


def run_program(programs: Programs, context: JobContext) -> dict[str, Any]:
    """Runs a program in the worker's process group; its output appears as the job's.

    Raises:
        Dead: The job may not run this program, or its payload is wrong.
        Retry: The program cannot be started, or did not end with 0.
    """
    try:
        program = programs.check(context.payload, context.origin)
    except InvalidInput as error:
        raise Dead(str(error)) from None
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    started_s = time.monotonic()
    try:
        process = subprocess.Popen(
            program.argv,
            cwd=program.cwd,
            env={**os.environ, **program.env, **kept},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except (OSError, ValueError) as error:
        raise Retry(error=f"{program.argv[0]} cannot be started: {error}") from None
    try:
        tail = _show_output(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    code = process.returncode
    text = tail.decode("utf-8", "replace")
    if code != 0:
        how = f"exited with {code}" if code > 0 else f"was killed by signal {-code}"
        raise Retry(error=f"{program.argv[0]} {how}\n{text}".rstrip())
    seconds = round(time.monotonic() - started_s, 3)
    return {"exit": code, "seconds": seconds, "output_tail": text}


def _show_output(process: subprocess.Popen[bytes]) -> bytes:
    """Prints what a program writes until it has ended; returns the end of it.

    A background process of the program may hold the pipe open for ever: what counts is the
    end of the program itself.
    """
    assert process.stdout is not None
    fd = process.stdout.fileno()
    os.set_blocking(fd, False)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    tail = b""
    begun = b""
    while True:
        ended = process.poll() is not None
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            if ended:
                break
            poll.poll(_SLICE_S * 1000)
            continue
        if not data:
            break
        tail = (tail + data)[-OUTPUT_TAIL_BYTES:]
        *lines, begun = (begun + data).split(b"\n")
        for line in lines:
            print(line.decode("utf-8", "backslashreplace"))  # noqa: T201 -- the job's output
        if len(begun) > _READ_BYTES:
            print(begun.decode("utf-8", "backslashreplace"))  # noqa: T201 -- the job's output
            begun = b""
    if begun:
        print(begun.decode("utf-8", "backslashreplace"))  # noqa: T201 -- the job's output
    while process.poll() is None:
        try:
            process.wait(timeout=_SLICE_S)
        except subprocess.TimeoutExpired:
            continue
    return tail
