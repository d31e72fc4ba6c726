"""Bit rot in every region of every file of a store, and what the program makes of it.

Each `Case` is one kind of damage at one place of a copy of an intact store.  The copy goes
through what `beaver verify` and the start of `beaver run` go through, in this process: lock,
slots, recovery, BOOT, snapshot, projection of the history, and once more recovery.  The
`CaseVerdict` is found by comparing with what is known of the intact store, not by asking the
program; what is wrong is told in words.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from beaver.errors import BeaverError, Corruption
from beaver.helper import work
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.log import Wal
from beaver.replay.verifying import VerifyReport, verify
from beaver.store.rebuild import Recovered
from beaver.store.recovery import open_store, read_store
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver.transport import endpoint
from beaver_chaos.faults.rot.cases import WHOLE, Case, Harm, cases_of, copy, damage
from beaver_chaos.faults.rot.regions import FileKind, kind_of
from beaver_chaos.faults.rot.store import SEGMENT_BYTES, Intact, boot_events, files_of, tell_history
from beaver_chaos.faults.table import Experiment, tell_fault
from beaver_model import fingerprint

FAULT: Final = "bit rot"
EXIT_CORRUPT: Final = 4
AS_EVER: Final = frozenset({"marked-end", "prepared-unused"})
"""Rows of the recovery table that the intact store meets."""


class CaseVerdict(StrEnum):
    """The verdict on a case."""

    UNHARMED = "unharmed"
    """The very state, and nothing to repair."""
    REPAIRED = "repaired"
    """The very state; what was damaged is told, and what was cut is kept."""
    ATTEMPTS = "unharmed, attempts miscounted"
    """The very state.  What the slots say of the jobs that were at work is wrong, so one of them
    pays an attempt, or has one given back; as without the file."""
    NOT_NEEDED = "not needed, and told"
    """The very state, from what came later; `verify` names file and offset."""
    REFUSED = "refused"
    """Exit code 4, file and offset named, and not a byte changed."""
    TAIL = "the end lost, and told"
    """The stated exception: the last frames of the log went with a whole sector or more, and
    nothing in the log shows them.  What is left of them is kept, and the history tells."""
    SILENT = "LOST IN SILENCE"
    WRONG = "WRONG"
    """Another broken promise: an error that is none of ours, a wrong history, a changed file."""


GOOD: Final = frozenset(CaseVerdict) - {CaseVerdict.SILENT, CaseVerdict.WRONG}


class Finding(NamedTuple):
    """The verdict on a case."""

    case: Case
    verdict: CaseVerdict
    words: str
    """The refusal, or what is wrong."""


# -- one case ----------------------------------------------------------------------------------


def try_case(intact: Intact, case: Case, data: Path) -> Finding:
    """Damages a copy at `data`, which is made, and finds out what the program makes of it."""
    copy(intact, case, data)
    first, behind = damage(case, intact, data)
    if behind == 0:
        return Finding(case, CaseVerdict.UNHARMED, "the same bytes")
    try:
        return Finding(case, *_judge(intact, case, data, (first, behind)))
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return Finding(case, CaseVerdict.WRONG, f"{type(error).__name__}: {error}")


def _judge(
    intact: Intact, case: Case, data: Path, changed: tuple[int, int]
) -> tuple[CaseVerdict, str]:
    before = marks(data)
    seen = verify(SystemDisk(), str(data)) if case.kind is FileKind.SNAPSHOT else None
    if marks(data) != before:
        return CaseVerdict.WRONG, "verify has changed a file"
    try:
        started = start(data)
    except BeaverError as error:
        return _judge_refusal(case, error, data, before)
    opened = started.opened
    found = fingerprint(opened.state)
    kept = _kept_bytes(opened, data, changed)
    opened.journal.close()
    if found != intact.fingerprint:
        return _judge_shorter(intact, case, started, kept)
    if kept is None:
        return CaseVerdict.WRONG, "what was cut off the log is not what is kept"
    if wrong := _wrong_afterwards(intact, case, data):
        return CaseVerdict.WRONG, wrong
    if case.kind in (FileKind.LOG, FileKind.SEALED, FileKind.SNAPSHOT):
        return _judge_log(case, data, seen or verify(SystemDisk(), str(data)), started)
    if started.boot != intact.boot:
        return CaseVerdict.ATTEMPTS, ""
    return CaseVerdict.UNHARMED, ""


def _judge_log(
    case: Case, data: Path, seen: VerifyReport, started: Started
) -> tuple[CaseVerdict, str]:
    """The state is right; was the damage told?"""
    rows = [row for row in started.opened.report.rows if row not in AS_EVER]
    if rows:
        return CaseVerdict.REPAIRED, ", ".join(rows)
    if not seen.ok:
        file = seen.error.file if seen.error is not None else ""
        # A gap is told of the file behind it.
        if file == str(data / case.name) or (file and case.damage in WHOLE):
            return CaseVerdict.NOT_NEEDED, ""
        return CaseVerdict.WRONG, f"verify blames {file or 'no file'}"
    # Whole by itself, or some of the zeros behind the last frame are gone.
    if case.damage in (Harm.MISSING, Harm.OLDER, Harm.SHORTER, Harm.HALF):
        return CaseVerdict.UNHARMED, ""
    return CaseVerdict.SILENT, "the bytes have changed, and neither the start nor `verify` sees it"


class _Told(logging.Handler):
    """Keeps what is logged inside of a `with`."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> None:
        logging.getLogger("beaver").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("beaver").removeHandler(self)


