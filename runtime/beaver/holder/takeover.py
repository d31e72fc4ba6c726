"""Taking a store over from the server that holds it: `beaver run --takeover`.

The application is imported already.  The other server is asked to leave: it takes no more
jobs to its workers, lets those that run end, within its own grace, and goes on taking in what
clients enqueue meanwhile. It does the slow part of its end before it closes its sockets, so clients
wait only a moment between its last answer and our first.

What may not live here: how a store is owned (`journal`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from beaver.errors import BeaverError
from beaver.journal.wal.lock import holder_of
from beaver.transport import endpoint, framing

log = logging.getLogger("beaver")
T = TypeVar("T")

_POLL_S: Final = 0.01


async def take_over(attempt: Callable[[], T | None], data: str, stop: asyncio.Event) -> T | None:
    """Returns what is had only by whoever holds a store, however long its holder takes to leave.

    Args:
        attempt: Tries once to own it; returns `None` where another process does.
        data: The directory, which exists.
        stop: Ends the wait.

    Returns:
        `None` where `stop` was set first.

    Raises:
        BeaverError: As `attempt`.
        DiskFull: There is no room for another server; its holder was not asked.
    """
    owned = attempt()
    if owned is None:
        endpoint.check_room(data)  # Before anybody leaves for a server that cannot start.
    asked = ""
    while owned is None:
        holder = holder_of(data)
        if holder != asked and await asyncio.to_thread(ask_to_leave, data, holder):
            asked = holder
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await stop.wait()
                return None
        owned = attempt()
    return owned


def ask_to_leave(data: str, holder: str) -> bool:
    """Asks the server of a directory to leave; false where it cannot be reached yet."""
    try:
        reached = endpoint.reach(data)
    except BeaverError as error:
        log.warning("the server that holds %s cannot be asked to leave: %s", data, error)
        return True
    if reached is None:
        return False
    connection, greeting, _ = reached
    with connection:
        connection.settimeout(endpoint.CONNECT_S)
        try:
            connection.sendall(framing.encode_frame([1, "leave", []]))
            frames = framing.FrameReader()
            bodies: list[bytes] = []
            while not bodies and (data_in := connection.recv(1 << 16)):
                bodies = list(frames.feed(data_in))
        except OSError:
            return False
    if greeting.keeper:
        log.info("the keeper of %s makes way", data)
    elif bodies and framing.decode_answer(bodies[0])[1]:
        log.warning(
            "%s does not know how to leave (an older release?): stop it; it is waited for", holder
        )
    else:
        log.warning("taking over from %s: it is waited for while its jobs end", holder)
    return True
