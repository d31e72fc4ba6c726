"""Rules of remote workers: leases in place of a process table, and a server that comes and goes.

Nobody kills such a worker, and no BOOT ends what it runs.  It has an attempt from the answer to
its pull until it has reported; the server takes the attempt back when the lease ends, whether the
worker is dead, frozen or cut off.  In the last two cases it reports late
(`worker_rules.late_reports`).
"""

from __future__ import annotations

from beaver_model.events import Cause
from beaver_spec.explorer.moment import Moment
from beaver_spec.explorer.properties import Ask, Wrong
from beaver_spec.explorer.rows import IN_FLIGHT, NAMES
from beaver_spec.explorer.world import (
    BOOTING,
    HELD,
    LOST,
    RUNNING,
    SENT,
    SPARED,
    SPENT,
    UNSENT,
    Entry,
    HeldAttempt,
    Worker,
    set_phase,
)


def remote_workers_act(m: Moment) -> None:
    """Adds what each worker may do, and what its silence leads to."""
    for place, worker in enumerate(m.crew):
        for index, held in enumerate(worker):
            if held.phase == SENT:
                crew = m.with_worker(place, set_phase(worker, index, RUNNING))
                m.add(("start", place), (*m.rest[:3], crew, m.stale_id))
            elif held.phase == RUNNING and not m.full:
                _reports(m, place, worker, index, held)
        _falls_silent(m, place, worker)


def _reports(m: Moment, place: int, worker: Worker, index: int, held: HeldAttempt) -> None:
    """The attempt ends, and the server hears of it; or its time limit does."""
    job, label = held.job, held.label
    crew = m.with_worker(place, set_phase(worker, index, SPENT))
    m.submit(("finish", place, "ok"), ("complete", job, label, -1), crew=crew)
    m.submit(("finish", place, "fail"), ("fail", job, label, Cause.FAILED), crew=crew)
    m.submit(("finish", place, "drained"), ("release", job, label, Cause.DRAIN), crew=crew)
    if m.scope.timeouts:
        late = m.parts.stale((*m.stale, (job, label)))
        m.submit(("finish", place, "timeout"), ("expire", job, label), crew=crew, stale=late)


def _falls_silent(m: Moment, place: int, worker: Worker) -> None:
    """Nothing was heard of a worker for its lease: all that it was given goes at once."""
    asks: list[Ask] = []
    late = list(m.stale)
    for index, held in enumerate(worker):
        if held.phase not in HELD or held.phase == UNSENT:
            continue
        asks.append(("lease", held.job, held.label))
        runs = held.phase == RUNNING
        if runs:
            late.append((held.job, held.label))
        worker = set_phase(worker, index, SPENT if runs else SPARED)
    if asks:
        crew = m.with_worker(place, worker)
        m.chain(("lease", place), asks, crew=crew, stale=m.parts.stale(late))


def outlive(m: Moment, durable: int) -> tuple[tuple[Worker, ...], int]:
    """Returns the workers, and who reports late, once the server has ended.

    Who has got no answer to a report, or was given up by a server that could not write it down,
    has the attempt still, and reports again.  Who was to get an attempt never does.
    """
    rows, late = m.space.rows[durable], list(m.stale)
    crew: list[Worker] = []
    for worker in m.crew:
        left: list[HeldAttempt] = []
        for held in worker:
            row = rows[held.job]
            if row.state != IN_FLIGHT or row.label != held.label:
                continue
            if (held.job, held.label) in late:
                late.remove((held.job, held.label))
            phase = {UNSENT: LOST, SPARED: LOST, SPENT: RUNNING}.get(held.phase, held.phase)
            left.append(held._replace(phase=phase))
        crew.append(tuple(left))
    return tuple(crew), m.parts.stale(late)


def boots(m: Moment) -> None:
    """A server starts: whatever is in flight goes on, with new leases."""
    step = m.space.step(m.durable, ("boot", (), m.globe.cut))
    wrong = list(step.wrong)
    for move in step.moves:
        message = f"BOOT ended the attempt of {NAMES[move.job]} by {move.trigger.name}"
        wrong.append(Wrong("remote_attempts_outlive_boot", message))
    globe = m.parts.globe(m.globe._replace(phase=BOOTING))
    batch = m.parts.batch((Entry(step.mid, step.effects),))
    m.add(("boot",), (globe, m.durable, batch, m.crew_id, m.stale_id), tuple(wrong), (step,))
