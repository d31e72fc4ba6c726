"""The rules of the world: every action that may come next, and where it leads.

The model decides; these rules say what the rest does around it: when a batch is synced and
its replies go out, what a crash leaves, what the slots say at BOOT, when a worker may start,
and what the server reports of a worker that is gone.  They follow `beaver.engine`,
`beaver.controller` and `beaver.serve`.  Methods that open with "Rule:" are the ones that
tests replace by broken ones.

What may not live here: how worlds are stored (`world`), and in which order they are visited.
"""

from __future__ import annotations

from typing import Any, Final

from beaver_model.events import Cause
from beaver_model.states import Trigger
from beaver_spec.properties import (
    TOLD_CANCEL,
    TOLD_DONE,
    TOLD_GONE,
    Ask,
    Wrong,
    broken_promise,
)
from beaver_spec.rows import ABSENT, IN_FLIGHT, LIVE, NAMES, NEW, PENDING
from beaver_spec.space import FORGET, REPLIES, REVIVE, Effect, Space, Step
from beaver_spec.world import (
    BOOTING,
    DOWN,
    DRAINING,
    HELD,
    LOST,
    RUNNING,
    SENT,
    SPARED,
    SPENT,
    UNSENT,
    UP,
    Entry,
    Globe,
    Held,
    Parts,
    Stale,
    Worker,
    World,
)

Action = tuple[Any, ...]
"""What happens: a word, then places of jobs and workers."""

FAIR: Final = frozenset(
    {
        "sync",
        "boot",
        "wake",
        "dispatch",
        "start",
        "give-back",
        "recall-cancelled",
        "stop",
        "stopped",
        "resume",
    }
)
"""Actions that happen in the end where they stay possible; so does an attempt that ends well."""


KINDS: Final[tuple[str, ...]] = (
    "enqueue same",
    "enqueue other",
    "enqueue later",
    "dispatch",
    "sync",
    "crash",
    "cut",
    "boot",
    "wake",
    "start",
    *(
        f"finish {how}"
        for how in (
            "ok",
            "fail",
            "fatal",
            "timeout",
            "died",
            "snooze",
            "child",
            "drained",
            "unheard",
        )
    ),
    "die",
    "recall",
    "recall-cancelled",
    "give-back",
    "stop",
    "late ok",
    "late fail",
    "cancel",
    "requeue",
    "discard",
    "pause",
    "resume",
    "drain",
    "stopped",
)
"""Every kind of action: the witnesses that each is really tried."""


def kind_of(action: Action) -> str:
    """Returns the kind of an action, one of `KINDS`."""
    if action[0] in {"finish", "late", "enqueue"}:
        return f"{action[0]} {action[2]}"
    return str(action[0])


def is_fair(action: Action) -> bool:
    """True for an action that fairness promises."""
    if action[0] == "finish":
        return action[2] in {"ok", "drained"}
    return action[0] in FAIR


class Next:
    """One way on: the action, the world that it leads to, and what is wrong with it."""

    __slots__ = ("action", "step", "world", "wrong")

    def __init__(
        self, action: Action, world: World, wrong: tuple[Wrong, ...], step: Step | None
    ) -> None:
        self.action = action
        self.world = world
        self.wrong = wrong
        self.step = step


