"""A real file system whose power can be cut: an image file behind a loop device.

The cut is the shutdown call that ext4 and XFS have for this: from that instant nothing
reaches the device any more, and what only the page cache or the journal in memory held is
gone with the next mount, which replays the journal as after a real loss of power.  The image
itself lies on a file system that goes on, which stands for the platter: what was handed to
the device is kept, so a write cache that lies about its flushes is not tried.

Whatever happens, the file system is unmounted and the loop device is free again at the end.
The next run removes what a killed run leaves.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from beaver_chaos.program.process import PromiseBroken

_SHUTDOWN: Final = 0x8004587D
"""`_IOR('X', 125, __u32)`: EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN."""
_PREFIX: Final = "beaver-power-"
_UNMOUNT_S: Final = 10.0
_PAUSE_S: Final = 0.01


class FileSystem(NamedTuple):
    """One way to make and mount a file system."""

    name: str
    type: str
    make: Sequence[str]
    """The command that makes it, without the image."""
    check: Sequence[str]
    """The command that looks for damage and repairs nothing, without the image."""
    image_bytes: int
    options: Sequence[str] = ()


EXT4: Final = FileSystem(
    name="ext4",
    type="ext4",
    make=("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    check=("e2fsck", "-f", "-n"),
    image_bytes=64 << 20,
)
EXT4_NO_AUTO: Final = EXT4._replace(name="ext4 noauto_da_alloc", options=("noauto_da_alloc",))
"""Without the crutch that writes a file out when it is renamed over another."""
XFS: Final = FileSystem(
    name="XFS",
    type="xfs",
    make=("mkfs.xfs", "-q", "-f"),
    check=("xfs_repair", "-f", "-n"),
    image_bytes=320 << 20,  # mkfs.xfs makes nothing below 300 MB; the file is sparse.
)
FILE_SYSTEMS: Final = (EXT4, EXT4_NO_AUTO, XFS)


class Flush(NamedTuple):
    """What happens to the journal in memory when the power fails."""

    name: str
    value: int


NO_FLUSH: Final = Flush("the journal in memory is lost", 2)
FLUSH: Final = Flush("the journal in memory is written out first, without the data", 1)


def can_cut() -> str | None:
    """Returns why no power can be cut here, or `None`."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "images are mounted by root on Linux only"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    tools = ["mount", "umount"]
    tools += [fs.make[0] for fs in FILE_SYSTEMS] + [fs.check[0] for fs in FILE_SYSTEMS]
    missing = [tool for tool in dict.fromkeys(tools) if _which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


@contextlib.contextmanager
def power_disk(file_system: FileSystem, directory: Path) -> Iterator[PowerDisk]:
    """Makes a file system in an image in `directory` and mounts it at `directory/data`.

    Raises:
        OSError: It cannot be made or mounted here, root or not.
    """
    clear_leftovers()
    image = directory / f"{_PREFIX}{os.getpid()}.img"
    with image.open("xb") as file:
        # Held as long as we live: an image that nobody holds is a killed run's.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(file_system.image_bytes)
        disk = PowerDisk(file_system, image, directory / "data")
        try:
            _run([*file_system.make, str(image)])
            disk.mount()
            yield disk
        finally:
            disk.put_away()


class PowerDisk:
    """One file system, mounted again after each cut."""

    def __init__(self, file_system: FileSystem, image: Path, path: Path) -> None:
        self.file_system = file_system
        self.path = path
        """Where it is mounted."""
        self._image = image

    def mount(self) -> None:
        """Mounts it; after a cut the file system replays its journal."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        options = ",".join(["loop", *self.file_system.options])
        _run(
            ["mount", "-t", self.file_system.type, "-o", options, str(self._image), str(self.path)]
        )
        self.path.chmod(0o700)

    def cut(self, flush: Flush = NO_FLUSH) -> None:
        """Cuts the power: what is not on the device now never comes there."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(directory, _SHUTDOWN, struct.pack("I", flush.value))
        finally:
            os.close(directory)

    def unmount(self) -> None:
        """Unmounts it once nobody uses it any more; the loop device goes with it.

        Raises:
            OSError: It is used for too long.
        """
        deadline_s = time.monotonic() + _UNMOUNT_S
        while True:
            try:
                return _run(["umount", str(self.path)])
            except OSError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(_PAUSE_S)

    def refuse_damage(self) -> None:
        """Lets the file system's own checker look for damage; it must not be mounted.

        Raises:
            PromiseBroken: The file system is damaged, which no program may bring about.
        """
        try:
            _run([*self.file_system.check, str(self._image)])
        except OSError as error:
            raise PromiseBroken(f"the file system is damaged: {error}") from None

    def put_away(self) -> None:
        """Unmounts it however it stands, and removes the image."""
        for mount in _mounts():
            if mount.path == self.path:
                mount.clear_away()
        self._image.unlink(missing_ok=True)


# -- what a killed run leaves -----------------------------------------------------------------


class _Mount(NamedTuple):
    """An image of ours that is mounted."""

    path: Path
    device: str
    image: Path
    """Where the image is, or was."""

    def clear_away(self) -> None:
        """Kills who holds it, and takes it away even if somebody cannot be killed."""
        for pid in _holders(self.path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            _run(["umount", "--lazy", str(self.path)])

    def is_left(self) -> bool:
        """True where the run that mounted it is gone."""
        try:
            with self.image.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        return True


def clear_leftovers() -> int:
    """Clears away what killed runs have left; returns how many file systems that were."""
    left = [mount for mount in _mounts() if mount.is_left()]
    for mount in left:
        mount.clear_away()
        mount.image.unlink(missing_ok=True)
    return len(left)


def _mounts() -> list[_Mount]:
    found = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        device, path, *_ = line.split(" ")
        if not device.startswith("/dev/loop"):
            continue
        backing = Path("/sys/block", Path(device).name, "loop/backing_file")
        with contextlib.suppress(OSError):
            image = Path(backing.read_text(encoding="utf-8").strip().removesuffix(" (deleted)"))
            if image.name.startswith(_PREFIX):
                found.append(_Mount(Path(path.replace("\\040", " ")), device, image))
    return found


def _holders(path: Path) -> list[int]:
    """Returns the processes with a file open, or a mapping, below a path; not ourselves."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            held = [os.readlink(link) for link in (process / "fd").iterdir()]  # noqa: PTH115
            maps = (process / "maps").read_text(encoding="utf-8", errors="replace")
            if f" {path}/" in maps or any(f"{name}/".startswith(f"{path}/") for name in held):
                found.append(int(process.name))
    return found


def _which(tool: str) -> str | None:
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _run(command: list[str]) -> None:
    """Runs a tool of the system.

    Raises:
        OSError: It did not end with 0; its words are the error's.
    """
    program = _which(command[0])
    if program is None:
        raise OSError(errno.ENOENT, f"{command[0]} is not installed")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip())[-500:]
        raise OSError(errno.EIO, f"{' '.join(command)}: {words}")
