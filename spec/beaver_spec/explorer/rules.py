"""The rules of the world: every action that may come next, and where it leads.

The model decides; these rules say what the rest does around it: when a batch is synced and
its replies go out, what a crash leaves, what the slots say at BOOT, when a worker may start,
and what the server reports of a worker that is gone.  They follow `beaver.engine`,
`beaver.dispatch` and `beaver.server.serve`.  Methods that open with "Rule:" are the ones that
tests replace by broken ones; what each action does stands in `server_rules`, `worker_rules`
and `client_rules`.

What may not live here: how worlds are stored (`world`), and in which order they are visited.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from beaver_spec.explorer.properties import TOLD_CANCEL, TOLD_DONE, TOLD_GONE, Wrong, broken_promise
from beaver_spec.explorer.rows import IN_FLIGHT, NAMES, JobRow
from beaver_spec.explorer.space import Space
from beaver_spec.explorer.steps import FORGET, REVIVE, Effect
from beaver_spec.explorer.world import (
    BEGUN,
    DRAINING,
    HELD,
    RUNS,
    SPARED,
    SPENT,
    UNSENT,
    UP,
    Entry,
    Globe,
    HeldAttempt,
    Parts,
    Rest,
    Stale,
    Worker,
    World,
    is_former,
    killed,
    rest_of,
    set_phase,
)


class Rules:
    """Says what may come next in a world.  One instance serves one exploration."""

    def __init__(self, space: Space, parts: Parts | None = None) -> None:
        self.space = space
        self.parts = parts or Parts(space)
        self.scope = space.scope
        self._tidied: dict[Any, tuple[int, int, int, int]] = {}
        self._checked: dict[tuple[str, int, int], Wrong | None] = {}

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
            scope.reloads,
        )
        return (
            parts.globe(globe),
            self.space.start(),
            parts.batch(()),
            parts.crew(((),) * scope.workers),
            parts.stale(()),
            parts.told((0,) * scope.jobs),
        )

    def tell(self, told: int, effects: tuple[Effect, ...]) -> int:
        """Returns what clients know after replies went out."""
        return self.parts.told(told_after(self.parts.tolds.values[told], effects))

    def spend(self, globe: int, bound: str) -> int:
        """Returns the globe with one less of a bound."""
        value: Globe = self.parts.globes.values[globe]
        return self.parts.globe(value._replace(**{bound: getattr(value, bound) - 1}))

    # -- rules that tests break ------------------------------------------------------------------

    def told_at_once(self, effects: tuple[Effect, ...], batch: tuple[Entry, ...]) -> bool:
        """Rule: a reply goes out at once only if nothing that it rests on waits for a sync."""
        return not batch

    def started(self, rest: Rest, globe: Globe, crew: tuple[Worker, ...]) -> tuple[Stale, ...]:
        """Rule: at BOOT the slots name every unresolved token up to the highest one started.

        Returns:
            (job, label) of each, for the workers as the dead server left them.
        """
        rows = self.space.rows[rest[1]]
        found: list[Stale] = []
        for worker in crew:
            begun = [i for i, held in enumerate(worker) if held.phase in BEGUN]
            upto = worker[: begun[-1] + 1] if begun else ()
            found += [
                (held.job, held.label)
                for held in upto
                if rows[held.job].state == IN_FLIGHT and rows[held.job].label == held.label
            ]
        return tuple(sorted(found))

    def after_expiry(self, worker: Worker, index: int) -> Worker:
        """Rule: the worker of an expired attempt is killed and reaped before the log says so."""
        return killed(set_phase(worker, index, SPENT))

    def after_kill(self, worker: Worker) -> Worker:
        """Rule: with a process all attempts that it runs end, before the log says so."""
        for index, held in enumerate(worker):
            if held.phase in RUNS:
                worker = set_phase(worker, index, SPENT)
        return killed(worker)

    def is_killed_for_cancels(self, cancelled: Sequence[bool]) -> bool:
        """Rule: a worker is killed for cancels only where each of its offenders was cancelled."""
        return all(cancelled)

    def sends_at_once(self, row: JobRow, worker: Worker) -> bool:
        """Rule: an attempt goes to its worker once its DISPATCH is durable, or a queue opts out.

        Even then a suspect waits, and so does every attempt while its worker gives back, or
        is still to be sent, an earlier one:

        1. `b`, on the disk as in flight, is taken back from the worker; that is not synced.
        2. `c` goes to the same worker early, and starts: the slot holds its token.
        3. A crash loses both; BOOT reads the slot, and charges `b`, which never began.
        """
        behind = any(held.phase in {SPARED, UNSENT} for held in worker)
        return self.scope.early and not row.suspect and not behind

    def last_words(self, worker: Worker) -> bool:
        """Rule: of a worker that was reaped its last outcomes are read before its fate is told."""
        return True

    def gives_back(self) -> bool:
        """Rule: what a dead worker had not begun is given back."""
        return True

    def on_disk(self, durable: int, synced: int) -> int:
        """Rule: what was synced is on the disk; anything else is for tests."""
        return synced

    def may_drain(self, batch: tuple[Entry, ...]) -> bool:
        """Rule: an orderly stop first writes what is open, and sends what that dispatches."""
        return not batch

    def may_hand_over(self, batch: tuple[Entry, ...]) -> bool:
        """Rule: new workers take over once what is open is written, and what it dispatches sent.

        1. `b` waits at the old worker; the DISPATCH of `c` to it is not synced.
        2. New workers take over: `b` is given back.  Then `c` goes out, and starts.
        3. A crash loses what gave `b` back; BOOT reads the slot, and charges it.
        """
        return not batch

    def lets_go(self) -> bool:
        """Rule: what an old worker has not begun is given back as new ones take over."""
        return True

    def resolved(self, held: HeldAttempt, durable: int) -> bool:
        """Rule: an attempt is forgotten only once the disk says how it ended."""
        row = self.space.rows[durable][held.job]
        return row.state != IN_FLIGHT or row.label != held.label

    # -- what must hold in every world -----------------------------------------------------------

    def check(self, world: World) -> list[Wrong]:
        """Returns what is wrong with a world."""
        wrong = [self.check_promises(world[5], world[1]), *self.check_rest(rest_of(world))]
        return [w for w in wrong if w is not None]

    def check_promises(self, told: int, durable: int) -> Wrong | None:
        """Returns what was told and does not stand on the disk."""
        return self._remember("promises", told, durable)

    def check_rest(self, rest: Rest) -> list[Wrong]:
        """Returns what is wrong with a world whatever clients know."""
        wrong = [self._remember("exclusive", rest[3], 0)]
        if self.parts.globes.values[rest[0]].phase in {UP, DRAINING}:
            wrong.append(self._remember("held", self.parts.memory(rest), rest[3]))
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
                if held.phase in RUNS:
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

    # -- keeping worlds small --------------------------------------------------------------------

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
        kept = [
            tuple(
                h
                for h in worker
                if h.phase in HELD or not all(self.resolved(h, mid) for mid in mids)
            )
            for worker in workers
        ]
        # A former worker with nothing left is gone, and its place with it.
        workers = tuple(k for k, w in zip(kept, workers, strict=True) if k or not is_former(w))
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
                    Entry(space.relabel(entry.mid, job, names), entry.effects) for entry in entries
                )
                workers = tuple(
                    tuple(h._replace(label=names[h.label]) if h.job == job else h for h in worker)
                    for worker in workers
                )
                late = tuple((j, names[label] if j == job else label) for j, label in late)
        return durable, parts.batch(entries), parts.crew(workers), parts.stale(late)


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
