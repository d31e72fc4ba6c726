"""What each fact means: one check an entry, from facts to a finding with advice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

import msgspec

from beaver.doctor.facts import Facts
from beaver.errors import Corruption, NewerFormat
from beaver.system.descriptors import CLIENTS_MIN, OWN_MIN, PER_WORKER
from beaver.text.durations import format_duration, format_size
from beaver.text.foreign import counted

Level = Literal["ok", "note", "bad"]
"""`note` is worth knowing; `bad` has to be changed before one can rely on the store."""

PYTHON_MIN: Final = (3, 11)
SYNC_SLOW_MS: Final = 10.0
SYNC_BAD_MS: Final = 100.0
SYNC_FAST_MS: Final = 0.01
"""No medium makes a write durable in less: the answer comes from a cache."""
FILES_NOTE: Final = 4096
PROCESSES_SPARE: Final = 32
BEHIND_MS: Final = 5 * 60 * 1000
INODES_MIN: Final = 1_000
NOT_DURABLE: Final = frozenset({"tmpfs", "ramfs", "overlay", "aufs"})
NETWORKED: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "vboxsf"})
COPYING: Final = frozenset({"btrfs", "zfs", "bcachefs"})


class Finding(msgspec.Struct):
    """The outcome of one check."""

    check: str
    level: Level
    said: str
    advice: str = ""


class Found(NamedTuple):
    """What one check says."""

    level: Level
    said: str
    advice: str = ""


def _bad(said: str, advice: str) -> Found:
    return Found("bad", said, advice)


def _note(said: str, advice: str) -> Found:
    return Found("note", said, advice)


def _ok(said: str, advice: str = "") -> Found:
    return Found("ok", said, advice)


def _system(facts: Facts) -> Iterator[Found]:
    if facts.system not in ("Linux", "Darwin"):
        yield _bad(f"{facts.system} is not supported", "use Linux, macOS or WSL")
    if facts.python < PYTHON_MIN:
        yield _bad("Python {}.{} is too old".format(*facts.python), "use Python 3.11 or newer")
    yield _ok("{} with Python {}.{}".format(facts.system, *facts.python))


def _disk(facts: Facts) -> Iterator[Found]:
    kind = facts.file_system
    if facts.sync_error and not facts.foreign:
        yield _bad(
            f"{facts.place} cannot be written: {facts.sync_error}",
            "give the directory to the user that runs Beaver, or another one with --data",
        )
    if kind in NOT_DURABLE:
        yield _bad(
            f"{facts.place} lies on {kind}, which does not outlive the machine or container",
            "put the data directory on a volume with ext4 or XFS",
        )
    elif kind in NETWORKED:
        yield _bad(
            f"{facts.place} lies on {kind}: locks and syncs over a network are not to be trusted",
            "use a local disk, and `beaver ship` for a copy elsewhere",
        )
    elif kind in COPYING:
        yield _note(
            f"{facts.place} lies on {kind}, which writes each block anew: the disk can turn out "
            "to be full inside a commit, which ends the server (exit code 7)",
            "leave free space, and prefer ext4 or XFS",
        )
    yield _ok(f"{facts.place} lies on {kind or 'a file system that is not told'}")


def _sync(facts: Facts) -> Iterator[Found]:
    took = facts.sync_ms
    if took is None:
        return
    said = f"a durable write takes {took:.3g} ms"
    if took >= SYNC_BAD_MS:
        yield _bad(said, "every enqueue waits for one: use a local SSD, or find who else writes")
    elif took >= SYNC_SLOW_MS:
        yield _note(said, "every enqueue waits for one: enqueue many at once, or use an SSD")
    elif took < SYNC_FAST_MS:
        yield _note(
            f"{said}: faster than any disk, so a cache answers",
            "see that it has a battery, or that the volume honours flushes",
        )
    yield _ok(said)


def _limits(facts: Facts) -> Iterator[Found]:
    limits, workers = facts.limits, facts.config.workers
    needed = 2 * (OWN_MIN + PER_WORKER * workers + CLIENTS_MIN)
    if limits.files is not None and limits.files < needed:
        yield _bad(
            f"{limits.files} open files are allowed, "
            f"and {counted(workers, 'worker')} need {needed}",
            "raise the hard limit (ulimit -Hn, LimitNOFILE=)",
        )
    elif limits.files is not None and limits.files < FILES_NOTE:
        yield _note(
            f"{limits.files} open files are allowed: about half as many clients at once",
            "raise the hard limit (ulimit -Hn, LimitNOFILE=) where there are more",
        )
    if limits.processes is not None and limits.processes < workers + PROCESSES_SPARE:
        yield _bad(
            f"{counted(limits.processes, 'process')} may run, "
            f"and {counted(workers, 'worker')} and their own need "
            f"{workers + PROCESSES_SPARE}",
            "raise the limit (ulimit -u, LimitNPROC=, TasksMax=)",
        )
    segment = facts.config.segment_bytes
    if limits.file_bytes is not None and limits.file_bytes < segment:
        yield _bad(
            f"files may have {limits.file_bytes} bytes, and a segment has {segment}",
            "raise the limit (ulimit -f, LimitFSIZE=), or set segment_size lower",
        )
    yield _ok("open files, processes and file sizes suffice")


def _crc(facts: Facts) -> Iterator[Found]:
    if facts.crc == "python":
        yield _bad(
            "CRC-32C is computed in Python, twenty times slower than by the extension of crcmod",
            "install a wheel of crcmod-plus, or `pip install beaver-raft[fast]`",
        )
    if facts.crc == "extension":
        yield _ok(
            "CRC-32C is computed by crcmod's extension",
            "`pip install beaver-raft[fast]` uses the processor's instruction",
        )
    yield _ok("CRC-32C is computed by the processor's instruction")


def _clock(facts: Facts) -> Iterator[Found]:
    if facts.last_ms is not None and facts.now_ms < facts.last_ms - BEHIND_MS:
        behind = format_duration(facts.last_ms - facts.now_ms)
        yield _bad(
            f"the clock is {behind} behind the last events of the store",
            "set it: until it has caught up, stamps go on from the last one, and delays are longer",
        )
    if facts.clock_synchronised is False:
        yield _note(
            "the kernel says that nothing keeps the clock right",
            "run an NTP client (chrony, systemd-timesyncd); in a container, on its host",
        )
    yield _ok("the clock is not behind the store")


def _permissions(facts: Facts) -> Iterator[Found]:
    if facts.foreign:
        said, _, advice = facts.foreign.partition("\n")
        yield _bad(said, advice)
    if facts.open_to_others:
        names = ", ".join(facts.open_to_others)
        yield _bad(
            f"others can read {names} in {facts.data}",
            f"`chmod 0600` them and `chmod 0700 {facts.data}`; if `token` was readable, "
            "`beaver token revoke local` and start again",
        )
    yield _ok(
        f"{facts.place} belongs to us alone" if facts.exists else "there is no store yet",
        "",
    )


def _space(facts: Facts) -> Iterator[Found]:
    free, config, storage = facts.free_bytes, facts.config, facts.storage
    if free is None:
        return
    least = 2 * config.segment_bytes
    if free < least:
        yield _bad(
            f"{format_size(free)} are free in {facts.place}, and two segments need "
            f"{format_size(least)}",
            "free space before new jobs are refused, or set segment_size lower",
        )
    elif facts.free_inodes is not None and facts.free_inodes < INODES_MIN:
        yield _bad(f"{facts.free_inodes} inodes are free", "delete small files")
    archive = storage.archive_bytes if storage else 0
    snapshots = storage.snapshot_bytes if storage else 0
    to_come = max(0, config.retention_bytes - archive) + 2 * snapshots + least
    if least <= free < to_come:
        yield _note(
            f"{format_size(free)} are free, and the archive may grow by "
            f"{format_size(max(0, config.retention_bytes - archive))} before it is pruned",
            "set retention_size lower than what is free, or use a larger disk",
        )
    yield _ok(f"{format_size(free)} are free, enough for all that is retained")


def _versions(facts: Facts) -> Iterator[Found]:
    code = facts.store_error_code
    if code == NewerFormat.exit_code:
        yield _bad(facts.store_error.partition("\n")[0], "install the newer version")
    elif code == Corruption.exit_code:
        yield _bad(facts.store_error.partition("\n")[0], "`beaver verify` says more; restore")
    elif facts.store_error:
        yield _bad(facts.store_error.partition("\n")[0], "see that this user may read it")
    status = facts.status
    if status is not None and status.running and status.version != facts.version:
        yield _note(
            f"the server runs version {status.version or 'before this was told'}, and this command "
            f"is {facts.version}",
            "restart the server with the version that is installed",
        )
    yield _ok(f"version {facts.version}; the files can be read")


def _server(facts: Facts) -> Iterator[Found]:
    status = facts.status
    if status is None:
        yield _ok("no server runs" if facts.exists else "nothing was served yet")
        return
    if status.silent:
        yield _bad(
            f"a server (process {status.silent}) holds {facts.data} and does not answer",
            "look at its log; `kill -9` loses nothing that was acknowledged",
        )
    if status.halted:
        yield _bad(f"nothing is dispatched: {status.halted}", "restart it, and report this")
    if status.disk_full:
        yield _bad("the disk is full: new jobs are refused", "free space; it goes on by itself")
    for ship in status.ships:
        if ship.error or not ship.running:
            yield _bad(
                f"{ship.target} is not shipped to: {ship.error or 'its shipper does not run'}",
                "start `beaver ship` again",
            )
    yield _ok("a server runs, and takes jobs")


CHECKS: Final[dict[str, Callable[[Facts], Iterator[Found]]]] = {
    "system": _system,
    "disk": _disk,
    "sync": _sync,
    "limits": _limits,
    "crc": _crc,
    "clock": _clock,
    "permissions": _permissions,
    "space": _space,
    "versions": _versions,
    "server": _server,
}


def examine(facts: Facts) -> list[Finding]:
    """Returns what every check finds; one that finds nothing wrong says what is well."""
    findings = []
    for name, check in CHECKS.items():
        found = list(check(facts))
        troubles = [one for one in found if one[0] != "ok"]
        findings += [Finding(name, *one) for one in troubles or found[:1]]
    return findings
