"""Rules of the server: syncs, crashes, starts and orderly stops."""

from __future__ import annotations

from beaver_model.events import Cause
from beaver_model.states import Trigger
from beaver_spec.explorer.actions import Action
from beaver_spec.explorer.lease_rules import boots, outlive
from beaver_spec.explorer.moment import Moment, freeing
from beaver_spec.explorer.properties import Ask, Wrong
from beaver_spec.explorer.rows import IN_FLIGHT, NAMES
from beaver_spec.explorer.steps import Effect
from beaver_spec.explorer.world import (
    BOOTING,
    DOWN,
    ENDED,
    FORMER,
    HELD,
    LOST,
    RUNNING,
    RUNS,
    SENT,
    SPARED,
    SPENT,
    UNSENT,
    UP,
    Entry,
    HeldAttempt,
    Rest,
    Worker,
    as_former,
    set_phase,
)


def crashes(m: Moment) -> None:
    """The server ends at once; any prefix of the batch's commands has reached the disk."""
    globe = m.globe
    if not globe.crashes or globe.phase == DOWN:
        return
    for cut in (False, True) if m.scope.power else (False,):
        down = globe._replace(phase=DOWN, cut=globe.cut or cut, crashes=globe.crashes - 1)
        kept = -1
        freed: tuple[Effect, ...] = ()
        for keep, mid in enumerate((m.durable, *(entry.mid for entry in m.batch))):
            if keep:
                # No reply is sent, but events that free a client's knowledge are on disk.
                freed = (*freed, *freeing(m.batch[keep - 1].effects))
            if mid == kept:
                continue
            kept = mid
            if m.scope.remote:
                workers, late = outlive(m, mid)
            else:
                workers = tuple(_bereft(m, worker, mid, cut=cut) for worker in m.crew)
                late = m.stale_id
            empty = m.parts.batch(())
            durable, batch, crew, stale = m.rules.tidy(mid, empty, m.parts.crew(workers), late)
            rest = (m.parts.globe(down), durable, batch, crew, stale)
            action: Action = ("cut" if cut else "crash", keep)
            if not cut and _forgets(m, mid):
                action = (*action, "forgets")
            m.add(action, rest, tells=freed)


def _forgets(m: Moment, durable: int) -> bool:
    """True where user code runs whose DISPATCH is lost: only where a queue opts out of its sync."""
    rows = m.space.rows[durable]
    return any(
        held.phase in RUNS and rows[held.job].label != held.label
        for worker in m.crew
        for held in worker
    )


def _bereft(m: Moment, worker: Worker, durable: int, *, cut: bool) -> Worker:
    """Returns a worker whose server is gone: what was not sent never comes."""
    rows, left = m.space.rows[durable], []
    for held in worker:
        phase = held.phase % FORMER
        if phase in ENDED:
            phase = SPENT  # The outcome is lost with the socket on which it waits.
        elif phase == UNSENT or (phase in {SENT, LOST} and cut):
            phase = SPARED
        elif phase == RUNNING and cut:
            phase = SPENT
        row = rows[held.job]
        if phase == SPARED and (row.state != IN_FLIGHT or row.label != held.label):
            continue  # Its DISPATCH did not reach the disk.
        left.append(held._replace(phase=phase))
    return tuple(left)


def down(m: Moment) -> None:
    """No server: its workers may go on, until the next start kills them, or may live on."""
    if m.scope.remote:
        boots(m)
        return
    for place, worker in enumerate(m.crew):
        running = [i for i, held in enumerate(worker) if held.phase == RUNNING]
        unread = [i for i, held in enumerate(worker) if held.phase == SENT]
        if unread and len(running) < m.scope.many:
            m.add(("start", place), began(m, place, unread[0]))
        elif unread and running:
            index = running[0]
            ended = set_phase(worker, index, SPENT)
            stale = _outlived(m, worker[index : index + 1])
            rest = (*m.rest[:3], m.with_worker(place, ended), stale)
            m.add(("finish", place, "unheard"), rest)
    _boot(m)


def began(m: Moment, place: int, index: int) -> Rest:
    """Returns the rest of the world once a worker has written its slot and runs user code."""
    worker = set_phase(m.crew[place], index, RUNNING)
    return (*m.rest[:3], m.with_worker(place, worker), m.stale_id)


