"""What each worker of a pool has started, as its slot says it, and slots that lie.

User code shares a process with its slot and can write anything there.  So a slot is believed
only where it says what may be: a token above the last one, and of an attempt that was sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from beaver.workers.mailbox import Mailbox
from beaver.workers.slots import Slots, SlotsCut


class Starts:
    """Reads the slots of a pool's workers; ends a worker whose slot was overwritten."""

    def __init__(
        self, slots: Slots, mailboxes: Mapping[int, Mailbox], broken: Callable[[Mailbox, str], None]
    ) -> None:
        """Begins to read.

        Args:
            slots: Shared by the pools of a server.
            mailboxes: The workers of this pool that live, by number.
            broken: Called for a worker that has to be killed, with the reason.
        """
        self._slots, self._mailboxes, self._broken = slots, mailboxes, broken
        slots.users.append(self.lose_all)

    def of(self, worker: int) -> tuple[int, int]:
        """Returns the highest token that a worker has started, and since when."""
        mailbox = self._mailboxes.get(worker)
        before = self._slots.last.get(worker, 0)
        if mailbox is None:
            return before, 0
        if mailbox.slot_lost is not None:
            return mailbox.slot_lost
        try:
            slot = self._slots.read(worker)
        except SlotsCut:
            lost = self._lose(mailbox)
            self._slots.restore()
            return lost
        if slot.started != before:
            if not before < slot.started <= mailbox.highest:
                return self._lose(mailbox)
            self._slots.last[worker] = slot.started
            mailbox.useful = True
        return slot.started, slot.since_ns

    def _lose(self, mailbox: Mailbox) -> tuple[int, int]:
        """Ends a worker whose slot was overwritten by user code.

        Attempts whose permits it has read count as started; the others are taken back.
        """
        mailbox.recall()
        started = max(mailbox.highest, self._slots.last.get(mailbox.worker, 0))
        self._slots.last[mailbox.worker] = started
        mailbox.slot_lost = (started, time.monotonic_ns())
        self._broken(mailbox, "its slot was overwritten: what it has started is not known")
        return mailbox.slot_lost

    def lose_all(self) -> None:
        """The slots were cut by somebody: no worker can be believed."""
        for mailbox in self._mailboxes.values():
            if mailbox.slot_lost is None:
                self._lose(mailbox)

    def close(self) -> None:
        """Ends the use of the slots; the last pool that uses them closes the file."""
        self._slots.users.remove(self.lose_all)
        self._slots.close()
