"""Compares what the index tells of jobs with the log, job by job and event by event.

`explain`, `history`, `show` of a finished job and `list` of completed ones all rest on
`beaver.history`: its index, what it keeps of pruned segments, and the end of the log that it
reads.  Here the log is read a second time, by `beaver_spec`, which decodes events by itself,
and the two are held against each other: no event of a job may be missing, none may be told
that the log does not hold, and each must say what it says there.

Every end-to-end scenario, every run of the simulator and every round of chaos asks this one
function.  What may not live here: anything that runs a store.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

from beaver.history.stories import find_finished, tell
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import segments
from beaver.ports import Disk
from beaver.structs.questions import Known, Search
from beaver.structs.views import EventView
from beaver_spec.traces.following import read_steps
from beaver_spec.traces.rules import LogStep

EVENTS_MAX: Final = 20_000
"""About so many events are compared: of a longer log, those of every n-th job."""
ENDS_MAX: Final = 5_000
"""How many ended jobs are searched for."""
_WRONG_MAX: Final = 5
INDEX_DAMAGED: Final = "the index of the log is damaged"
_READS_MAX: Final = 10
_ENDS: Final = {"completed": "ACK", "discarded": "DISCARD"}
_OF_AN_ATTEMPT: Final = frozenset({"DISPATCH", "ACK", "RETRY", "TIMEOUT", "RELEASE"})
_SAID_AS_LOGGED: Final = ("cause", "error", "parent")


def compare_stories(disk: Disk, layout: Layout, *, at_rest: bool = True) -> list[str]:
    """Returns the differences between what is shown and the log; empty if there are none.

    Args:
        disk: Where the store lies.
        layout: Its files.
        at_rest: Nobody writes to them.  Else what is written meanwhile is left out, and an
            index that seems damaged may only have been replaced.
    """
    for _ in range(_READS_MAX):
        try:
            if at_rest and not segments(disk, layout):
                return []  # The server was killed before it had made a log.
            return _compare(disk, layout, at_rest=at_rest)
        except FileNotFoundError:
            continue  # A segment was sealed or pruned between its listing and its reading.
    return [f"the files of {layout.path} changed {_READS_MAX} times while they were read"]


def _compare(disk: Disk, layout: Layout, *, at_rest: bool) -> list[str]:
    first_seq, last_seq, lives, ends = _read(disk, layout)
    told = tell(disk, layout, [Known(job) for job in lives], last_seq)
    if not lives:
        return []
    # Pruned events of jobs that have ended are no longer shown.
    pruned_seq = first_seq
    if not at_rest:
        pruned_seq, *_ = read_steps(disk, layout.path)
    # The index takes the oldest segment over right before that is deleted.  A crash in between
    # leaves it, and a power cut brings it back; what is told begins behind it all the same.
    infos = segments(disk, layout)
    pruned_seq = max(pruned_seq, min(told.first_seq, infos[len(infos) > 1].first_seq))
    wrong = [INDEX_DAMAGED] if told.damaged and at_rest else []
    for job, steps in lives.items():
        logged = [step for step in steps if step.seq >= pruned_seq]
        wrong += _differences(job, logged, told.by_job[job], pruned_seq, last_seq)
    for word, name in _ENDS.items():
        wrong += _compare_ends(disk, layout, word, ends[name], pruned_seq, last_seq)
    return wrong[:_WRONG_MAX]


def _read(
    disk: Disk, layout: Layout
) -> tuple[int, int, dict[str, list[LogStep]], dict[str, list[tuple[int, str]]]]:
    """Reads the log: its first and last seq, the newest life of some jobs, and how jobs ended."""
    first_seq, steps = read_steps(disk, layout.path)
    last_seq = first_seq - 1
    lives: dict[str, list[LogStep]] = {}
    ends: dict[str, list[tuple[int, str]]] = {name: [] for name in _ENDS.values()}
    every = 1
    for step in steps:
        last_seq = step.seq
        job = step.fields.get("job")
        if job is None:
            continue
        if step.name in ends and len(ends[step.name]) < ENDS_MAX:
            ends[step.name].append((step.seq, job))
        if not _is_chosen(job, every):
            continue
        if step.name == "ENQUEUE":
            lives[job] = []
        lives.setdefault(job, []).append(step)
        if (step.seq - first_seq) // EVENTS_MAX >= every:
            every *= 2
            lives = {job: steps for job, steps in lives.items() if _is_chosen(job, every)}
    return first_seq, last_seq, lives, ends


def _is_chosen(job: str, every: int) -> bool:
    return every == 1 or zlib.adler32(job.encode("utf-8", "surrogatepass")) % every == 0


def _differences(
    job: str, logged: list[LogStep], told: list[EventView], first_seq: int, last_seq: int
) -> Iterator[str]:
    """Yields the differences between one job as shown and as logged."""
    kept = [view for view in told if first_seq <= view.seq <= last_seq]
    seqs, told_seqs = [step.seq for step in logged], [view.seq for view in kept]
    if seqs != told_seqs:
        missing, added = sorted({*seqs} - {*told_seqs}), sorted({*told_seqs} - {*seqs})
        yield (
            f"of job {job} the log has events {seqs}, and told are {told_seqs}: missing {missing}, "
            f"added {added}"
        )
        return
    attempts = _attempts(logged)
    for step, view, attempt in zip(logged, kept, attempts, strict=True):
        for what, ours, theirs in _facts(step, view, attempt):
            if ours != theirs:
                where = f"seq {step.seq}: {what} of {step.name} of job {job}"
                yield f"{where} is {ours!r}, and told is {theirs!r}"


def _attempts(logged: list[LogStep]) -> Iterator[int | None]:
    """Yields the number of the attempt that each event starts or ends, where that is known."""
    attempt = 0
    is_whole = bool(logged) and logged[0].name == "ENQUEUE"
    for step in logged:
        attempt += step.name == "DISPATCH"
        yield attempt if is_whole and step.name in _OF_AN_ATTEMPT else None
        attempt -= step.name == "RELEASE"
        if step.name == "REQUEUE":
            attempt = 0


def _facts(step: LogStep, view: EventView, attempt: int | None) -> Iterator[tuple[str, Any, Any]]:
    fields = step.fields
    yield "name", step.name, view.event
    yield "job", fields["job"], view.job
    yield "time", step.time_ms, view.time_ms
    if attempt is not None:
        yield "attempt", attempt, view.attempt
    if step.name == "DISPATCH":
        yield "worker", fields["worker"], view.worker
    token = step.seq if step.name == "DISPATCH" else fields.get("token")
    yield "token", token or None, view.token
    for name in _SAID_AS_LOGGED:
        yield name, fields.get(name) or None, getattr(view, name)
    if step.name == "ENQUEUE":
        yield "payload", fields["payload"], bytes(view.payload)
        yield "tags", tuple(fields["tags"]) or None, view.tags


def _compare_ends(
    disk: Disk,
    layout: Layout,
    word: str,
    logged: list[tuple[int, str]],
    first_seq: int,
    last_seq: int,
) -> Iterator[str]:
    """Yields the first end that a search for finished jobs does not find, or finds wrongly."""
    found: list[tuple[int, str]] = []
    after_seq = first_seq - 1
    while len(found) < ENDS_MAX:
        search = Search(word, after_seq=after_seq, limit=ENDS_MAX)
        views, listed = find_finished(disk, layout, search, last_seq)
        found += [(view.end_seq or 0, view.id) for view in views]
        after_seq = listed.next_seq
        if not after_seq:
            break
    found = [end for end in found[:ENDS_MAX] if first_seq <= end[0] <= last_seq]
    wanted = [end for end in logged if end[0] >= first_seq]
    for ours, theirs in zip(wanted, found, strict=False):
        if ours != theirs:
            yield f"the log has a {word} job {ours} next, and listed is {theirs}"
            return
    if len(wanted) != len(found) and min(len(wanted), len(found)) < ENDS_MAX:
        yield f"{len(wanted)} jobs are {word} in the log, and {len(found)} are listed"
