"""Starting a keeper, waiting for whatever is about to hold a store, asking a keeper to end.

A keeper is a program of its own: nothing of its starter is forked into it, so the starter may
have threads, open descriptors and connections.  It gets a session, no descriptor but the
null device, `/` as its directory, and an environment without Beaver's variables.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from beaver.config.layers import Config
from beaver.errors import BeaverError
from beaver.holder.turn import Turn, try_turn
from beaver.journal.wal.lock import LOCK_WAIT_S
from beaver.transport import endpoint, framing

START_S: Final = 60.0
"""How long a client waits for the recovery of a keeper's store."""
_POLL_S: Final = 0.02
LEAVE_S: Final = 5.0
"""How long a keeper may take to finish what it has accepted."""


def start(config: Config) -> bool:
    """Starts a keeper and returns once it listens, or somebody else does.

    Returns:
        False where no process could be started, so that one has to do without.

    Raises:
        BeaverError: The keeper could not open the store.
    """
    import subprocess

    interpreter = _interpreter()
    if interpreter is None:
        return False
    config = msgspec.structs.replace(config, data=str(Path(config.data).absolute()))
    try:
        process = subprocess.Popen(
            [interpreter, "-P", "-m", "beaver.keeper", config.data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            start_new_session=True,
            cwd="/",
            env=_environment(),
        )
    except OSError:
        return False
    assert process.stdin is not None, "piped"
    assert process.stdout is not None, "piped"
    with process.stdin, process.stdout:
        with contextlib.suppress(OSError):
            process.stdin.write(msgspec.json.encode(config))
            process.stdin.close()
        process.wait()  # It has left its child behind: that one answers.
        told = _read(process.stdout.fileno())
    if not told:
        return False
    for body in framing.FrameReader().feed(told):
        match framing.decode_message(body):
            case [_, 1, [str(name), str(text)]]:
                raise framing.error_named(name, text)
    return True


def _read(descriptor: int) -> bytes:
    """Returns what the keeper says before it hangs up, within `START_S`."""
    import select

    told, until_s = b"", time.monotonic() + START_S
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while poll.poll(max(0.0, until_s - time.monotonic()) * 1000):
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            break
        told += piece
    return told


def take_turn(data: str) -> Turn:
    """Returns the turn for a server, which does not let others start anything meanwhile.

    It only orders starts and protects nothing, so after a while the server starts without it.
    """
    until_s = time.monotonic() + LOCK_WAIT_S
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError):
            if (turn := try_turn(data)) is not None:
                return turn
        time.sleep(_POLL_S)
    return Turn(-1)


def _interpreter() -> str | None:
    """Returns the Python to run; a server of applications may have put itself in its place."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, f"{sys.prefix}/bin/{version}", f"{sys.base_prefix}/bin/{version}"):
        if path and Path(path).name.startswith("python") and os.access(path, os.X_OK):
            return path
    return None


def _environment() -> dict[str, str]:
    """Returns the environment of a keeper: it imports what we import, and bears no marks."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BEAVER_")}
    kept["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    return kept


def ask_to_leave(data: str) -> None:
    """Asks a keeper that holds `data` to end; returns when it has hung up.

    Nothing happens where none does, or where a server holds it.
    """
    try:
        reached = endpoint.reach(data)
    except BeaverError:
        return
    if reached is None:
        return
    connection, greeting, _ = reached
    with connection, contextlib.suppress(OSError):
        if greeting.keeper:
            connection.settimeout(LEAVE_S)
            connection.sendall(framing.encode_frame([1, "leave", []]))
            while connection.recv(1 << 12):
                pass
            connection.shutdown(socket.SHUT_RDWR)
