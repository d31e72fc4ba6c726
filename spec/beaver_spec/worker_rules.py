"""What workers do, what the server does with them, and what late ones report."""

from __future__ import annotations

from beaver_model.events import Cause
from beaver_spec.moment import Moment, killed, set_phase
from beaver_spec.properties import Ask, Wrong
from beaver_spec.rows import IN_FLIGHT, NEW
from beaver_spec.server_rules import began
from beaver_spec.world import (
    DRAINING,
    LOST,
    RUNNING,
    SENT,
    SPARED,
    SPENT,
    UNSENT,
    UP,
    Entry,
    Held,
    Worker,
)


def workers_act(m: Moment) -> None:
    """What each worker may do, and what the server does with it."""
    for place, worker in enumerate(m.crew):
        for index, held in enumerate(worker):
            if held.phase == RUNNING:
                if not m.full:
                    _running(m, place, worker, index, held)
            elif held.phase == SENT:
                _unread(m, place, worker, index, held)
            elif held.phase == LOST and not m.full and m.rules.gives_back():
                gone = m.with_worker(place, set_phase(worker, index, SPARED))
                ask = ("release", held.job, held.label, Cause.NEVER_STARTED)
                m.submit(("give-back", place, index), ask, crew=gone)
        _recall(m, place, worker)
        idle = any(h.phase in {SENT, UNSENT} for h in worker) and not any(
            h.phase in {RUNNING, LOST} for h in worker
        )
        if idle and m.globe.losses:
            world = (*m.world[:4], m.with_worker(place, killed(worker)), m.stale_id)
            globe = m.rules.spend(m.globe_id, "losses")
            m.add(("die", place), (globe, *world[1:]))


def _recall(m: Moment, place: int, worker: Worker) -> None:
    """All that a worker has not read is taken back at once, and given back in one go.

    Else a later attempt could start before the log gives back an earlier one, and its
    slot would say that both had begun.
    """
    unread = [i for i, held in enumerate(worker) if held.phase == SENT]
    runs = any(held.phase == RUNNING for held in worker)
    if not unread or not (runs or m.globe.phase == DRAINING):
        return
    if m.globe.phase == UP and any(held.phase == UNSENT for held in worker):
        return  # What joined the same frame goes out with what is given back.
    if len(m.batch) + len(unread) > max(m.scope.batch, len(unread)):
        return
    entries, memory = list(m.batch), m.memory
    wrong: tuple[Wrong, ...] = ()
    for index in unread:
        held = worker[index]
        ask = ("release", held.job, held.label, Cause.NEVER_STARTED)
        step = m.space.step(memory, ask, place + 1)
        step.edges += 1
        wrong = (*wrong, *step.wrong)
        memory = step.mid
        entries.append(Entry(memory, step.effects))
        worker = set_phase(worker, index, SPARED)
    batch = m.parts.batch(tuple(entries))
    crew = m.with_worker(place, worker)
    world = (m.globe_id, m.durable, batch, m.told_id, crew, m.stale_id)
    m.add(("recall", place), world, wrong)


def _running(m: Moment, place: int, worker: Worker, index: int, held: Held) -> None:
    """User code runs: it may end in any way."""
    scope, globe, job, label = m.scope, m.globe, held.job, held.label
    ended = set_phase(worker, index, SPENT)
    crew = m.with_worker(place, ended)
    dead = m.with_worker(place, killed(ended))
    m.submit(("finish", place, "ok"), ("complete", job, label, -1), crew=crew)
    if scope.fails:
        m.submit(("finish", place, "fail"), ("fail", job, label, Cause.FAILED), crew=crew)
    if scope.fatal:
        ask: Ask = ("fail", job, label, Cause.NOT_RETRYABLE)
        m.submit(("finish", place, "fatal"), ask, crew=crew)
    if scope.timeouts:
        expired = m.rules.after_expiry(worker, index)
        over = m.with_worker(place, expired)
        m.submit(("finish", place, "timeout"), ("expire", job, label), crew=over)
    if globe.losses:
        ask = ("fail", job, label, Cause.WORKER_LOST)
        spent = m.rules.spend(m.globe_id, "losses")
        m.submit(("finish", place, "died"), ask, crew=dead, globe=spent)
    if globe.snoozes:
        ask = ("release", job, label, Cause.SNOOZE)
        spent = m.rules.spend(m.globe_id, "snoozes")
        m.submit(("finish", place, "snooze"), ask, crew=crew, globe=spent)
    if globe.children:
        spent = m.rules.spend(m.globe_id, "children")
        for child, row in enumerate(m.rows):
            if child != job and (row.state == NEW or globe.resubmits):
                ask = ("complete", job, label, child)
                action = ("finish", place, "child", child)
                m.submit(action, ask, crew=crew, globe=spent)
    if globe.phase == DRAINING:
        ask = ("release", job, label, Cause.DRAIN)
        m.submit(("finish", place, "drained"), ask, crew=dead)
    if _cancel_is_durable(m, held):
        m.submit(("stop", place), ("confirm", job, label), crew=dead)


def _unread(m: Moment, place: int, worker: Worker, index: int, held: Held) -> None:
    """The worker has not read it: it may start it, or the server may take it back."""
    if not any(h.phase in {RUNNING, LOST} for h in worker) and not any(
        h.phase == SENT for h in worker[:index]
    ):
        m.add(("start", place), began(m, place, index))
    if m.full:
        return
    crew = m.with_worker(place, set_phase(worker, index, SPARED))
    job, label = held.job, held.label
    if _cancel_is_durable(m, held):
        ask: Ask = ("confirm", job, label)
        m.submit(("recall-cancelled", place, index), ask, crew=crew)


def _cancel_is_durable(m: Moment, held: Held) -> bool:
    for mid in (m.durable, m.memory):
        row = m.space.rows[mid][held.job]
        if row.state != IN_FLIGHT or row.label != held.label or not row.cancel:
            return False
    return True


def late_reports(m: Moment) -> None:
    """A worker that outlived its server reports what nobody waits for."""
    if m.full:
        return
    for index, (job, label) in enumerate(m.stale):
        left = m.parts.stale((*m.stale[:index], *m.stale[index + 1 :]))
        asks: dict[str, Ask] = {
            "ok": ("complete", job, label, -1),
            "fail": ("fail", job, label, Cause.FAILED),
        }
        for how, ask in asks.items():
            count = len(m.out)
            m.submit(("late", index, how), ask, stale=left)
            found = m.out[count]
            globe, durable, batch, told, crew, stale = found.world
            tidied = m.rules.tidy(durable, batch, crew, stale)
            found.world = (globe, tidied[0], tidied[1], told, tidied[2], tidied[3])
