"""The simulated disk behaves as the real one, until the power goes; then as the rules say."""

from __future__ import annotations

import errno
import itertools
import random
import shutil
import tempfile
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from beaver.ports import Disk, File
from beaver.system.disk import SystemDisk
from beaver_chaos.sim.disk import Fault, SimDisk, SimFile, Stopped
from beaver_chaos.sim.platter import BLOCK_BYTES

T = TypeVar("T")
NAMES = st.sampled_from(["a", "b", "sub/c", "sub/d", "sub", "missing/e"])
DATA = st.binary(max_size=3 * BLOCK_BYTES)
OFFSETS = st.integers(0, 4 * BLOCK_BYTES)


class Agreement(RuleBasedStateMachine):
    """Drives both disks with the same calls and compares what they answer."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp()
        self.sim = SimDisk("root")
        self.real = SystemDisk()
        self.files: dict[str, tuple[File, File]] = {}

    def teardown(self) -> None:
        for sim, real in self.files.values():
            sim.close()
            real.close()
        shutil.rmtree(self.root)

    def both(self, call: Callable[[Disk, str], T]) -> tuple[T | int | None, T | int | None]:
        """Runs a call on both; returns the results, or the one errno that both raised."""

        def answer(disk: Disk, root: str) -> T | int | None:
            try:
                return call(disk, root)
            except OSError as error:
                return error.errno

        return answer(self.sim, "root"), answer(self.real, self.root)

    def agree(self, call: Callable[[Disk, str], object]) -> None:
        sim, real = self.both(call)
        assert sim == real

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        self.keep(name, self.both(lambda d, r: d.open(f"{r}/{name}", create=True)))

    @rule(name=NAMES, write=st.booleans())
    def open(self, name: str, write: bool) -> None:
        if self.sim.exists(f"root/{name}") and name == "sub":
            return  # A directory can be opened for reading only by the real one.
        self.keep(name, self.both(lambda d, r: d.open(f"{r}/{name}", write=write)))

    def keep(self, name: str, opened: tuple[File | int | None, File | int | None]) -> None:
        sim, real = opened
        if sim is None or isinstance(sim, int) or real is None or isinstance(real, int):
            assert sim == real
            return
        old = self.files.pop(name, None)
        for file in old or ():
            file.close()
        self.files[name] = (sim, real)

    @rule(name=NAMES, data=DATA, offset=OFFSETS, durable=st.booleans())
    def write(self, name: str, data: bytes, offset: int, durable: bool) -> None:
        answers: list[object] = []
        for file in self.files.get(name, ()):
            try:
                if durable:
                    file.pwrite_durable(data, offset)
                else:
                    file.pwrite(data, offset)
                answers.append("written")
            except OSError as error:
                answers.append(error.errno)
        assert len(set(answers)) <= 1

    @rule(name=NAMES, size=OFFSETS)
    def truncate(self, name: str, size: int) -> None:
        answers: list[object] = []
        for file in self.files.get(name, ()):
            try:
                file.truncate(size)
                answers.append("cut")
            except OSError as error:
                # The real one says EINVAL of a descriptor that may not write.
                answers.append(errno.EBADF if error.errno == errno.EINVAL else error.errno)
        assert len(set(answers)) <= 1

    @rule(name=NAMES, size=OFFSETS, offset=OFFSETS)
    def read(self, name: str, size: int, offset: int) -> None:
        assert len({file.pread(size, offset) for file in self.files.get(name, ())}) <= 1

    @rule(name=NAMES, size=OFFSETS)
    def is_kept(self, name: str, size: int) -> None:
        assert len({file.is_kept(size) for file in self.files.get(name, ())}) <= 1

    @rule(name=NAMES, other=NAMES)
    def lock(self, name: str, other: str) -> None:
        """A lock is of the file: two descriptors of one file exclude each other."""
        assert len({file.lock() for file in self.files.get(name, ())}) <= 1
        if name in self.files:
            self.agree(lambda d, r: self.is_free(d, f"{r}/{other}"))

    def is_free(self, disk: Disk, path: str) -> bool:
        file = disk.open(path)
        try:
            return file.lock()
        finally:
            file.close()

    @rule(name=NAMES, other=NAMES)
    def names(self, name: str, other: str) -> None:
        """What a name stands for is told by name and by descriptor alike."""
        if name in self.files:
            sim, real = self.files[name]
            self.agree(
                lambda d, r: d.identity(f"{r}/{other}") == (sim if r == "root" else real).identity()
            )

    @rule(name=NAMES)
    def sync(self, name: str) -> None:
        for file in self.files.get(name, ()):
            file.sync()

    @rule(name=st.sampled_from(["sub", "a"]))
    def mkdir(self, name: str) -> None:
        if name == "a" and not self.sim.exists("root/a"):
            return  # The only directory is `sub`; over a file both must refuse.
        self.agree(lambda d, r: d.mkdir(f"{r}/{name}"))

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        if "sub" not in {old, new}:
            self.agree(lambda d, r: d.rename(f"{r}/{old}", f"{r}/{new}"))

    @rule(old=NAMES, new=NAMES)
    def link(self, old: str, new: str) -> None:
        if old != "sub":
            self.agree(lambda d, r: d.link(f"{r}/{old}", f"{r}/{new}"))

    @rule(name=NAMES)
    def unlink(self, name: str) -> None:
        if name != "sub":
            self.agree(lambda d, r: d.unlink(f"{r}/{name}"))

    @rule(one=NAMES, other=NAMES)
    def same_file(self, one: str, other: str) -> None:
        self.agree(lambda d, r: d.same_file(f"{r}/{one}", f"{r}/{other}"))

    @rule(one=NAMES, other=NAMES)
    def identity(self, one: str, other: str) -> None:
        """It is the same for two names of one thing, and for nothing else."""
        self.agree(lambda d, r: d.identity(f"{r}/{one}") == d.identity(f"{r}/{other}"))

    @rule(name=st.sampled_from(["sub", ""]))
    def sync_dir(self, name: str) -> None:
        if not name or self.sim.exists(f"root/{name}"):
            self.agree(lambda d, r: d.sync_dir(f"{r}/{name}".rstrip("/")))

    @invariant()
    def names_agree(self) -> None:
        self.agree(lambda d, r: d.listdir(r))
        self.agree(lambda d, r: d.exists(f"{r}/sub") and d.listdir(f"{r}/sub"))

    @invariant()
    def sizes_agree(self) -> None:
        for sim, real in self.files.values():
            assert sim.size() == real.size()


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=60)


# -- what a crash does -------------------------------------------------------------------------


def nothing(_: int) -> int:
    return 0


def everything(n: int) -> int:
    return min(1, n - 1)


def one_file() -> tuple[SimDisk, SimFile]:
    disk = SimDisk("d")
    file = disk.open("d/f", create=True)
    file.pwrite(b"old" * 700, 0)
    file.sync()
    disk.sync_dir("d")
    return disk, file


def test_unsynced_blocks_survive_in_every_subset() -> None:
    seen = set()
    for seed in range(200):
        disk, file = one_file()
        file.pwrite(b"n" * 4 * BLOCK_BYTES, 0)
        disk.crash(random.Random(seed).randrange)
        content = disk.contents("d/f")
        seen.add(tuple(content[n * BLOCK_BYTES] == ord("n") for n in range(4)))
    assert seen == set(itertools.product([False, True], repeat=4))


def test_synced_bytes_survive_whatever_else_is_lost() -> None:
    disk, file = one_file()
    file.pwrite(b"unsynced", 0)
    file.pwrite_durable(b"synced", 1_000)
    disk.crash(nothing)
    assert disk.contents("d/f")[:8] == (b"old" * 3)[:8]
    assert disk.contents("d/f")[1_000:1_006] == b"synced"


def test_durable_write_beyond_the_end_keeps_its_size() -> None:
    disk, file = one_file()
    file.pwrite_durable(b"x", 10_000)
    disk.crash(nothing)
    assert len(disk.contents("d/f")) == 10_001


def test_size_is_kept_or_lost_with_zero_bytes_where_blocks_are_lost() -> None:
    sizes = set()
    for seed in range(50):
        disk, file = one_file()
        file.pwrite(b"n" * 2_000, 2_100)
        disk.crash(random.Random(seed).randrange)
        content = disk.contents("d/f")
        sizes.add(len(content))
        assert not content[2_100:].strip(b"n\0")
    assert sizes == {2_100, 4_100}


def test_names_survive_only_with_their_directory_synced() -> None:
    disk = SimDisk("d")
    file = disk.open("d/f", create=True)
    file.pwrite_durable(b"x", 0)
    disk.crash(nothing)
    assert not disk.exists("d/f")
    file = disk.open("d/f", create=True)
    file.pwrite_durable(b"x", 0)
    disk.sync_dir("d")
    disk.crash(nothing)
    assert disk.contents("d/f") == b"x"


def test_rename_happens_whole_or_not_at_all() -> None:
    outcomes = set()
    for seed in range(50):
        disk = SimDisk("d")
        disk.put("d/old", b"o")
        disk.put("d/new", b"n")
        disk.rename("d/new", "d/old")
        disk.crash(random.Random(seed).randrange)
        outcomes.add((disk.contents("d/old"), disk.exists("d/new")))
    assert outcomes == {(b"o", True), (b"n", False)}


def test_file_in_a_directory_that_is_lost_is_lost() -> None:
    disk = SimDisk("d")
    disk.mkdir("d/sub")
    disk.open("d/sub/f", create=True).pwrite_durable(b"x", 0)
    disk.sync_dir("d/sub")
    disk.crash(nothing)
    assert disk.listdir("d") == []
    assert not disk.exists("d/sub/f")


def test_failed_sync_loses_what_a_later_sync_claims_to_have_written() -> None:
    disk, file = one_file()
    file.pwrite(b"new", 0)
    disk.plan(disk.operations + 1, Fault(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        file.sync()
    file.sync()
    assert file.pread(3, 0) == b"new", "the page cache still has it"
    disk.crash(nothing)
    assert disk.contents("d/f")[:3] == b"old"


def test_eviction_shows_what_a_failed_sync_has_lost() -> None:
    disk, file = one_file()
    file.pwrite(b"new", 0)
    disk.plan(disk.operations + 1, Fault(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        file.sync()
    disk.evict(nothing)
    assert file.pread(3, 0) == b"old"


def test_kill_keeps_the_page_cache_and_drops_descriptors_and_locks() -> None:
    disk, file = one_file()
    file.pwrite(b"new", 0)
    assert disk.lock("d/LOCK") is not None
    assert disk.lock("d/LOCK") is None
    disk.kill()
    assert disk.contents("d/f")[:3] == b"new"
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.pread(1, 0)
    assert disk.lock("d/LOCK") is not None


def test_a_lock_is_of_the_file_and_not_of_its_name() -> None:
    disk, file = one_file()
    lock = disk.lock("d/LOCK")
    assert lock is not None
    assert file.lock()
    disk.unlink("d/LOCK")
    disk.rename("d/f", "d/g")
    assert disk.lock("d/LOCK") is not None, "another file"
    assert not disk.open("d/g").lock()
    assert not file.is_kept(2_101)
    assert file.is_kept(2_100)
    disk.unlink("d/g")
    assert not file.is_kept(0)
    lock.release()
    file.close()


def test_stop_inside_a_write_leaves_its_first_bytes() -> None:
    disk, file = one_file()
    disk.plan(disk.operations + 1, Fault(0, done_bytes=2))
    with pytest.raises(Stopped):
        file.pwrite(b"new", 0)
    disk.kill()
    assert disk.contents("d/f")[:3] == b"ned"


def test_full_disk_refuses_growth_and_allows_overwriting() -> None:
    disk, file = one_file()
    disk.capacity = 2_150
    with pytest.raises(OSError, match="No space left"):
        file.pwrite(b"x" * 100, 2_100)
    file.pwrite(b"x" * 100, 0)
    assert disk.free_bytes("d") == 50


def test_truncated_bytes_do_not_come_back_behind_a_sync() -> None:
    disk, file = one_file()
    file.truncate(10)
    file.truncate(2_100)
    file.sync()
    disk.crash(everything)
    assert disk.contents("d/f") == b"oldoldoldo" + bytes(2_090)
