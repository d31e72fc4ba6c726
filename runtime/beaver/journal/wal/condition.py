"""Whether this process may still write a log, and if not, why.

A failed write or sync, and a log that was taken away, are for good: what memory, page cache
and disk hold may differ.
"""

from __future__ import annotations

from typing import NoReturn

from beaver.errors import LogLost, StorageFailed


class Condition:
    """Usable, until a reason says otherwise."""

    def __init__(self) -> None:
        self.unusable: str | None = None
        """Why nothing may be written any more."""

    def refuse(self) -> None:
        """Raises `StorageFailed` where the log is not usable."""
        if self.unusable is not None:
            raise StorageFailed(self.unusable)

    def fail(self, doing: str, path: str, error: OSError) -> NoReturn:
        """Makes the log useless, since something was not done.

        Args:
            doing: What was to be done, as "syncing the names".
            path: To which file or directory.
            error: What came of it.

        Raises:
            StorageFailed: Always.
        """
        self.unusable = (
            f"the log cannot be written: {path}: {doing}: {error.strerror or error}\n"
            "This process must end; check the disk, then start again: recovery keeps "
            "everything that was acknowledged."
        )
        raise StorageFailed(self.unusable) from error

    def lose(self, told: str) -> NoReturn:
        """Makes the log useless, since its file is gone, replaced or cut.

        Raises:
            LogLost: Always.
        """
        self.unusable = told
        raise LogLost(told)
