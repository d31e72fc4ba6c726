"""Clocks that a program sees and that a test moves by hand.

`WallClock` moves the wall clock alone, as when somebody sets it; `BothClocks` moves the
monotonic one too.  Linux only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

SHARED: Final = Path("/dev/shm")  # noqa: S108 - where libfaketime leaves its files


def can_fake(*, monotonic: bool) -> str | None:
    """Returns why clocks cannot be faked here, or `None`."""
    if not sys.platform.startswith("linux"):
        return "processes are found in /proc, so clocks jump on Linux only"
    tool = "faketime" if monotonic else "cc"
    return None if shutil.which(tool) else f"{tool} is not installed"


class WallClock:
    """The wall clock that a program sees, moved by hand; see `wall_clock.c`."""

    def __init__(self, directory: Path) -> None:
        """Compiles what is preloaded, into a directory that is made if need be."""
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "clock"
        self._library = directory / "wall_clock.so"
        source = Path(__file__).with_name("wall_clock.c")
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source)]
        subprocess.run(command, check=True)
        self.jump(0)

    def jump(self, offset_s: int) -> None:
        """Sets the clock to so many seconds from the true time, for all processes at once."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.write(descriptor, offset_s.to_bytes(8, sys.byteorder, signed=True))
        finally:
            os.close(descriptor)

    def environment(self) -> dict[str, str]:
        """Returns the variables under which a program and all its children see this clock."""
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._path)}

    def forget(self, pid: int) -> None:
        """Removes what is left of a process that was killed: nothing."""


class BothClocks:
    """Both clocks that a program sees, moved together by libfaketime."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "clocks"
        self.jump(0)

    def jump(self, offset_s: int) -> None:
        """As `WallClock`."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}\n", encoding="ascii")
        fresh.replace(self._path)

    def environment(self) -> dict[str, str]:
        """As `WallClock`."""
        asked = subprocess.run(
            ["faketime", "-m", "-f", "+0", "printenv", "LD_PRELOAD"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
        return {
            "LD_PRELOAD": asked.stdout.strip(),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
        }

    def forget(self, pid: int) -> None:
        """Removes the shared memory of a process that was killed."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            (SHARED / name).unlink(missing_ok=True)