class Rules:
    """Says what may come next in a world.  One instance serves one exploration."""

    def __init__(self, space: Space, parts: Parts | None = None) -> None:
        self.space = space
        self.parts = parts or Parts(space)
        self.scope = space.scope
        self._tidied: dict[Any, tuple[int, int, int, int]] = {}
        self._checked: dict[tuple[str, int, int], Wrong | None] = {}
        self._spent: dict[tuple[int, int], int] = {}

    def start(self) -> World:
        """Returns the first world: a server that is up, over an empty store."""
        scope, parts = self.scope, self.parts
        globe = Globe(
            UP,
            False,
            scope.crashes,
            scope.losses,
            scope.snoozes,
            scope.cancels,
            scope.requeues,
            scope.discards,
            scope.pauses,
            scope.resubmits,
            scope.drains,
            scope.children,
        )
        return (
            parts.globe(globe),
            self.space.start(),
            parts.batch(()),
            parts.told((0,) * scope.jobs),
            parts.crew(((),) * scope.workers),
            parts.stale(()),
        )

    # -- what may come next ----------------------------------------------------------------------

    def successors(self, world: World) -> list[Next]:
        """Returns every way on from a world."""
        moment = Moment(self, world)
        phase = moment.globe.phase
        moment.crashes()
        if phase == DOWN:
            moment.down()
            return moment.out
        if moment.batch:
            moment.sync()
        if phase == BOOTING:
            return moment.out
        moment.workers_act()
        moment.late_reports()
        if phase == UP:
            moment.wakes()
            moment.clients()
            moment.dispatches()
        else:
            moment.drained()
        return moment.out

    def spend(self, globe: int, bound: str) -> int:
        """Returns the globe with one less of a bound."""
        value: Globe = self.parts.globes.values[globe]
        return self.parts.globe(value._replace(**{bound: getattr(value, bound) - 1}))

    # -- rules that tests break ----------------------------------------------------------------------

    def told_at_once(self, effects: tuple[Effect, ...], batch: tuple[Entry, ...]) -> bool:
        """Rule: a reply goes out at once only if nothing that it rests on waits for a sync."""
        return not batch

    def started(self, world: World, globe: Globe, crew: tuple[Worker, ...]) -> tuple[Stale, ...]:
        """Rule: at BOOT the slots name every unresolved token up to the highest one started.

        Returns:
            (job, label) of each, for the workers as the dead server left them.
        """
        rows = self.space.rows[world[1]]
        found: list[Stale] = []
        for worker in crew:
            begun = [i for i, held in enumerate(worker) if held.phase in {RUNNING, SPENT}]
            upto = worker[: begun[-1] + 1] if begun else ()
            found += [
                (held.job, held.label)
                for held in upto
                if rows[held.job].state == IN_FLIGHT and rows[held.job].label == held.label
            ]
        return tuple(sorted(found))

    def after_expiry(self, worker: Worker) -> Worker:
        """Rule: the worker of an expired attempt is killed and reaped before the log says so."""
        return killed(worker)

    def may_drain(self, batch: tuple[Entry, ...]) -> bool:
        """Rule: an orderly stop first writes what is open, and sends what that dispatches."""
        return not batch

    def resolved(self, held: Held, durable: int) -> bool:
        """Rule: an attempt is forgotten only once the disk says how it ended."""
        row = self.space.rows[durable][held.job]
        return row.state != IN_FLIGHT or row.label != held.label

    # -- what must hold in every world ------------------------------------------------------------------

    def check(self, world: World) -> list[Wrong]:
        """Returns what is wrong with a world."""
        globe, durable, _, told, crew, _ = world
        wrong = [
            self._remember("promises", told, durable),
            self._remember("exclusive", crew, 0),
        ]
        if self.parts.globes.values[globe].phase in {UP, DRAINING}:
            wrong.append(self._remember("held", self.parts.memory(world), crew))
        return [w for w in wrong if w is not None]

    def _remember(self, what: str, first: int, second: int) -> Wrong | None:
        key = (what, first, second)
        try:
            return self._checked[key]
        except KeyError:
            check = {
                "promises": self._check_promises,
                "exclusive": self._check_exclusive,
                "held": self._check_held,
            }[what]
            found = self._checked[key] = check(first, second)
            return found

    def _check_promises(self, told: int, durable: int) -> Wrong | None:
        rows = self.space.rows[durable]
        for job, bits in enumerate(self.parts.tolds.values[told]):
            broken = broken_promise(bits, rows[job]) if bits else ""
            if broken:
                name = "completes_once" if bits & TOLD_DONE else "nothing_acknowledged_is_lost"
                return Wrong(name, f"job {NAMES[job]}: {broken}")
        return None

    def _check_exclusive(self, crew: int, _: int) -> Wrong | None:
        running: set[int] = set()
        for worker in self.parts.crews.values[crew]:
            for held in worker:
                if held.phase == RUNNING:
                    if held.job in running:
                        return Wrong("exclusive", f"job {NAMES[held.job]} runs twice at once")
                    running.add(held.job)
        return None

    def _check_held(self, memory: int, crew: int) -> Wrong | None:
        held = [
            (h.job, h.label)
            for worker in self.parts.crews.values[crew]
            for h in worker
            if h.phase in HELD
        ]
        for job, row in enumerate(self.space.rows[memory]):
            if row.state == IN_FLIGHT and held.count((job, row.label)) != 1:
                holders = held.count((job, row.label))
                return Wrong("in_flight_is_held", f"{NAMES[job]} is held by {holders} workers")
        return None

    # -- keeping worlds small -----------------------------------------------------------------------------

    def tidy(self, durable: int, batch: int, crew: int, stale: int) -> tuple[int, int, int, int]:
        """Drops attempts that are resolved, and renames the labels that are left by rank."""
        key = (durable, batch, crew, stale)
        try:
            return self._tidied[key]
        except KeyError:
            tidied = self._tidied[key] = self._tidy(*key)
            return tidied

    def _tidy(self, durable: int, batch: int, crew: int, stale: int) -> tuple[int, int, int, int]:
        parts, space = self.parts, self.space
        entries: tuple[Entry, ...] = parts.batches.values[batch]
        workers: tuple[Worker, ...] = parts.crews.values[crew]
        mids = [durable, *(entry.mid for entry in entries)]
        workers = tuple(
            tuple(
                h
                for h in worker
                if h.phase in HELD or not all(self.resolved(h, mid) for mid in mids)
            )
            for worker in workers
        )
        if space.concrete:
            return durable, batch, parts.crew(workers), stale
        late: tuple[Stale, ...] = parts.stales.values[stale]
        for job in range(self.scope.jobs):
            mids = [durable, *(entry.mid for entry in entries)]
            alive = {space.rows[mid][job].label for mid in mids} - {0}
            alive |= {held.label for worker in workers for held in worker if held.job == job}
            alive |= {label for j, label in late if j == job}
            names = {label: rank for rank, label in enumerate(sorted(alive), 1)}
            if any(label != rank for label, rank in names.items()):
                durable = space.relabel(durable, job, names)
                entries = tuple(
                    Entry(space.relabel(entry.mid, job, names), entry.effects)
                    for entry in entries
                )
                workers = tuple(
                    tuple(h._replace(label=names[h.label]) if h.job == job else h for h in worker)
                    for worker in workers
                )
                late = tuple((j, names[label] if j == job else label) for j, label in late)
        return durable, parts.batch(entries), parts.crew(workers), parts.stale(late)


