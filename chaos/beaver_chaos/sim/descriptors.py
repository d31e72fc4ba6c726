"""Real sockets of simulated processes: who is called once one of them can be read or written.

All ends are in one process of the real machine, and what was written is there at once.  So the
kernel's answer is the same in every run, and only when a process hears of it is drawn.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Final, Protocol

_GONE: Final = select.POLLHUP | select.POLLERR


class _Process(Protocol):
    """A process of the simulated machine."""

    alive: bool


class _Calls(Protocol):
    """Lets a process do something after a while; `SimLoop.call_in`."""

    def __call__(
        self, process: Any, delay_ns: int, callback: Callable[..., object], *args: Any
    ) -> object: ...


class _Watched:
    """A callback of a process for a descriptor."""

    __slots__ = ("announced", "args", "callback", "process")

    def __init__(self, process: _Process, callback: Callable[..., object], args: Any) -> None:
        self.process, self.callback, self.args = process, callback, args
        self.announced = False
        """The process will be called, and has not been yet."""


class Descriptors:
    """The descriptors that a loop watches."""

    def __init__(self, call_in: _Calls) -> None:
        """Watches none yet."""
        self._call_in = call_in
        self._poll = select.poll()
        self._watched: dict[tuple[int, int], _Watched] = {}
        self.latency_ns: Callable[[], int] = lambda: 0
        """Draws how long it takes until a process hears of it."""

    def add(
        self, process: _Process, fd: Any, event: int, callback: Callable[..., object], args: Any
    ) -> None:
        """Calls back in a process whenever a descriptor is ready."""
        number = fd if isinstance(fd, int) else fd.fileno()
        self._watched.pop((number, event), None)
        self._watched[number, event] = _Watched(process, callback, args)
        self._arm(number)

    def remove(self, fd: Any, event: int) -> bool:
        """Ends it; a descriptor that is closed already was nobody's any more."""
        number = fd if isinstance(fd, int) else fd.fileno()
        found = self._watched.pop((number, event), None)
        if found is not None:
            self._arm(number)
        return found is not None

    def look(self) -> None:
        """Tells whom it concerns what is ready now."""
        if not self._watched:
            return
        found = dict(self._poll.poll(0))
        if not found:
            return
        for (number, event), watched in list(self._watched.items()):
            events = found.get(number, 0)
            if not watched.process.alive or events & select.POLLNVAL:
                self.remove(number, event)
            elif events & (event | _GONE) and not watched.announced:
                watched.announced = True
                delay_ns = self.latency_ns()
                self._call_in(watched.process, delay_ns, self._tell, number, event, watched)

    def _tell(self, number: int, event: int, watched: _Watched) -> None:
        watched.announced = False
        if self._watched.get((number, event)) is watched:
            watched.callback(*watched.args)

    def _arm(self, number: int) -> None:
        mask = 0
        for event in (select.POLLIN, select.POLLOUT):
            mask |= event if (number, event) in self._watched else 0
        if mask:
            self._poll.register(number, mask)
        else:
            try:
                self._poll.unregister(number)
            except KeyError:
                return