def _outlived(m: Moment, entries: tuple[HeldAttempt, ...]) -> int:
    """Returns the attempts that may still be reported although their server is gone."""
    if not m.scope.stale:
        return m.stale_id
    return m.parts.stale((*m.stale, *((h.job, h.label) for h in entries)))


def _boot(m: Moment) -> None:
    """A server starts: leftovers are killed, the slots are read, BOOT is decided."""
    cut, parts = m.globe.cut, m.parts
    running = tuple(h for worker in m.crew for h in worker if h.phase == RUNNING)
    crew = tuple(
        tuple(h._replace(phase=SPENT if h.phase in {RUNNING, SPENT} else SPARED) for h in worker)
        for worker in m.crew
    )
    begun = {(h.job, h.label) for worker in crew for h in worker if h.phase == SPENT}
    started = () if cut else m.rules.started(m.rest, m.globe, m.crew)
    step = m.space.step(m.durable, ("boot", started, cut))
    wrong = list(step.wrong)
    for move in step.moves:
        attempt = (move.job, m.rows[move.job].label)
        charged = move.trigger in {Trigger.TIMEOUT, Trigger.DEAD}
        if attempt in begun and move.trigger == Trigger.RELEASE:
            message = f"{NAMES[move.job]} had begun, and BOOT gave its attempt back"
            wrong.append(Wrong("started_is_charged", message))
        elif attempt not in begun and charged and not cut:
            message = f"{NAMES[move.job]} had not begun, and BOOT charged its attempt"
            wrong.append(Wrong("started_is_charged", message))
    globe = parts.globe(m.globe._replace(phase=BOOTING))
    batch = parts.batch((Entry(step.mid, step.effects),))
    rest = (globe, m.durable, batch, parts.crew(crew), _outlived(m, running))
    m.add(("boot",), rest, tuple(wrong), (step,))


def sync(m: Moment) -> None:
    """Commands reach the disk, all or the first ones while others came in meanwhile.

    Then their replies go out, and their attempts go to the workers.
    """
    for count in range(1, len(m.batch) + 1):
        _sync(m, count)


def _sync(m: Moment, count: int) -> None:
    parts, globe = m.parts, m.globe
    tells = tuple(effect for entry in m.batch[:count] for effect in entry.effects)
    durable = m.rules.on_disk(m.durable, m.batch[count - 1].mid)
    rows = m.space.rows[durable]
    crew = tuple(
        tuple(
            h._replace(phase=SENT) if h.phase == UNSENT and rows[h.job].label == h.label else h
            for h in worker
        )
        for worker in m.crew
    )
    number = m.globe_id
    if globe.phase == BOOTING:
        number = parts.globe(globe._replace(phase=UP, cut=False))
    durable, batch, crew_id, stale = m.rules.tidy(
        durable, parts.batch(m.batch[count:]), parts.crew(crew), m.stale_id
    )
    m.add(("sync", count), (number, durable, batch, crew_id, stale), tells=tells)


def reloads(m: Moment) -> None:
    """New workers take over in one go: what old ones have not begun is given back.

    Not while something of a dead worker waits to be given back: that comes to its end first.
    """
    if not m.globe.reloads or not m.rules.may_hand_over(m.batch):
        return
    if any(held.phase == LOST for worker in m.crew for held in worker):
        return
    asks: list[Ask] = []
    crew: list[Worker] = []
    for worker in m.crew:
        left = worker
        for index, held in enumerate(worker):
            if held.phase == SENT:
                if m.rules.lets_go():
                    asks.append(("release", held.job, held.label, Cause.DRAIN))
                left = set_phase(left, index, SPARED)
        if left:
            crew.append(as_former(left))
    crew += [()] * m.scope.workers
    spent = m.rules.spend(m.globe_id, "reloads")
    m.chain(("reload",), asks, crew=m.parts.crew(crew), globe=spent)


def drained(m: Moment) -> None:
    """The server has stopped in order once no worker holds anything and all is synced."""
    if not m.batch and not any(h.phase in HELD for worker in m.crew for h in worker):
        number = m.parts.globe(m.globe._replace(phase=DOWN))
        m.add(("stopped",), (number, *m.rest[1:]))
