"""Descriptors: how many this process may have, and how they are shared out.

Clients of the socket and of HTTP each get a bounded share, so that log, workers, helper and history
always find a free one.  Where they run out all the same (the machine has none
left, or somebody lowered the limit of a running server) that is *pressure*: what wanted one
is refused or put off, and nothing fails.  What cannot be put off, syncing the names of a sealed
segment, has its descriptors from the start (`SystemDisk.keep`).

What may not live here: what is done under pressure, which each caller decides.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from beaver.errors import StoreUnavailable
from beaver.text.foreign import counted

if TYPE_CHECKING:
    import asyncio

log: Final = logging.getLogger("beaver")

WANTED: Final = 65_536
"""The soft limit is raised to this, if the hard limit allows it."""

OWN: Final = 256
"""Descriptors that clients leave to the server where there are enough; else half of all."""

PER_WORKER: Final = 8
"""Bound on the descriptors that a worker takes in the server."""

OWN_MIN: Final = 24
"""Least number for log, archive, helper, history and the zygote, beside what is open at start."""

SOCKETS_MAX: Final = 10_000
"""Connections to the local socket at once."""

HTTP_MAX: Final = 1_000
"""Connections to HTTP at once, unless the setting says otherwise."""
HTTP_CEILING: Final = 50_000
"""More than that a setting cannot ask for."""

SAID_EVERY_S: Final = 60.0
"""Seconds between two lines that say that clients wait for a descriptor."""

CLIENTS_MIN: Final = 8
"""A server that cannot serve this many clients does not start."""


class Shares(NamedTuple):
    """How many connections there may be at once."""

    sockets: int
    http: int


def raise_limit() -> int:
    """Raises the soft limit as far as it may go, up to `WANTED`; returns what holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return WANTED if soft == resource.RLIM_INFINITY else soft


def shares(limit: int, open_now: int, workers: int, http_max: int = HTTP_MAX) -> Shares:
    """Shares out the descriptors that the server does not need itself.

    Args:
        limit: How many this process may have.
        open_now: How many it has.
        workers: Processes of workers that it will have.
        http_max: Connections to HTTP that are wanted: fewer than usual, as usual, or more.

    Raises:
        StoreUnavailable: There are too few to serve anybody, or for more connections than usual.
    """
    own = max(min(OWN, limit // 2), open_now + OWN_MIN + PER_WORKER * workers)
    clients = limit - own
    if clients < CLIENTS_MIN:
        raise StoreUnavailable(
            f"this process may have {limit} descriptors open (ulimit -n), and a server with "
            f"{counted(workers, 'worker')} needs {own + CLIENTS_MIN}; raise the limit, or give "
            "fewer --workers"
        )
    if http_max > max(HTTP_MAX, clients // 2):
        raise StoreUnavailable(
            f"this process may have {limit} descriptors open (ulimit -n), and "
            f"{http_max} connections to HTTP (http_connections) need {own + 2 * http_max}; raise "
            "the limit, or allow fewer"
        )
    http = min(http_max, clients // (3 if http_max <= HTTP_MAX else 2))
    return Shares(min(SOCKETS_MAX, clients - http), http)


def open_now() -> int:
    """Returns how many descriptors this process has open."""
    for listing in (Path("/proc/self/fd"), Path("/dev/fd")):
        with contextlib.suppress(OSError):
            return len(list(listing.iterdir()))
    return 0


def is_pressure(error: BaseException) -> bool:
    """True where an error says that this process, or the machine, has no descriptor left."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def say_in_one_line(loop: asyncio.AbstractEventLoop) -> None:
    """Logs from time to time that a loop cannot accept connections for want of descriptors.

    By itself it shows a traceback for each listening socket and second.
    """
    said_s = -SAID_EVERY_S

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal said_s
        error = context.get("exception")
        if error is None or not is_pressure(error):
            loop.default_exception_handler(context)
        elif loop.time() - said_s >= SAID_EVERY_S:
            said_s = loop.time()
            log.warning("clients wait for a descriptor to connect (ulimit -n): %s", error)

    loop.set_exception_handler(handle)