def killed(worker: Worker) -> Worker:
    """Returns a worker that was killed: what it had not read is to be given back."""
    return tuple(
        held._replace(phase=LOST) if held.phase in {UNSENT, SENT} else held for held in worker
    )


def told_after(told: tuple[int, ...], effects: tuple[Effect, ...]) -> tuple[int, ...]:
    """Returns what clients know after replies went out."""
    if not effects:
        return told
    bits = list(told)
    for job, effect in effects:
        if effect == FORGET:
            bits[job] = 0
        elif effect == REVIVE:
            bits[job] &= ~TOLD_CANCEL
        else:
            bits[job] |= effect
            # The last word on a job implies the earlier ones.
            for last in (TOLD_DONE, TOLD_GONE):
                if bits[job] & last:
                    bits[job] = last
    return tuple(bits)


def freeing(effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
    """Returns the effects that hold once they are on disk, whoever was told."""
    return tuple(effect for effect in effects if effect[1] in {FORGET, REVIVE})


class Moment:
    """One world, taken apart, and the ways on from it that have been found."""

    def __init__(self, rules: Rules, world: World) -> None:
        self.rules, self.space, self.parts = rules, rules.space, rules.parts
        self.scope = rules.scope
        self.world = world
        self.globe_id, self.durable, self.batch_id, self.told_id, self.crew_id, self.stale_id = world
        parts = self.parts
        self.globe: Globe = parts.globes.values[self.globe_id]
        self.batch: tuple[Entry, ...] = parts.batches.values[self.batch_id]
        self.crew: tuple[Worker, ...] = parts.crews.values[self.crew_id]
        self.stale: tuple[Stale, ...] = parts.stales.values[self.stale_id]
        self.memory = self.batch[-1].mid if self.batch else self.durable
        self.rows = self.space.rows[self.memory]
        self.full = len(self.batch) >= self.scope.batch
        self.out: list[Next] = []

    def add(self, action: Action, world: World, wrong: tuple[Wrong, ...] = ()) -> None:
        self.out.append(Next(action, world, wrong, None))

    def with_worker(self, place: int, worker: Worker) -> int:
        """Returns the workers with one of them changed."""
        crew = self.crew
        return self.parts.crew((*crew[:place], worker, *crew[place + 1 :]))

    def submit(
        self,
        action: Action,
        ask: Ask,
        *,
        worker: int = 0,
        globe: int | None = None,
        crew: int | None = None,
        stale: int | None = None,
        reply: Effect | None = None,
        wrong: tuple[Wrong, ...] = (),
    ) -> None:
        """Puts a command to the model in memory, and into the batch."""
        rules, parts = self.rules, self.parts
        step = self.space.step(self.memory, ask, worker + 1)
        step.edges += 1
        effects = step.effects
        if reply is not None and (not step.refusal or step.refusal == "conflict"):
            effects = (*effects, reply)
        batch, told = self.batch_id, self.told_id
        changed = step.mid != self.memory
        if changed or effects:
            waits = changed or bool(self.batch)
            if not rules.told_at_once(effects, (Entry(step.mid, ()),) if waits else ()):
                batch = parts.batch((*self.batch, Entry(step.mid, effects)))
            else:
                if waits:
                    message = "a reply went out before the sync of what it rests on"
                    wrong = (*wrong, Wrong("released_when_durable", message))
                    batch = parts.batch((*self.batch, Entry(step.mid, ())))
                told = parts.told(told_after(parts.tolds.values[told], effects))
        world = (
            self.globe_id if globe is None else globe,
            self.durable,
            batch,
            told,
            self.crew_id if crew is None else crew,
            self.stale_id if stale is None else stale,
        )
        self.out.append(Next(action, world, (*step.wrong, *wrong), step))

    # -- the server's end and beginning ---------------------------------------------------------------

    def crashes(self) -> None:
        """The server ends at once; any prefix of the batch's commands has reached the disk."""
        globe = self.globe
        if not globe.crashes or globe.phase == DOWN:
            return
        for cut in (False, True) if self.scope.power else (False,):
            down = globe._replace(phase=DOWN, cut=globe.cut or cut, crashes=globe.crashes - 1)
            kept, told = -1, self.parts.tolds.values[self.told_id]
            for keep, mid in enumerate((self.durable, *(entry.mid for entry in self.batch))):
                if keep:
                    # Nobody is told, but what frees a client's knowledge is on disk.
                    told = told_after(told, freeing(self.batch[keep - 1].effects))
                if mid == kept:
                    continue
                kept = mid
                workers = tuple(self._bereft(worker, mid, cut=cut) for worker in self.crew)
                empty = self.parts.batch(())
                durable, batch, crew, stale = self.rules.tidy(
                    mid, empty, self.parts.crew(workers), self.stale_id
                )
                number = self.parts.told(told)
                world = (self.parts.globe(down), durable, batch, number, crew, stale)
                self.add(("cut" if cut else "crash", keep), world)

    def _bereft(self, worker: Worker, durable: int, *, cut: bool) -> Worker:
        """Returns a worker whose server is gone: what was not sent never comes."""
        rows, left = self.space.rows[durable], []
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

    def down(self) -> None:
        """No server: its workers may go on, until the next start kills them, or may live on."""
        for place, worker in enumerate(self.crew):
            running = [i for i, held in enumerate(worker) if held.phase == RUNNING]
            unread = [i for i, held in enumerate(worker) if held.phase == SENT]
            if unread and not running:
                self.add(("start", place), self._began(place, unread[0]))
            elif unread and running:
                index = running[0]
                ended = set_phase(worker, index, SPENT)
                stale = self._outlived(worker[index : index + 1])
                world = (*self.world[:4], self.with_worker(place, ended), stale)
                self.add(("finish", place, "unheard"), world)
        self._boot()

    def _began(self, place: int, index: int) -> World:
        worker = set_phase(self.crew[place], index, RUNNING)
        return (*self.world[:4], self.with_worker(place, worker), self.stale_id)

    def _outlived(self, entries: tuple[Held, ...]) -> int:
        """Returns the attempts that may still be reported although their server is gone."""
        if not self.scope.stale:
            return self.stale_id
        return self.parts.stale((*self.stale, *((h.job, h.label) for h in entries)))

    def _boot(self) -> None:
        """A server starts: leftovers are killed, the slots are read, BOOT is decided."""
        cut, parts = self.globe.cut, self.parts
        running = tuple(h for worker in self.crew for h in worker if h.phase == RUNNING)
        crew = tuple(
            tuple(h._replace(phase=SPENT if h.phase in {RUNNING, SPENT} else SPARED) for h in worker)
            for worker in self.crew
        )
        begun = {(h.job, h.label) for worker in crew for h in worker if h.phase == SPENT}
        started = () if cut else self.rules.started(self.world, self.globe, self.crew)
        step = self.space.step(self.durable, ("boot", started, cut))
        step.edges += 1
        wrong = list(step.wrong)
        for move in step.moves:
            attempt = (move.job, self.rows[move.job].label)
            charged = move.trigger in {Trigger.TIMEOUT, Trigger.DEAD}
            if attempt in begun and move.trigger == Trigger.RELEASE:
                message = f"{NAMES[move.job]} had begun, and BOOT gave its attempt back"
                wrong.append(Wrong("started_is_charged", message))
            elif attempt not in begun and charged and not cut:
                message = f"{NAMES[move.job]} had not begun, and BOOT charged its attempt"
                wrong.append(Wrong("started_is_charged", message))
        globe = parts.globe(self.globe._replace(phase=BOOTING))
        batch = parts.batch((Entry(step.mid, step.effects),))
        world = (globe, self.durable, batch, self.told_id, parts.crew(crew), self._outlived(running))
        self.out.append(Next(("boot",), world, tuple(wrong), step))

    def sync(self) -> None:
        """Commands reach the disk, all or the first ones while others came in meanwhile.

        Then their replies go out, and their attempts go to the workers.
        """
        for count in range(1, len(self.batch) + 1):
            self._sync(count)

    def _sync(self, count: int) -> None:
        parts, globe = self.parts, self.globe
        told = parts.tolds.values[self.told_id]
        for entry in self.batch[:count]:
            told = told_after(told, entry.effects)
        durable = self.batch[count - 1].mid
        rows = self.space.rows[durable]
        crew = tuple(
            tuple(
                h._replace(phase=SENT)
                if h.phase == UNSENT and rows[h.job].label == h.label
                else h
                for h in worker
            )
            for worker in self.crew
        )
        number = self.globe_id
        if globe.phase == BOOTING:
            number = parts.globe(globe._replace(phase=UP, cut=False))
        durable, batch, crew_id, stale = self.rules.tidy(
            durable, parts.batch(self.batch[count:]), parts.crew(crew), self.stale_id
        )
        world = (number, durable, batch, parts.told(told), crew_id, stale)
        self.add(("sync", count), world)

    def drained(self) -> None:
        """The server has stopped in order once no worker holds anything and all is synced."""
        if not self.batch and not any(h.phase in HELD for worker in self.crew for h in worker):
            number = self.parts.globe(self.globe._replace(phase=DOWN))
            self.add(("stopped",), (number, *self.world[1:]))

    # -- workers ----------------------------------------------------------------------------------------

    def workers_act(self) -> None:
        """What each worker may do, and what the server does with it."""
        for place, worker in enumerate(self.crew):
            for index, held in enumerate(worker):
                if held.phase == RUNNING:
                    if not self.full:
                        self._running(place, worker, index, held)
                elif held.phase == SENT:
                    self._unread(place, worker, index, held)
                elif held.phase == LOST and not self.full:
                    gone = self.with_worker(place, set_phase(worker, index, SPARED))
                    ask = ("release", held.job, held.label, Cause.NEVER_STARTED)
                    self.submit(("give-back", place, index), ask, crew=gone)
            self._recall(place, worker)
            idle = any(h.phase in {SENT, UNSENT} for h in worker) and not any(
                h.phase in {RUNNING, LOST} for h in worker
            )
            if idle and self.globe.losses:
                world = (*self.world[:4], self.with_worker(place, killed(worker)), self.stale_id)
                globe = self.rules.spend(self.globe_id, "losses")
                self.add(("die", place), (globe, *world[1:]))

    def _recall(self, place: int, worker: Worker) -> None:
        """All that a worker has not read is taken back at once, and given back in one go.

        Else a later attempt could start before the log gives back an earlier one, and its
        slot would say that both had begun.
        """
        unread = [i for i, held in enumerate(worker) if held.phase == SENT]
        runs = any(held.phase == RUNNING for held in worker)
        if not unread or not (runs or self.globe.phase == DRAINING):
            return
        if self.globe.phase == UP and any(held.phase == UNSENT for held in worker):
            return  # What joined the same frame goes out with what is given back.
        if len(self.batch) + len(unread) > max(self.scope.batch, len(unread)):
            return
        entries, memory = list(self.batch), self.memory
        wrong: tuple[Wrong, ...] = ()
        for index in unread:
            held = worker[index]
            ask = ("release", held.job, held.label, Cause.NEVER_STARTED)
            step = self.space.step(memory, ask, place + 1)
            step.edges += 1
            wrong = (*wrong, *step.wrong)
            memory = step.mid
            entries.append(Entry(memory, step.effects))
            worker = set_phase(worker, index, SPARED)
        batch = self.parts.batch(tuple(entries))
        crew = self.with_worker(place, worker)
        world = (self.globe_id, self.durable, batch, self.told_id, crew, self.stale_id)
        self.add(("recall", place), world, wrong)

    def _running(self, place: int, worker: Worker, index: int, held: Held) -> None:
        """User code runs: it may end in any way."""
        scope, globe, job, label = self.scope, self.globe, held.job, held.label
        ended = set_phase(worker, index, SPENT)
        crew = self.with_worker(place, ended)
        dead = self.with_worker(place, killed(ended))
        self.submit(("finish", place, "ok"), ("complete", job, label, -1), crew=crew)
        if scope.fails:
            self.submit(("finish", place, "fail"), ("fail", job, label, Cause.FAILED), crew=crew)
        if scope.fatal:
            ask: Ask = ("fail", job, label, Cause.NOT_RETRYABLE)
            self.submit(("finish", place, "fatal"), ask, crew=crew)
        if scope.timeouts:
            expired = self.rules.after_expiry(set_phase(worker, index, SPENT))
            over = self.with_worker(place, expired)
            self.submit(("finish", place, "timeout"), ("expire", job, label), crew=over)
        if globe.losses:
            ask = ("fail", job, label, Cause.WORKER_LOST)
            spent = self.rules.spend(self.globe_id, "losses")
            self.submit(("finish", place, "died"), ask, crew=dead, globe=spent)
        if globe.snoozes:
            ask = ("release", job, label, Cause.SNOOZE)
            spent = self.rules.spend(self.globe_id, "snoozes")
            self.submit(("finish", place, "snooze"), ask, crew=crew, globe=spent)
        if globe.children:
            spent = self.rules.spend(self.globe_id, "children")
            for child, row in enumerate(self.rows):
                if child != job and (row.state == NEW or globe.resubmits):
                    ask = ("complete", job, label, child)
                    action = ("finish", place, "child", child)
                    self.submit(action, ask, crew=crew, globe=spent)
        if globe.phase == DRAINING:
            ask = ("release", job, label, Cause.DRAIN)
            self.submit(("finish", place, "drained"), ask, crew=dead)
        if self._cancel_is_durable(held):
            self.submit(("stop", place), ("confirm", job, label), crew=dead)

    def _unread(self, place: int, worker: Worker, index: int, held: Held) -> None:
        """The worker has not read it: it may start it, or the server may take it back."""
        if not any(h.phase in {RUNNING, LOST} for h in worker) and not any(
            h.phase == SENT for h in worker[:index]
        ):
            self.add(("start", place), self._began(place, index))
        if self.full:
            return
        crew = self.with_worker(place, set_phase(worker, index, SPARED))
        job, label = held.job, held.label
        if self._cancel_is_durable(held):
            ask: Ask = ("confirm", job, label)
            self.submit(("recall-cancelled", place, index), ask, crew=crew)

    def _cancel_is_durable(self, held: Held) -> bool:
        for mid in (self.durable, self.memory):
            row = self.space.rows[mid][held.job]
            if row.state != IN_FLIGHT or row.label != held.label or not row.cancel:
                return False
        return True

    def late_reports(self) -> None:
        """A worker that outlived its server reports what nobody waits for."""
        if self.full:
            return
        for index, (job, label) in enumerate(self.stale):
            left = self.parts.stale((*self.stale[:index], *self.stale[index + 1 :]))
            asks: dict[str, Ask] = {
                "ok": ("complete", job, label, -1),
                "fail": ("fail", job, label, Cause.FAILED),
            }
            for how, ask in asks.items():
                count = len(self.out)
                self.submit(("late", index, how), ask, stale=left)
                found = self.out[count]
                globe, durable, batch, told, crew, stale = found.world
                tidied = self.rules.tidy(durable, batch, crew, stale)
                found.world = (globe, tidied[0], tidied[1], told, tidied[2], tidied[3])

    # -- time, clients, operators, dispatches ----------------------------------------------------------------

    def wakes(self) -> None:
        """The time of a waiting job comes: in memory, and in what recovery would read."""
        for job, row in enumerate(self.rows):
            if row.waiting:
                space = self.space
                batch = tuple(Entry(space.wake(e.mid, job), e.effects) for e in self.batch)
                world = (
                    self.globe_id,
                    space.wake(self.durable, job),
                    self.parts.batch(batch),
                    *self.world[3:],
                )
                self.add(("wake", job), world)

    def clients(self) -> None:
        """Requests of clients and operators."""
        if self.full:
            return
        globe, scope, spend = self.globe, self.scope, self.rules.spend
        for job, row in enumerate(self.rows):
            reply = (job, REPLIES["enqueue"])
            if row == ABSENT:
                self.submit(("enqueue", job, "same"), ("enqueue", job, "same"), reply=reply)
                if scope.scheduled:
                    self.submit(("enqueue", job, "later"), ("enqueue", job, "later"), reply=reply)
                continue
            if globe.resubmits:
                spent = spend(self.globe_id, "resubmits")
                for variant in ("same", "other"):
                    ask: Ask = ("enqueue", job, variant)
                    self.submit(ask, ask, reply=reply, globe=spent)
            if row.state not in LIVE:
                continue
            for word, bound in (
                ("cancel", "cancels"),
                ("requeue", "requeues"),
                ("discard", "discards"),
            ):
                if getattr(globe, bound) and not self.space.step(self.memory, (word, job)).refusal:
                    told = (job, REPLIES[word]) if word in REPLIES else None
                    spent = spend(self.globe_id, bound)
                    self.submit((word, job), (word, job), reply=told, globe=spent)
        if self.space.models[self.memory].paused:
            self.submit(("resume",), ("pause", False))
        elif globe.pauses:
            spent = spend(self.globe_id, "pauses")
            self.submit(("pause",), ("pause", True), globe=spent)
        if globe.drains and self.rules.may_drain(self.batch):
            number = self.parts.globe(globe._replace(phase=DRAINING, drains=globe.drains - 1))
            self.add(("drain",), (number, *self.world[1:]))

    def dispatches(self) -> None:
        """Every job that may be dispatched, to every worker with room."""
        if self.full:
            return
        for place, worker in enumerate(self.crew):
            holds = [held for held in worker if held.phase in HELD]
            if len(holds) >= self.scope.prefetch or any(h.phase == LOST for h in holds):
                continue
            for job, row in enumerate(self.rows):
                if row.state != PENDING:
                    continue
                label = 1 + max(self._labels(job), default=0)
                ask = ("dispatch", job, label, bool(holds))
                step = self.space.step(self.memory, ask, place + 1)
                if step.refusal and not step.wrong:
                    continue
                crew = self.with_worker(place, (*worker, Held(job, step.label, UNSENT)))
                self.submit(("dispatch", job, place), ask, crew=crew, worker=place)

    def _labels(self, job: int) -> list[int]:
        rows = self.space.rows
        labels = [rows[self.durable][job].label]
        labels += [rows[entry.mid][job].label for entry in self.batch]
        labels += [held.label for worker in self.crew for held in worker if held.job == job]
        return labels + [label for j, label in self.stale if j == job]


def set_phase(worker: Worker, index: int, phase: int) -> Worker:
    """Returns a worker with one attempt in another phase."""
    return (*worker[:index], worker[index]._replace(phase=phase), *worker[index + 1 :])
