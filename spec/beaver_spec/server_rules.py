"""What becomes of the server: syncs, crashes, starts and orderly stops."""

from __future__ import annotations

from beaver_model.states import Trigger
from beaver_spec.moment import Moment, Next, freeing, set_phase, told_after
from beaver_spec.properties import Wrong
from beaver_spec.rows import IN_FLIGHT, NAMES
from beaver_spec.world import (
    BOOTING,
    DOWN,
    HELD,
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
    World,
)


def crashes(m: Moment) -> None:
    """The server ends at once; any prefix of the batch's commands has reached the disk."""
    globe = m.globe
    if not globe.crashes or globe.phase == DOWN:
        return
    for cut in (False, True) if m.scope.power else (False,):
        down = globe._replace(phase=DOWN, cut=globe.cut or cut, crashes=globe.crashes - 1)
        kept, told = -1, m.parts.tolds.values[m.told_id]
        for keep, mid in enumerate((m.durable, *(entry.mid for entry in m.batch))):
            if keep:
                # Nobody is told, but what frees a client's knowledge is on disk.
                told = told_after(told, freeing(m.batch[keep - 1].effects))
            if mid == kept:
                continue
            kept = mid
            workers = tuple(_bereft(m, worker, mid, cut=cut) for worker in m.crew)
            empty = m.parts.batch(())
            durable, batch, crew, stale = m.rules.tidy(
                mid, empty, m.parts.crew(workers), m.stale_id
            )
            number = m.parts.told(told)
            world = (m.parts.globe(down), durable, batch, number, crew, stale)
            m.add(("cut" if cut else "crash", keep), world)


def _bereft(m: Moment, worker: Worker, durable: int, *, cut: bool) -> Worker:
    """Returns a worker whose server is gone: what was not sent never comes."""
    rows, left = m.space.rows[durable], []
    for held in worker:
        phase = held.phase
        if phase == UNSENT or (phase in {SENT, LOST} and cut):
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
    for place, worker in enumerate(m.crew):
        running = [i for i, held in enumerate(worker) if held.phase == RUNNING]
        unread = [i for i, held in enumerate(worker) if held.phase == SENT]
        if unread and not running:
            m.add(("start", place), began(m, place, unread[0]))
        elif unread and running:
            index = running[0]
            ended = set_phase(worker, index, SPENT)
            stale = _outlived(m, worker[index : index + 1])
            world = (*m.world[:4], m.with_worker(place, ended), stale)
            m.add(("finish", place, "unheard"), world)
    _boot(m)


def began(m: Moment, place: int, index: int) -> World:
    """Returns the world once a worker has written its slot and runs user code."""
    worker = set_phase(m.crew[place], index, RUNNING)
    return (*m.world[:4], m.with_worker(place, worker), m.stale_id)


def _outlived(m: Moment, entries: tuple[Held, ...]) -> int:
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
    started = () if cut else m.rules.started(m.world, m.globe, m.crew)
    step = m.space.step(m.durable, ("boot", started, cut))
    step.edges += 1
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
    world = (
        globe,
        m.durable,
        batch,
        m.told_id,
        parts.crew(crew),
        _outlived(m, running),
    )
    m.out.append(Next(("boot",), world, tuple(wrong), step))


def sync(m: Moment) -> None:
    """Commands reach the disk, all or the first ones while others came in meanwhile.

    Then their replies go out, and their attempts go to the workers.
    """
    for count in range(1, len(m.batch) + 1):
        _sync(m, count)


def _sync(m: Moment, count: int) -> None:
    parts, globe = m.parts, m.globe
    told = parts.tolds.values[m.told_id]
    for entry in m.batch[:count]:
        told = told_after(told, entry.effects)
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
    world = (number, durable, batch, parts.told(told), crew_id, stale)
    m.add(("sync", count), world)


def drained(m: Moment) -> None:
    """The server has stopped in order once no worker holds anything and all is synced."""
    if not m.batch and not any(h.phase in HELD for worker in m.crew for h in worker):
        number = m.parts.globe(m.globe._replace(phase=DOWN))
        m.add(("stopped",), (number, *m.world[1:]))
