"""Time, what clients and operators ask, and which attempts are handed out."""

from __future__ import annotations

from itertools import permutations

from beaver_spec.explorer.moment import Moment
from beaver_spec.explorer.properties import Ask
from beaver_spec.explorer.rows import ABSENT, LIVE, PENDING
from beaver_spec.explorer.steps import REPLIES
from beaver_spec.explorer.world import (
    DRAINING,
    HELD,
    LOST,
    SENT,
    UNSENT,
    Entry,
    HeldAttempt,
    is_former,
)


def wakes(m: Moment) -> None:
    """The time of a waiting job comes: in memory, and in what recovery would read."""
    for job, row in enumerate(m.rows):
        if row.waiting:
            space = m.space
            batch = tuple(Entry(space.wake(e.mid, job), e.effects) for e in m.batch)
            woken = (space.wake(m.durable, job), m.parts.batch(batch))
            m.add(("wake", job), (m.globe_id, *woken, *m.rest[3:]))


def clients(m: Moment) -> None:
    """Requests of clients and operators."""
    if m.full:
        return
    globe, scope, spend = m.globe, m.scope, m.rules.spend
    for job, row in enumerate(m.rows):
        reply = (job, REPLIES["enqueue"])
        if row == ABSENT:
            m.submit(("enqueue", job, "same"), ("enqueue", job, "same"), reply=reply)
            if scope.scheduled:
                m.submit(("enqueue", job, "later"), ("enqueue", job, "later"), reply=reply)
            if scope.second:
                m.submit(("enqueue", job, "second"), ("enqueue", job, "second"), reply=reply)
            continue
        if globe.resubmits:
            spent = spend(m.globe_id, "resubmits")
            for variant in ("same", "other"):
                ask: Ask = ("enqueue", job, variant)
                m.submit(ask, ask, reply=reply, globe=spent)
        if row.state not in LIVE:
            continue
        for word, bound in (
            ("cancel", "cancels"),
            ("requeue", "requeues"),
            ("discard", "discards"),
        ):
            if getattr(globe, bound) and not m.space.step(m.memory, (word, job)).refusal:
                told = (job, REPLIES[word]) if word in REPLIES else None
                spent = spend(m.globe_id, bound)
                m.submit((word, job), (word, job), reply=told, globe=spent)
    if m.space.models[m.memory].paused:
        m.submit(("resume",), ("pause", False))
    elif globe.pauses:
        spent = spend(m.globe_id, "pauses")
        m.submit(("pause",), ("pause", True), globe=spent)
    if globe.drains and m.rules.may_drain(m.batch):
        number = m.parts.globe(globe._replace(phase=DRAINING, drains=globe.drains - 1))
        m.add(("drain",), (number, *m.rest[1:]))


def dispatches(m: Moment) -> None:
    """Every job that may be dispatched, to every worker with room."""
    if m.full:
        return
    for place, worker in enumerate(m.crew):
        holds = [held for held in worker if held.phase in HELD]
        if len(holds) >= m.scope.prefetch or any(h.phase == LOST for h in holds):
            continue
        if is_former(worker):
            continue
        for job, row in enumerate(m.rows):
            if row.state != PENDING:
                continue
            label = 1 + max(_labels(m, job), default=0)
            ask = ("dispatch", job, label, bool(holds))
            step = m.space.step(m.memory, ask, place + 1)
            if step.refusal:
                if step.wrong:
                    m.add(("dispatch", job, place), m.rest, step.wrong)
                continue
            phase = SENT if m.rules.sends_at_once(row, worker) else UNSENT
            crew = m.with_worker(place, (*worker, HeldAttempt(job, step.label, phase)))
            m.submit(("dispatch", job, place), ask, crew=crew, worker=place)


def dispatches_of_several(m: Moment) -> None:
    """Any two jobs that may wait, in any order, to every worker that is busy and has room."""
    if m.full or not m.scope.several:
        return
    for place, worker in enumerate(m.crew):
        holds = [held for held in worker if held.phase in HELD]
        room = m.scope.prefetch - len(holds)
        if not holds or room < 2 or any(h.phase == LOST for h in holds):
            continue
        if is_former(worker):
            continue
        pending = [job for job, row in enumerate(m.rows) if row.state == PENDING]
        for jobs in permutations(pending, 2):
            labels = tuple(1 + max(_labels(m, job), default=0) for job in jobs)
            ask = ("dispatch-several", jobs, labels, True)
            action = ("dispatch-several", *jobs, place)
            step = m.space.step(m.memory, ask, place + 1)
            if step.refusal:
                if step.wrong:
                    m.add(action, m.rest, step.wrong)
                continue
            # A model that is broken on purpose may dispatch fewer.
            given = (
                HeldAttempt(j, label, UNSENT) for j, label in zip(jobs, step.labels, strict=False)
            )
            m.submit(action, ask, crew=m.with_worker(place, (*worker, *given)), worker=place)


def _labels(m: Moment, job: int) -> list[int]:
    rows = m.space.rows
    labels = [rows[m.durable][job].label]
    labels += [rows[entry.mid][job].label for entry in m.batch]
    labels += [held.label for worker in m.crew for held in worker if held.job == job]
    return labels + [label for j, label in m.stale if j == job]
