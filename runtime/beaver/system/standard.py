"""Standard input, output and error: there in any case, before anything else is opened.

A command may be started with some of descriptors 0 to 2 closed (`beaver run <&-`, a careless
daemon).  The next file or socket that is opened would get such a number: whoever prints then
writes into it, and libraries that rely on the three end the process.  `/dev/null` takes the
free ones, here and in every program that this one starts.
"""

from __future__ import annotations

import os
import sys


def open_standard_descriptors() -> None:
    """Opens `/dev/null` on each of 0, 1 and 2 that is closed.  Call it first."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == fd, "the lowest free number is taken"
            os.set_inheritable(fd, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - stays open
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
