"""What all connections to the socket may hold in memory together.

Each connection has bounds of its own, and a thousand of them would still be gigabytes.  So
they share two budgets:

- *answers*: those that wait for a commit, those that a client does not read, and requests that
  have no answer yet.  While it is used up nobody's requests are taken; where clients that do
  not read have used it up, the ones that hold most are hung up on.
- *frames*: what has come of frames that are not whole.  A frame that does not fit waits, in
  order, and its client is not read.  While one waits, frames that come too slowly are cut off,
  so nobody can keep the others waiting by sending halves.

Every method belongs to the loop's thread.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

ANSWERS_BYTES_MAX: Final = 256 << 20
"""Answers that are not sent or not read yet, of all connections, with requests under way."""

FRAMES_BYTES_MAX: Final = 128 << 20
"""Frames that have begun and are not whole, of all connections."""

FRAME_BYTES_FREE: Final = 16 << 10
"""A frame of up to this size takes no share of that."""

UNREAD_BYTES_FREE: Final = 16 << 10
"""Unread answers of up to this size take no share."""

REQUEST_BYTES: Final = 512
"""Charged for a request that has no answer yet."""

FRAME_GRACE_S: Final = 2.0
"""Seconds that any frame may take, also while others wait for room."""

FRAME_BYTES_S: Final = 4 << 20
"""Bytes a second at which a frame has to arrive after that, while others wait for room."""

WAITS_MAX: Final = 32_768
"""Waits for the end of a job that one connection may have open."""

WAITS_ALL_MAX: Final = 131_072
"""The same for all connections."""

_LOOK_S: Final = 0.5


class Member(Protocol):
    """A connection, as a budget sees it."""

    @property
    def unread_bytes(self) -> int:
        """Answers that the client has not read."""
        ...

    def go_on(self) -> None:
        """Takes requests again, after the budget kept it waiting."""
        ...

    def cut_off(self, why: str) -> None:
        """Hangs up at once."""
        ...


class Answers:
    """The budget of answers.

    Nobody tells when a transport has sent what it was given.  So that counts until it makes up
    half of all, and then it is counted anew.
    """

    def __init__(self, bytes_max: int = ANSWERS_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.total = 0
        self._unread: dict[Member, int] = {}
        """What stood in the transport of each when it was counted last."""
        self._unread_total = 0
        self._waiting: dict[Member, None] = {}

    def charge(self, size: int) -> None:
        """Counts answers that are computed, or, less than zero, told or dropped."""
        self.total += size
        if size < 0 and self._waiting and self.total < self.bytes_max:
            self._wake()

    def left_unread(self, member: Member, size: int) -> None:
        """Counts what stands in a client's transport now."""
        grown = size - self._unread.get(member, 0)
        self._unread[member] = size
        self._unread_total += grown
        self.total += grown
        if self._unread_total >= self.bytes_max // 2:
            self._recount()

    def forget(self, member: Member) -> None:
        """A connection is lost."""
        self._waiting.pop(member, None)
        size = self._unread.pop(member, 0)
        self._unread_total -= size
        self.charge(-size)

    def admits(self, member: Member) -> bool:
        """True where a request may be taken now; else the member is told when it may."""
        if self.total < self.bytes_max:
            return True
        self._waiting[member] = None
        return False

    def _recount(self) -> None:
        """Counts what clients have not read; where that is too much, hangs up on the worst."""
        before = self._unread_total
        unread = {member: member.unread_bytes for member in self._unread}
        self._unread = {member: size for member, size in unread.items() if size}
        self._unread_total = sum(unread.values())
        for member in sorted(self._unread, key=unread.__getitem__, reverse=True):
            if self._unread_total < self.bytes_max // 2:
                break
            self._unread_total -= self._unread.pop(member)
            member.cut_off("it does not read its answers, and others need the room")
        self.charge(self._unread_total - before)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for member in waiting:
            asyncio.get_running_loop().call_soon(member.go_on)


class Frames:
    """The budget of frames that are not whole."""

    def __init__(self, bytes_max: int = FRAMES_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.total = 0
        self._held: dict[Member, tuple[int, float]] = {}
        """Size, and since when."""
        self._waiting: dict[Member, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def take(self, member: Member, size: int, *, arrived: bool = False) -> bool:
        """Takes room for a frame that has begun, until `give_back`.

        Args:
            member: Whose frame it is.
            size: All of it, as announced.
            arrived: It is here already, whatever room there is.

        Returns:
            False where there is none: the member is told once it has got it.
        """
        if member in self._waiting:
            return False
        held, _ = self._held.get(member, (0, 0.0))
        if held == size:
            return True
        self._drop(member)
        if not arrived and (self._waiting or self.total + size > self.bytes_max):
            self._waiting[member] = size
            self._watch()
            return False
        self._hold(member, size)
        return True

    def give_back(self, member: Member) -> None:
        """The frame is whole, or its connection lost."""
        if self._waiting.pop(member, None) is None and member not in self._held:
            return
        self._drop(member)
        self._serve()

    def _hold(self, member: Member, size: int) -> None:
        self._held[member] = size, asyncio.get_running_loop().time()
        self.total += size

    def _drop(self, member: Member) -> None:
        size, _ = self._held.pop(member, (0, 0.0))
        self.total -= size

    def _serve(self) -> None:
        """Gives room to those who wait, in order."""
        while self._waiting:
            member, size = next(iter(self._waiting.items()))
            if self.total + size > self.bytes_max:
                return
            del self._waiting[member]
            self._hold(member, size)
            asyncio.get_running_loop().call_soon(member.go_on)

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        """Cuts off what comes too slowly, while others wait."""
        self._timer = None
        if not self._waiting:
            return
        now_s = asyncio.get_running_loop().time()
        for member, (size, since_s) in list(self._held.items()):
            if now_s - since_s > FRAME_GRACE_S + size / FRAME_BYTES_S:
                member.cut_off("its request comes too slowly, and others wait for the room")
                self.give_back(member)
        if self._waiting:
            self._watch()


class Budget:
    """Both, and the number of waits."""

    def __init__(
        self, answers_max: int = ANSWERS_BYTES_MAX, frames_max: int = FRAMES_BYTES_MAX
    ) -> None:
        self.answers, self.frames = Answers(answers_max), Frames(frames_max)
        self.waits = 0
