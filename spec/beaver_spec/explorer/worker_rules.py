"""Rules of workers: what they do, what the server does with them, and late reports."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from beaver_model.events import Cause
from beaver_spec.explorer.moment import Moment
from beaver_spec.explorer.properties import Ask, Wrong
from beaver_spec.explorer.rows import IN_FLIGHT, NAMES, NEW
from beaver_spec.explorer.server_rules import began
from beaver_spec.explorer.sharing_rules import attempts_end
from beaver_spec.explorer.world import (
    DRAINING,
    ENDED,
    ENDED_ILL,
    ENDED_WELL,
    LOST,
    RUNNING,
    RUNS,
    SENT,
    SPARED,
    SPENT,
    UNSENT,
    UP,
    HeldAttempt,
    Worker,
    killed,
    set_phase,
)


def workers_act(m: Moment) -> None:
    """Adds what each worker may do, and what the server may do with it."""
    shares = m.scope.many > 1
    for place, worker in enumerate(m.crew):
        if shares:
            attempts_end(m, place, worker)
        for index, held in enumerate(worker):
            if held.phase in RUNS and not shares:
                _running(m, place, worker, index, held)
            elif held.phase == SENT:
                _unread(m, place, worker, index, held)
            elif held.phase == LOST and not m.full and m.rules.gives_back():
                gone = m.with_worker(place, set_phase(worker, index, SPARED))
                ask = ("release", held.job, held.label, Cause.NEVER_STARTED)
                m.submit(("give-back", place, index), ask, crew=gone)
        _recall(m, place, worker)
        _hear(m, place, worker)
        idle = any(h.phase in {SENT, UNSENT} for h in worker) and not any(
            h.phase == LOST or h.phase in RUNS for h in worker
        )
        if idle and m.globe.losses:
            asks, heard = _last_words(m, worker)
            crew = m.with_worker(place, killed(heard))
            globe = m.rules.spend(m.globe_id, "losses")
            m.chain(("die", place), asks, crew=crew, globe=globe)


def _recall(m: Moment, place: int, worker: Worker) -> None:
    """All that a worker has not read is taken back at once, and given back in one go.

    Else a later attempt could start before the log gives back an earlier one, and its
    slot would say that both had begun.
    """
    unread = [i for i, held in enumerate(worker) if held.phase == SENT]
    busy = any(held.phase in RUNS or held.phase in ENDED for held in worker)
    if not unread or not (busy or m.globe.phase == DRAINING):
        return
    if m.scope.many > 1 and m.globe.phase != DRAINING:
        return  # There is a place for each, and none waits behind a long one.
    if m.globe.phase == UP and any(held.phase == UNSENT for held in worker):
        return  # Whatever joined the same frame is sent with what is given back.
    asks: list[Ask] = []
    for index in unread:
        held = worker[index]
        asks.append(("release", held.job, held.label, Cause.NEVER_STARTED))
        worker = set_phase(worker, index, SPARED)
    m.chain(("recall", place), asks, crew=m.with_worker(place, worker), worker=place)


# -- outcomes that wait to be read ---------------------------------------------------------------


def _outcomes(worker: Worker) -> list[tuple[int, Ask]]:
    """Returns the outcomes that the server has not read, in their order, by place."""
    asks: dict[int, tuple[str, object]] = {
        ENDED_WELL: ("complete", -1),
        ENDED_ILL: ("fail", Cause.FAILED),
    }
    return [
        (index, (asks[held.phase][0], held.job, held.label, asks[held.phase][1]))
        for index, held in enumerate(worker)
        if held.phase in ENDED
    ]


def _commands(m: Moment, asks: Sequence[Ask]) -> list[Ask]:
    """Returns the commands of outcomes: successes one after another make one, where they may."""
    if not m.scope.several:
        return list(asks)
    commands: list[Ask] = []
    for ends_well, group in groupby(asks, lambda ask: ask[0] == "complete"):
        found = list(group)
        if ends_well:
            commands.append(("complete-several", tuple((ask[1], ask[2]) for ask in found)))
        else:
            commands += found
    return commands


def _hear(m: Moment, place: int, worker: Worker) -> None:
    """The server reads the first outcomes that wait, and puts them to the model in one go."""
    asks: list[Ask] = []
    for count, (index, ask) in enumerate(_outcomes(worker), 1):
        asks.append(ask)
        worker = set_phase(worker, index, SPENT)
        crew = m.with_worker(place, worker)
        m.chain(("hear", place, count), _commands(m, asks), crew=crew, worker=place)


def _last_words(m: Moment, worker: Worker) -> tuple[list[Ask], Worker]:
    """Returns what is read of a worker that was reaped, and the worker without it."""
    asks: list[Ask] = []
    for index, ask in _outcomes(worker) if m.rules.last_words(worker) else ():
        asks.append(ask)
        worker = set_phase(worker, index, SPENT)
    return _commands(m, asks), worker


def _overtaken(m: Moment, place: int, worker: Worker) -> None:
    """A worker is killed for an attempt that has ended, which the server does not know yet.

    Its outcome is read once the worker is reaped, and stands.  What runs there by now is a
    neighbour that has done nothing wrong, and is given back.
    """
    asks, heard = _last_words(m, worker)
    for index, held in enumerate(heard):
        if held.phase == RUNNING:
            asks.append(("release", held.job, held.label, Cause.NEIGHBOUR))
            heard = set_phase(heard, index, SPENT)
        elif held.phase in ENDED:
            heard = set_phase(heard, index, SPENT)
    m.chain(("overtaken", place), asks, crew=m.with_worker(place, killed(heard)), worker=place)


# -- what runs, and what waits to -----------------------------------------------------------------


def _running(m: Moment, place: int, worker: Worker, index: int, held: HeldAttempt) -> None:
    """User code runs: it may end in any way."""
    scope, globe, job, label = m.scope, m.globe, held.job, held.label
    waiting = [h for h in worker if h.phase in ENDED]
    if len(waiting) < scope.unheard:
        for how, phase in (("ok", ENDED_WELL), ("fail", ENDED_ILL)):
            crew = m.with_worker(place, set_phase(worker, index, phase))
            rest = (m.globe_id, m.durable, m.batch_id, crew, m.stale_id)
            if how == "ok" or scope.fails:
                m.add(("end", place, how), rest)
    if any(scope.timeouts or m.cancel_is_durable(h) for h in waiting):
        _overtaken(m, place, worker)
    if m.full:
        return
    words, heard = _last_words(m, worker)
    crew = m.with_worker(place, set_phase(worker, index, SPENT))
    dead = m.with_worker(place, killed(set_phase(heard, index, SPENT)))
    if not scope.unheard:
        _heard_at_once(m, place, held, crew)
    if scope.timeouts:
        over = m.with_worker(place, m.rules.after_expiry(heard, index))
        _killed(m, ("finish", place, "timeout"), words, ("expire", job, label), over)
    if globe.losses:
        ask: Ask = ("fail", job, label, Cause.WORKER_LOST)
        spent = m.rules.spend(m.globe_id, "losses")
        _killed(m, ("finish", place, "died"), words, ask, dead, spent)
    if globe.phase == DRAINING:
        ask = ("release", job, label, Cause.DRAIN)
        _killed(m, ("finish", place, "drained"), words, ask, dead)
    if m.cancel_is_durable(held):
        _killed(m, ("stop", place), words, ("confirm", job, label), dead)


def _killed(
    m: Moment,
    action: tuple[object, ...],
    words: Sequence[Ask],
    ask: Ask,
    crew: int,
    globe: int | None = None,
) -> None:
    """A worker is gone: its last words are read, then its fate is told, in one go."""
    if words:
        m.chain(action, [*words, ask], crew=crew, globe=globe)
    else:
        m.submit(action, ask, crew=crew, globe=globe)


def _heard_at_once(m: Moment, place: int, held: HeldAttempt, crew: int) -> None:
    """User code ends, and the server reads the outcome before anything else happens."""
    scope, globe, job, label = m.scope, m.globe, held.job, held.label
    m.submit(("finish", place, "ok"), ("complete", job, label, -1), crew=crew)
    if scope.fails:
        m.submit(("finish", place, "fail"), ("fail", job, label, Cause.FAILED), crew=crew)
    if scope.fatal:
        ask: Ask = ("fail", job, label, Cause.NOT_RETRYABLE)
        m.submit(("finish", place, "fatal"), ask, crew=crew)
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


def _unread(m: Moment, place: int, worker: Worker, index: int, held: HeldAttempt) -> None:
    """The worker has not read it: it may start it, or the server may take it back."""
    has_place = sum(h.phase in RUNS for h in worker) < m.scope.many
    is_lost = any(h.phase == LOST for h in worker)
    if has_place and not is_lost and not any(h.phase == SENT for h in worker[:index]):
        m.add(("start", place), began(m, place, index), _early(m, held))
    if m.full or m.scope.many > 1:
        return
    crew = m.with_worker(place, set_phase(worker, index, SPARED))
    job, label = held.job, held.label
    if m.cancel_is_durable(held):
        ask: Ask = ("confirm", job, label)
        m.submit(("recall-cancelled", place, index), ask, crew=crew)


def _early(m: Moment, held: HeldAttempt) -> tuple[Wrong, ...]:
    """Returns what is wrong with a start: that a crash could forget its DISPATCH."""
    row = m.space.rows[m.durable][held.job]
    if m.scope.early or (row.state == IN_FLIGHT and row.label == held.label):
        return ()
    message = f"{NAMES[held.job]} starts, and its DISPATCH is not on the disk"
    return (Wrong("started_is_durable", message),)


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
            globe, durable, batch, crew, stale = found.rest
            found.rest = (globe, *m.rules.tidy(durable, batch, crew, stale))
            if any(step.moves for step in found.steps):
                message = f"an attempt of {NAMES[job]} that a dead server gave changed something"
                found.wrong = (*found.wrong, Wrong("fenced", message))
