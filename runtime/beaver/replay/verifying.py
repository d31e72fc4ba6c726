"""Verifying a store: snapshots, archive and log together.

Every file is checked by itself, and then against the others: each snapshot must be the
state that the log gives at its seq, and replaying from the start (where the archive still
reaches back), from the older snapshot and from the newest must end with the same
fingerprint.  Nothing here writes, and a server may be at work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from beaver.errors import Corruption, StoreUnavailable
from beaver.ports import Disk
from beaver.replay.replaying import Progress, Replay, SecondOpinion, bring_up
from beaver.replay.report import CheckReport, DamageView
from beaver.snapshot.files import load_snapshot
from beaver.store.log_source import (
    BASE_NONE,
    BASE_OLDER,
    BASE_SNAPSHOT,
    BASE_START,
    LogSource,
    Until,
    find_source,
)
from beaver_model import State, fingerprint, violations

_ATTEMPTS: Final = 5


class SnapshotVerdict(msgspec.Struct):
    """The verdict on one snapshot by itself."""

    name: str
    """`snapshot` or `older snapshot`."""
    file: str
    ok: bool
    last_seq: int = 0
    fingerprint: str = ""
    bytes: int = 0
    reason: str = ""


class BaseVerdict(msgspec.Struct):
    """The result of replaying from one base up to `last_seq`."""

    base: str
    """`start`, `older snapshot` or `snapshot`."""
    seq: int
    ok: bool
    fingerprint: str = ""
    reason: str = ""


class VerifyReport(msgspec.Struct):
    """The verdict over a store."""

    ok: bool
    log: CheckReport
    snapshots: list[SnapshotVerdict]
    bases: list[BaseVerdict]
    error: DamageView | None = None
    """The first thing that is wrong with a file."""


def verify(
    disk: Disk,
    path: str,
    *,
    on_progress: Progress | None = None,
    opinion: Callable[[int], SecondOpinion] | None = None,
) -> VerifyReport:
    """Verifies the store in a data directory; the verdict is in the report.

    Args:
        disk: Where it lies.
        path: The data directory.
        on_progress: Told how far it is.
        opinion: Makes another judge of the log, as for `check`.

    Raises:
        StoreUnavailable: The path is a file.
        NotFound: There is no log.
        NewerFormat: Something is of a newer version.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _verify(disk, path, on_progress, opinion)
        except FileNotFoundError:
            continue  # A helper pruned a segment or replaced a snapshot meanwhile.
    raise StoreUnavailable(
        f"the files of {path} changed {_ATTEMPTS} times while they were read; try again"
    )


def _verify(
    disk: Disk,
    path: str,
    on_progress: Progress | None,
    opinion: Callable[[int], SecondOpinion] | None,
) -> VerifyReport:
    if _is_file(disk, path):
        raise StoreUnavailable(
            f"{path} is a file; `verify` takes a data directory, `replay` a file"
        )
    try:
        source = find_source(disk, path)
    except Corruption as error:
        damage = DamageView.of(error)
        log = CheckReport(False, "none", 0, 0, 0, 0, {}, None, [], 0, damage)
        return VerifyReport(False, log, [], [], damage)
    snapshots = list(_snapshots(disk, source))
    replay = Replay(disk, source, Until(), on_progress, opinion)
    try:
        replay.run()
    except Corruption as error:
        log = replay.report(error)
    else:
        log = replay.report()
    if log.base == BASE_NONE:
        reason = f"no snapshot reaches the log, which begins with seq {source.first_seq}"
        snapshots.append(
            SnapshotVerdict(BASE_SNAPSHOT, source.layout.snapshot, ok=False, reason=reason)
        )
    bases: list[BaseVerdict] = []
    if log.error is None and log.fingerprint is not None:
        good = [verdict for verdict in snapshots if verdict.ok and verdict.last_seq <= log.last_seq]
        good.sort(key=lambda verdict: verdict.last_seq)
        bases = [_from_base(disk, source, good, base, log) for base in _bases(source, good)]
    error_view = log.error or next(
        (DamageView(s.file, 0, s.last_seq, s.reason) for s in snapshots if not s.ok), None
    )
    ok = log.ok and error_view is None and all(verdict.ok for verdict in bases)
    return VerifyReport(ok, log, snapshots, bases, error_view)


def _is_file(disk: Disk, path: str) -> bool:
    try:
        disk.listdir(path)
    except NotADirectoryError:
        return True
    except OSError:
        return False  # `find_source` says what is wrong with it.
    return False


def _snapshots(disk: Disk, source: LogSource) -> Iterator[SnapshotVerdict]:
    """Checks each snapshot by itself."""
    layout = source.layout
    for name, path in ((BASE_OLDER, layout.snapshot_old), (BASE_SNAPSHOT, layout.snapshot)):
        try:
            loaded = load_snapshot(disk, path, check_fingerprint=True)
        except FileNotFoundError:
            continue
        except Corruption as error:
            yield SnapshotVerdict(name, path, ok=False, reason=error.reason)
            continue
        verdict = SnapshotVerdict(
            name, path, True, loaded.last_seq, loaded.fingerprint, loaded.bytes
        )
        if loaded.store != source.store:
            verdict.ok, verdict.reason = False, "it belongs to another store than the log"
        elif broken := violations(loaded.state):
            verdict.ok, verdict.reason = False, f"its state violates {broken[0]}"
        yield verdict


def _bases(source: LogSource, good: Sequence[SnapshotVerdict]) -> Iterator[SnapshotVerdict | None]:
    """Yields every base that the kept log reaches back to; `None` stands for the start."""
    if source.first_seq == 1:
        yield None
    for verdict in good:
        if verdict.last_seq >= source.first_seq - 1:
            yield verdict


def _from_base(
    disk: Disk,
    source: LogSource,
    good: Sequence[SnapshotVerdict],
    base: SnapshotVerdict | None,
    log: CheckReport,
) -> BaseVerdict:
    """Replays from a base to the end, and compares with each later snapshot on the way."""
    state = State() if base is None else load_snapshot(disk, base.file).state
    verdict = BaseVerdict(BASE_START if base is None else base.name, state.last_seq, ok=True)
    try:
        for later in good:
            if later.last_seq <= state.last_seq:
                continue
            bring_up(disk, source.layout, state, later.last_seq)
            found = fingerprint(state)
            if found != later.fingerprint:
                verdict.ok = False
                verdict.reason = (
                    f"at seq {later.last_seq} the log gives the fingerprint {found}, "
                    f"{later.file} has {later.fingerprint}"
                )
                return verdict
        bring_up(disk, source.layout, state, log.last_seq)
    except Corruption as error:
        verdict.ok, verdict.reason = False, error.reason
        return verdict
    verdict.fingerprint = fingerprint(state)
    if verdict.fingerprint != log.fingerprint:
        verdict.ok = False
        verdict.reason = f"the log gives the fingerprint {log.fingerprint} at seq {log.last_seq}"
    return verdict