class Started(NamedTuple):
    """A store that has been started on."""

    opened: Recovered[Wal]
    boot: list[object]
    """Events of its BOOT."""
    warnings: list[str]


def start(data: Path) -> Started:
    """Does what a server does at its start, up to the BOOT, and then what its helper does.

    Raises:
        BeaverError: It refuses to start.
    """
    disk, layout = SystemDisk(), Layout(str(data))
    told = _Told()
    endpoint.reach(str(data))
    opened = open_store(
        disk,
        str(data),
        clock=SystemClock(),
        create=True,
        segment_bytes=SEGMENT_BYTES,
        extend_bytes=SEGMENT_BYTES,
    )
    try:
        boot = boot_events(opened.state, data, opened.journal.store)
        with told:
            work.project(disk, layout, opened.journal.last_seq)
        work.take_snapshot(disk, layout, opened.journal.last_seq, SystemClock())
    except BaseException:
        opened.journal.abandon()
        raise
    return Started(opened, boot, told.lines)


def _judge_refusal(
    case: Case, error: BeaverError, data: Path, before: dict[str, tuple[int, ...]]
) -> tuple[CaseVerdict, str]:
    words = str(error)
    lines = words.splitlines()
    if marks(data) != before:
        return CaseVerdict.WRONG, f"a start that refuses has changed a file: {words}"
    if not isinstance(error, Corruption) or error.exit_code != EXIT_CORRUPT:
        return CaseVerdict.WRONG, f"exit code {error.exit_code}: {words}"
    if not Path(error.file).is_relative_to(data) or error.file not in words or len(lines) > 3:
        return CaseVerdict.WRONG, f"it does not name the file, in a line or three: {words}"
    if f"offset {error.offset}" not in words:
        return CaseVerdict.WRONG, f"it does not name the offset: {words}"
    return CaseVerdict.REFUSED, lines[0].replace(str(data), "data")


def _judge_shorter(
    intact: Intact,
    case: Case,
    started: Started,
    kept: bytes | None,
) -> tuple[CaseVerdict, str]:
    """The log is another one: that is the stated exception, or it is the worst that there is."""
    state = started.opened.state
    lost = f"the log ends with seq {state.last_seq} of {intact.last_seq}"
    if intact.prints.get(state.last_seq) != fingerprint(state):
        return CaseVerdict.SILENT, f"the state at seq {state.last_seq} is wrong"
    may_be = case.kind is FileKind.LOG and case.damage in {
        Harm.SECTOR, Harm.BLOCK, Harm.SHORTER, Harm.HALF, Harm.OLDER,
    }  # fmt: skip
    if not may_be or kept is None:
        return CaseVerdict.SILENT, lost
    if not any(str(intact.last_seq) in warning for warning in started.warnings):
        return CaseVerdict.SILENT, f"{lost}, and nobody says so"
    return CaseVerdict.TAIL, lost


def _kept_bytes(opened: Recovered[Wal], data: Path, changed: tuple[int, int]) -> bytes | None:
    """Returns what was kept of a torn tail; `None` where it is not what was cut."""
    report = opened.report
    if not report.torn_tail_bytes:
        return b""
    kept = Path(report.broken).read_bytes() if report.broken else b""
    return kept if len(kept) == report.torn_tail_bytes else None


def _wrong_afterwards(intact: Intact, case: Case, data: Path) -> str:
    """Returns what is wrong with the files once the start has repaired them; empty if nothing."""
    if case.kind is FileKind.HISTORY:
        told = tell_history(data, intact.last_seq)
        if told not in intact.histories:
            return "the history tells another story"
    state, _ = read_store(SystemDisk(), str(data))
    return "" if fingerprint(state) == intact.fingerprint else "the next start finds another state"


def marks(data: Path) -> dict[str, tuple[int, ...]]:
    """Returns what changes with every write to a file, the lock's and SQLite's index apart."""
    found: dict[str, tuple[int, ...]] = {}
    for name in files_of(data):
        if kind_of(name) is not FileKind.LOCK and not name.endswith("-shm"):
            figures = (data / name).stat()
            found[name] = (figures.st_ino, figures.st_size, figures.st_mtime_ns)
    return found


def try_all(
    intact: Intact, scratch: Path, wanted: Callable[[Case], bool] = lambda _: True
) -> list[Finding]:
    """Tries all cases of a store, or those that are wanted, one after the other."""
    found = []
    for number, case in enumerate(filter(wanted, cases_of(intact))):
        data = scratch / f"case-{number}"
        found.append(try_case(intact, case, data))
        if found[-1].verdict in GOOD:
            shutil.rmtree(data)
    return found


def tell(intact: Intact, found: Iterable[Finding]) -> None:
    """Hands over what came of the cases, for the table of faults: one record a region.

    The stated exception is no part of it: there something is lost, and told.
    """
    records: dict[str, Experiment] = {}
    for case, verdict, words in found:
        if verdict is CaseVerdict.TAIL:
            continue
        record = records.setdefault(case.where, Experiment(fault=FAULT, where=case.where, times=0))
        record.times += 1
        record.acknowledged += intact.jobs
        record.refused += verdict is CaseVerdict.REFUSED
        record.lost += verdict is CaseVerdict.SILENT
        if verdict is CaseVerdict.WRONG:
            record.broken = [*record.broken, f"{case}: {words}"]
    for record in records.values():
        tell_fault(record)
