"""One world as its parts, and the ways on from it.

What lives here: what the rules of server, workers and clients share (`server_rules`,
`worker_rules`, `client_rules`): reading the parts of a world, and putting a command to the
model in memory and into the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from beaver_spec.explorer.actions import Action
from beaver_spec.explorer.properties import Ask, Wrong
from beaver_spec.explorer.rows import IN_FLIGHT, NAMES
from beaver_spec.explorer.rules import Rules
from beaver_spec.explorer.steps import FORGET, REVIVE, Effect, Step
from beaver_spec.explorer.world import (
    Entry,
    Globe,
    HeldAttempt,
    Rest,
    Stale,
    Worker,
    World,
    as_former,
    is_former,
)


class Way:
    """One way on: the action, the rest of the world after it, and what clients are told.

    It stands for every world with the rest that it was found in, whatever clients know there.
    """

    __slots__ = ("action", "rest", "steps", "tells", "wrong")

    def __init__(
        self,
        action: Action,
        rest: Rest,
        wrong: tuple[Wrong, ...] = (),
        steps: tuple[Step, ...] = (),
        tells: tuple[Effect, ...] = (),
    ) -> None:
        self.action = action
        self.rest = rest
        self.wrong = wrong
        self.steps = steps
        """The model's answers; empty if it was not asked."""
        self.tells = tells


class Next(NamedTuple):
    """A way on from one world, and the world that it leads to."""

    action: Action
    world: World
    wrong: tuple[Wrong, ...]
    steps: tuple[Step, ...]


class Moment:
    """A world without what clients know, taken apart, and the ways on that have been found."""

    def __init__(self, rules: Rules, rest: Rest) -> None:
        self.rules, self.space, self.parts = rules, rules.space, rules.parts
        self.scope = rules.scope
        self.rest = rest
        self.globe_id, self.durable, self.batch_id, self.crew_id, self.stale_id = rest
        parts = self.parts
        self.globe: Globe = parts.globes.values[self.globe_id]
        self.batch: tuple[Entry, ...] = parts.batches.values[self.batch_id]
        self.crew: tuple[Worker, ...] = parts.crews.values[self.crew_id]
        self.stale: tuple[Stale, ...] = parts.stales.values[self.stale_id]
        self.memory = self.batch[-1].mid if self.batch else self.durable
        self.rows = self.space.rows[self.memory]
        self.full = len(self.batch) >= self.scope.batch
        self.out: list[Way] = []

    def add(
        self,
        action: Action,
        rest: Rest,
        wrong: tuple[Wrong, ...] = (),
        steps: tuple[Step, ...] = (),
        tells: tuple[Effect, ...] = (),
    ) -> None:
        """Notes a way on."""
        self.out.append(Way(action, rest, wrong, steps, tells))

    def with_worker(self, place: int, worker: Worker) -> int:
        """Returns the workers with one of them changed."""
        crew = self.crew
        if is_former(crew[place]):
            worker = as_former(worker)
        return self.parts.crew((*crew[:place], worker, *crew[place + 1 :]))

    def _unasked(self, memory: int, ask: Ask, step: Step) -> tuple[Wrong, ...]:
        """Returns what is wrong where the server confirms a cancel that nobody asked for."""
        if ask[0] != "confirm" or step.mid == memory:
            return ()
        job = ask[1]
        assert isinstance(job, int)
        if self.space.rows[memory][job].cancel:
            return ()
        message = f"{NAMES[job]} is cancelled, and nobody asked for it"
        return (Wrong("cancel_is_asked", message),)

    def cancel_is_durable(self, held: HeldAttempt) -> bool:
        """Returns whether the log says for good that an attempt is to be cancelled."""
        for mid in (self.durable, self.memory):
            row = self.space.rows[mid][held.job]
            if row.state != IN_FLIGHT or row.label != held.label or not row.cancel:
                return False
        return True

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
    ) -> None:
        """Puts a command to the model in memory, and into the batch."""
        rules, parts = self.rules, self.parts
        step = self.space.step(self.memory, ask, worker + 1)
        effects, wrong = step.effects, step.wrong
        if reply is not None and (not step.refusal or step.refusal == "conflict"):
            effects = (*effects, reply)
        batch = self.batch_id
        tells: tuple[Effect, ...] = ()
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
                tells = effects
        rest = (
            self.globe_id if globe is None else globe,
            self.durable,
            batch,
            self.crew_id if crew is None else crew,
            self.stale_id if stale is None else stale,
        )
        self.add(action, rest, wrong, (step,), tells)

    def chain(
        self,
        action: Action,
        asks: Sequence[Ask],
        *,
        crew: int,
        worker: int = 0,
        globe: int | None = None,
        stale: int | None = None,
    ) -> None:
        """Puts several commands to the model in one go, if the batch has room for them."""
        if len(self.batch) + len(asks) > max(self.scope.batch, len(asks)):
            return
        entries, memory = list(self.batch), self.memory
        wrong: tuple[Wrong, ...] = ()
        steps: tuple[Step, ...] = ()
        for ask in asks:
            step = self.space.step(memory, ask, worker + 1)
            steps, wrong = (*steps, step), (*wrong, *step.wrong, *self._unasked(memory, ask, step))
            if step.mid != memory or step.effects:
                memory = step.mid
                entries.append(Entry(memory, step.effects))
        batch = self.parts.batch(tuple(entries))
        number = self.globe_id if globe is None else globe
        late = self.stale_id if stale is None else stale
        self.add(action, (number, self.durable, batch, crew, late), wrong, steps)


def freeing(effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
    """Returns the effects that hold once they are on disk, whoever was told."""
    return tuple(effect for effect in effects if effect[1] in {FORGET, REVIVE})
