"""How a commit is written, chosen by the recent cost of syncs: on the loop, or by a writer process.

While the disk is fast a commit is written on the loop: nothing is faster.  Where syncs take
over a millisecond or so the loop would stand still for too long, and a writer process does
it.  The choice is made from measured syncs, at start and all the time, with hysteresis.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from beaver.ports import DirectoryLock, File, LogWriter, Written

_log: Final = logging.getLogger("beaver")

SLOW_S: Final = 0.0015
"""A median above this goes beside the loop."""
FAST_S: Final = 0.0007
"""A median below this goes back to the loop."""
WINDOW: Final = 33
"""Syncs that the median is taken over."""


class CommitPath:
    """Chooses the way of each commit.  Used by the log only."""

    def __init__(
        self, make_writer: Callable[[DirectoryLock], LogWriter] | None = None, choice: str = "auto"
    ) -> None:
        """Notes what there is to choose from; nothing is started.

        Args:
            make_writer: Starts a writer process, which holds the lock with us; `None` where there
                can be none.
            choice: `auto`, `inline` or `writer`.
        """
        self._make_writer = make_writer
        self._choice = choice
        self._writer: LogWriter | None = None
        self._is_told = False
        """True after it was logged that no writer can be started."""
        self._seconds: list[float] = []
        self.beside_the_loop = make_writer is not None and choice == "writer"
        """The next commit goes to the writer process."""

    @property
    def name(self) -> str:
        """`inline` or `writer`."""
        return "writer" if self.beside_the_loop else "inline"

    def observe(self, seconds: float) -> None:
        """Notes what a write with its sync took, wherever it was done."""
        self._seconds.append(seconds)
        if len(self._seconds) < WINDOW:
            return
        median_s = sorted(self._seconds)[WINDOW // 2]
        self._seconds.clear()
        if self._choice == "auto" and self._make_writer is not None:
            limit_s = FAST_S if self.beside_the_loop else SLOW_S
            self.beside_the_loop = median_s > limit_s

    def is_ready(self, hold: DirectoryLock) -> bool:
        """True once there is a writer process; it is started when it is first needed.

        One that has died since its last frame is replaced: nothing of the next one reached it.
        Where none can be started now, for want of descriptors or processes, the next commits
        are written on the loop.

        Args:
            hold: The lock on the directory, which the process holds with us.
        """
        if self._writer is not None and self._writer.lost:
            _log.warning("the log's writer process has died and is replaced")
            self.close()
        if self._writer is None:
            assert self._make_writer is not None, "only asked for where there can be one"
            try:
                self._writer = self._make_writer(hold)
            except OSError as error:
                if not self._is_told:
                    self._is_told = True
                    _log.warning(
                        "the log's writer process cannot be started (%s); commits are written "
                        "on the loop until it can",
                        error.strerror or error,
                    )
                return False
            self._is_told = False
        return True

    def write(self, file: File, frame: bytes, offset: int, done: Written) -> None:
        """Hands a frame to the writer process, which `is_ready`."""
        assert self._writer is not None, "it is ready"
        self._writer.write(file, frame, offset, done)

    def wait(self) -> None:
        """Blocks until the frame under way is written and its `done` was called."""
        assert self._writer is not None, "a frame is under way"
        self._writer.wait()

    def close(self) -> None:
        """Ends the writer process, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
