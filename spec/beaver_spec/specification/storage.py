"""The models that TLC checks: the log, its segments and snapshots, and the lives of jobs.

What lives here: the table of models with their claims, their bounds and the bugs that each
must catch, and the checks made of it.  A sown bug names the property that it breaks: caught
by another one means that the model no longer says what it seems to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from beaver_spec.results import CheckResult, Verdict
from beaver_spec.specification.storage_tlc import TLA, Tlc, TlcRun, in_words, run_tlc


class Sown(NamedTuple):
    """A bug that can be sown: the switch, what it does, and what it must break."""

    switch: str
    text: str
    breaks: str


class TlcModel(NamedTuple):
    """One model and its properties for TLC."""

    claim: str
    module: str
    config: str
    sown: tuple[Sown, ...]
    kind: str = "storage"
    idle: frozenset[str] = frozenset()
    """Actions that these bounds leave out."""
    larger: Mapping[str, str] = {}
    """Bounds for a long run."""
    spared: Mapping[str, str] = {}
    """Switches that break nothing here, and why: a second line of defence."""


MODELS: Final = (
    TlcModel(
        "the log keeps what it acknowledged, whatever blocks a crash keeps",
        "Log",
        "Log",
        (
            Sown(
                "AckBeforeSync",
                "a frame is acknowledged once it is written",
                "WhatWasToldIsDurable",
            ),
            Sown(
                "GoOnAfterFailedSync",
                "a failed sync is tried again instead of ending the process",
                "WhatWasToldIsDurable",
            ),
            Sown(
                "CutNotSynced",
                "the cut of a torn tail is not synced before frames are accepted",
                "NoStaleRecordComesBack",
            ),
            Sown(
                "LastNotRewritten",
                "recovery syncs the file, and does not rewrite its last frame",
                "WhatWasToldIsDurable",
            ),
            Sown(
                "RewriteReadsAgain",
                "recovery rewrites the last frame as it reads it then, not from memory",
                "WhatWasToldIsDurable",
            ),
            Sown(
                "HeadsAlone",
                "a frame is taken for whole by its head, and its tails are not read",
                "RecoveryTakesWhatStands",
            ),
            Sown(
                "LastNotRead",
                "the reader stops before the last frame",
                "TheReaderFindsWhatStands",
            ),
            Sown(
                "TornIsRefused",
                "whatever stands behind the last frame is taken for rot",
                "OnlyRotIsRefused",
            ),
            Sown(
                "CutTooFar",
                "the cut of a torn tail takes the last whole frame along",
                "NothingAcknowledgedIsLost",
            ),
            Sown(
                "SyncedIsNotTold",
                "a sync is not told to those who wait for it",
                "OnlyTheUnsyncedIsUntold",
            ),
        ),
        idle=frozenset({"Rot"}),
        larger={"Blocks": "6", "FramesMax": "5", "CrashesMax": "4"},
        spared={
            "NotChained": "with one frame unsynced at a time and a synced cut, no stale frame is "
            "left that could come back: the chain is a second line of defence (LogPipelined)"
        },
    ),
    TlcModel(
        "a block that goes bad is refused, except in the very last frame",
        "Log",
        "LogRot",
        (
            Sown(
                "NoLookBehind",
                "a bad frame is taken for a torn tail whatever stands behind it",
                "NothingAcknowledgedIsLost",
            ),
        ),
        larger={"Blocks": "5", "FramesMax": "4", "CrashesMax": "3"},
    ),
    TlcModel(
        "chained frames keep a stale one out where the disk does not keep the cut",
        "Log",
        "LogPipelined",
        (
            Sown(
                "NotChained",
                "a frame's CRC and seq are checked, and not which frame it follows",
                "NoStaleRecordComesBack",
            ),
        ),
        idle=frozenset({"Rot"}),
        larger={"Blocks": "5", "CrashesMax": "3"},
    ),
    TlcModel(
        "sealing a segment loses nothing, whatever names a crash keeps",
        "Segments",
        "Sealing",
        (
            Sown(
                "HeaderNotSynced",
                "the next segment's header is not synced before it is named",
                "NoCrashMakesAStartRefuse",
            ),
            Sown(
                "HeaderSyncedLate",
                "the next segment's header is synced with its name, not before it is named",
                "NoCrashMakesAStartRefuse",
            ),
            Sown(
                "ArchiveNotSynced",
                "no directory fsync behind the sealed segment's name in the archive",
                "NoCrashMakesAStartRefuse",
            ),
            Sown(
                "RenameNotSynced",
                "no directory fsync behind the rename to wal.log",
                "NothingAcknowledgedIsLost",
            ),
            Sown(
                "NextKeepsItsName",
                "the next segment is called wal.next until it takes over",
                "NoCrashMakesAStartRefuse",
            ),
        ),
        idle=frozenset(
            {
                "WriteSnapshot",
                "SyncSnapshot",
                "KeepOlder",
                "NameSnapshot",
                "SyncSnapshotName",
                "Prune",
                "SyncPruned",
                "DamageNewestSnapshot",
            }
        ),
        larger={"EventsMax": "4", "FilesMax": "8", "CrashesMax": "3"},
    ),
    TlcModel(
        "snapshots and pruning leave a log that reaches back to a good snapshot",
        "Segments",
        "Snapshots",
        (
            Sown(
                "SnapshotNotSynced",
                "a snapshot gets its name before it is synced",
                "NoCrashMakesAStartRefuse",
            ),
            Sown(
                "PruneBeforeDurable",
                "the archive is pruned before the snapshot's name is durable",
                "NoCrashMakesAStartRefuse",
            ),
            Sown(
                "PruneBelowNewest",
                "the archive is pruned below the newest snapshot, not the older",
                "NoCrashMakesAStartRefuse",
            ),
            Sown(
                "DamagedIsKept",
                "a damaged newest snapshot takes the place of the older one",
                "TheLogReachesBackToASnapshot",
            ),
        ),
        idle=frozenset({"StrayHelper"}),
        larger={"EventsMax": "3"},
    ),
    TlcModel(
        "pruning leaves no hole in the archive, whatever names a crash keeps",
        "Segments",
        "Pruning",
        (
            Sown(
                "PruneNewestFirst",
                "the archive is pruned from its newest dispensable segment down",
                "TheArchiveHasNoHole",
            ),
            Sown(
                "PrunedNotSynced",
                "no directory fsync between one segment that is pruned and the next",
                "TheArchiveHasNoHole",
            ),
        ),
        idle=frozenset({"StrayHelper", "DamageNewestSnapshot"}),
        larger={"CrashesMax": "2"},
    ),
    TlcModel(
        "a job ends once, by its last attempt, within its attempts",
        "Lifecycle",
        "Lifecycle",
        (
            Sown(
                "AnyTokenAnswers",
                "an outcome is taken whatever its token",
                "ACompletionKeepsItsToken",
            ),
            Sown(
                "AttemptsAreNotCounted",
                "a failed attempt costs nothing",
                "NoJobWaitsWithoutAnAttempt",
            ),
        ),
        kind="lifecycle",
        larger={"SeqMax": "11"},
    ),
    TlcModel(
        "no job starts before its time, and no stamp goes back",
        "Lifecycle",
        "LifecycleTime",
        (),
        kind="lifecycle",
        larger={"SeqMax": "9"},
    ),
)


def check(tlc: Tlc, model: TlcModel, *, larger: bool = False) -> CheckResult:
    """Checks a model as it is."""
    values = dict(model.larger) if larger else {}
    run = run_tlc(
        tlc,
        model.module,
        model.config,
        values=values,
        count_actions=True,
        is_long=larger,
    )
    never = [n for n, count in run.taken.items() if not count and n not in model.idle]
    verdict = Verdict.VIOLATED if run.broken else Verdict.HOLDS
    details = [f"broken: {in_words(run.broken)}", *run.steps] if run.broken else _counts(run, model)
    if not run.is_finished:
        verdict, details = Verdict.ERROR, run.output.splitlines()[-20:]
    elif never:
        verdict = Verdict.VIOLATED
        details = [f"never taken within these bounds: {', '.join(never)}", *details]
    return _result(tlc, model, model.claim, verdict, run, details, values)


def check_sown(tlc: Tlc, model: TlcModel, sown: Sown) -> CheckResult:
    """Checks that a model catches a bug that is sown in it."""
    run = run_tlc(tlc, model.module, model.config, values={sown.switch: "TRUE"})
    details = [sown.text]
    if run.broken == sown.breaks:
        verdict = Verdict.CAUGHT
    elif run.is_finished:
        verdict = Verdict.MISSED
        details.append(f"it was to break {sown.breaks}, and broke {run.broken or 'nothing'}")
    else:
        verdict, details = Verdict.ERROR, [*details, *run.output.splitlines()[-20:]]
    if run.broken:
        details += [f"broken: {in_words(run.broken)}", *run.steps]
    return _result(tlc, model, f"{model.config}, sown: {sown.switch}", verdict, run, details, {})


def check_spared(tlc: Tlc, model: TlcModel, switch: str) -> CheckResult:
    """Checks that a model does without something: what is said of a second line of defence."""
    run = run_tlc(tlc, model.module, model.config, values={switch: "TRUE"})
    holds = run.is_finished and not run.broken
    details = [model.spared[switch]] if holds else [f"broken: {run.broken}", *run.steps]
    verdict = Verdict.HOLDS if holds else Verdict.VIOLATED if run.broken else Verdict.ERROR
    return _result(tlc, model, f"{model.config} does without: {switch}", verdict, run, details, {})


def _result(
    tlc: Tlc,
    model: TlcModel,
    name: str,
    verdict: Verdict,
    run: TlcRun,
    details: list[str],
    values: Mapping[str, str],
) -> CheckResult:
    return CheckResult(
        name=name,
        kind=model.kind,
        tool=tlc.version,
        bounds=_bounds(model, values),
        verdict=verdict,
        states=run.states,
        seconds=run.seconds,
        details=details,
    )


def _bounds(model: TlcModel, values: Mapping[str, str]) -> dict[str, str]:
    """Returns the constants of a configuration that are no switches."""
    bounds: dict[str, str] = {}
    for line in (TLA / f"{model.config}.cfg").read_text().splitlines():
        name, is_one, value = line.strip().partition(" = ")
        if is_one and value not in {"TRUE", "FALSE"}:
            bounds[name] = values.get(name, value)
    return bounds


def _counts(run: TlcRun, model: TlcModel) -> list[str]:
    taken = ", ".join(f"{in_words(n)} {c}" for n, c in run.taken.items() if c)
    idle = [in_words(n) for n in run.taken if n in model.idle]
    lines = [f"depth {run.depth}; how often each action was taken: {taken}"]
    return [*lines, f"left out by these bounds: {', '.join(idle)}"] if idle else lines
