"""The same world over whole states of the real model: real seqs, tokens and times.

The explorer compresses numbers by rank, treats jobs and workers alike, and remembers what
the model answered. This module does none of that: every command goes to the real `decide` and
`apply`, on the state that the log really led to.  A counterexample is replayed here before
it is told, and sampled paths of every exploration are, so that the compression is checked
against the model itself (`agreement`).

A step happens every 10 ms.  A job that has to wait becomes ready at the step that wakes it,
which is known ahead, so that jobs become ready in whatever order the explorer found.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from beaver_model import Rejection, freeze, thaw
from beaver_model.events import AnyEvent
from beaver_model.freezing import Frozen
from beaver_model.legality import JudgedFrame
from beaver_model.state import Header, State
from beaver_spec.explorer.actions import Action
from beaver_spec.explorer.explorer import Explorer, can_end
from beaver_spec.explorer.model_under_test import ModelUnderTest
from beaver_spec.explorer.moment import Next
from beaver_spec.explorer.properties import Wrong, check_step
from beaver_spec.explorer.rows import (
    NOW_MS,
    QUEUE,
    JobRow,
    Model,
    queues_of,
    seen_buried,
    seen_rows,
)
from beaver_spec.explorer.rules import Rules
from beaver_spec.explorer.scopes import Scope
from beaver_spec.explorer.space import Space
from beaver_spec.explorer.steps import Step, effects_of, is_job_event, move_of
from beaver_spec.explorer.ways import successors
from beaver_spec.explorer.world import Globe, Parts, World

STEP_MS: Final = 10
FAR_STEPS: Final = 10_000
"""A job that no later step wakes waits for so many steps."""


class Broken(AssertionError):
    """A property does not hold in a replayed history."""


class _Rows:
    """The rows of each state, as of now."""

    def __init__(self, space: ConcreteSpace) -> None:
        self._space = space

    def __getitem__(self, mid: int) -> tuple[JobRow, ...]:
        space = self._space
        state = thaw(*space.states[mid])
        labels = {token: token for token in state.in_flight}
        return seen_rows(state, space.scope.jobs, space.now, labels)


class _Models:
    """The current view of each state for the properties."""

    def __init__(self, space: ConcreteSpace) -> None:
        self._space = space

    def __getitem__(self, mid: int) -> Model:
        state = thaw(*self._space.states[mid])
        paused = state.queues[QUEUE].row.paused
        return Model(self._space.rows[mid], paused, seen_buried(state, ordered=True))


class _NoSigns:
    """Nothing is sorted here."""

    def __init__(self, jobs: int) -> None:
        self._signs = (0,) * jobs

    def __getitem__(self, mid: int) -> tuple[int, ...]:
        return self._signs


class ConcreteSpace(Space):
    """States with all their numbers.  A label is a token here."""

    concrete = True

    def __init__(self, scope: Scope, model: ModelUnderTest | None = None) -> None:
        super().__init__(scope, model)
        self.states: list[Frozen] = []
        self.now = NOW_MS
        self.dues: tuple[int, ...] = (NOW_MS,) * scope.jobs
        """For each job: when it becomes ready if it has to wait now."""
        self._numbers: dict[Frozen, int] = {}
        self._taken: dict[Any, Step] = {}
        self.rows: Any = _Rows(self)
        self.models: Any = _Models(self)
        self.row_ids: Any = _NoSigns(scope.jobs)

    def start(self) -> int:
        """Returns the empty store."""
        header = Header(0, NOW_MS, 1, self.limits.tombstones_max, 0)
        queues = queues_of(paused=False, second=self.scope.second)
        return self._number(freeze(thaw(header, queues, [], [])))

    def _number(self, frozen: Frozen) -> int:
        number = self._numbers.setdefault(frozen, len(self.states))
        if number == len(self.states):
            self.states.append(frozen)
        return number

    def wake(self, mid: int, job: int) -> int:
        """Returns the state: only the clock moves, which the replay does."""
        return mid

    def token(self, job: int, label: int) -> int:
        """Returns the token, which is its own label here."""
        return label

    def due_ms(self, job: int) -> int:
        """Returns when a job that has to wait now becomes ready."""
        return self.dues[job]

    def now_ms(self) -> int:
        """Returns the time of this step."""
        return self.now

    def thawed(self, mid: int, *, indexed: bool = True) -> State:
        """Returns a whole state."""
        return thaw(*self.states[mid], indexed=indexed)

    def step(self, mid: int, ask: Any, worker: int = 1) -> Step:
        """Returns what a command leads to on a whole state, now."""
        key = (mid, ask, worker, self.now, self.dues)
        step = self._taken.get(key)
        if step is None:
            step = self._taken[key] = self._take_whole(mid, ask, worker)
        return step

    def _take_whole(self, mid: int, ask: Any, worker: int) -> Step:
        before, state = self.models[mid], thaw(*self.states[mid])
        while state.advance(self.now):
            pass
        step = Step(mid)
        decision = self.model.decide(state, self._command(ask, worker), self.now)
        if isinstance(decision, Rejection):
            step.refusal = decision.code
            step.wrong = tuple(self._check_refusal(before, ask, decision))
            return step
        frame = JudgedFrame(self.now, state.last_seq + 1, decision)
        for event in decision:
            reason = self.model.legal(state, event, frame)
            if reason is not None:
                step.wrong = (Wrong("events_are_legal", f"{event.NAME}: {reason}"),)
                return step
            self.model.apply(state, event, self.now)
        if ask[0] == "dispatch":
            step.label = state.last_seq
        elif ask[0] == "dispatch-several":
            step.labels = tuple(range(state.last_seq + 1 - len(decision), state.last_seq + 1))
        step.moves = tuple(map(move_of, filter(is_job_event, decision)))
        wrong = [Wrong(*message.split(": ", 1)) for message in self.model.violations(state)]
        frozen = freeze(state)
        wrong += self._check_replay(mid, decision, frozen)
        step.mid = self._number(frozen)
        step.events = decision
        after = self.models[step.mid]
        step.wrong = (*wrong, *check_step(before, ask, step.moves, after, self.limits))
        step.effects = tuple(effects_of(step.moves, before, after))
        return step


class Happened(NamedTuple):
    """One step of a replayed history."""

    action: Action
    before: World
    after: World
    refusal: str
    """Why the model refused it, or nothing."""
    events: Sequence[AnyEvent] | None
    """The model's answer; `None` if it was not asked."""
    first_seq: int
    wrong: tuple[Wrong, ...]


class ConcreteReplay:
    """Runs a history over whole states, one action after the other."""

    def __init__(
        self,
        scope: Scope,
        model: ModelUnderTest | None = None,
        rules: type[Rules] = Rules,
    ) -> None:
        self.space = ConcreteSpace(scope, model)
        self.rules = rules(self.space, Parts(self.space))
        self.world = self.rules.start()
        self.happened: list[Happened] = []

    def run(self, actions: Sequence[Action]) -> bool:
        """Takes the actions in order.  False where one is not possible (any more)."""
        for index, action in enumerate(actions):
            self.space.now = NOW_MS + STEP_MS * index
            if not self._take(index, action, actions):
                return False
        return True

    def _take(self, index: int, action: Action, actions: Sequence[Action]) -> bool:
        space = self.space
        if action[0] == "wake":
            # Until this step it had to wait: look from just before it.
            space.now -= 1
            possible = any(way.action == action for way in successors(self.rules, self.world))
            space.now += 1
            if possible:
                self._note(Next(action, self.world, (), ()), self.world)
            return possible
        far = NOW_MS + STEP_MS * FAR_STEPS
        dues = [far] * space.scope.jobs
        for later in range(len(actions) - 1, index, -1):
            if actions[later][0] == "wake":
                dues[actions[later][1]] = NOW_MS + STEP_MS * later
        space.dues = tuple(dues)
        before = self.world
        for way in successors(self.rules, before):
            if way.action == action:
                self.world = way.world
                self._note(way, before)
                return True
        return False

    def probe(self) -> Sequence[Wrong]:
        """Puts every command to the state on disk."""
        self.space.now += STEP_MS
        return self.space.probe(self.world[1])

    def _note(self, way: Next, before: World) -> None:
        memory = self.rules.parts.memory(before)
        events = [e for step in way.steps for e in step.events] if way.steps else None
        first_seq = self.space.states[memory].header.last_seq + 1
        wrong = (*way.wrong, *self.rules.check(way.world))
        refusal = way.steps[-1].refusal if way.steps else ""
        self.happened.append(
            Happened(way.action, before, way.world, refusal, events, first_seq, wrong)
        )


def replay(
    scope: Scope,
    actions: Sequence[Action],
    *,
    ends: bool = False,
    probe: bool = False,
    model: ModelUnderTest | None = None,
    rules: type[Rules] = Rules,
) -> ConcreteReplay:
    """Replays a history over the real model; what a generated test calls.

    Args:
        scope: The bounds under which it was found.
        actions: The actions in order.  It stops without an error where an action is not
            possible any more: then the history itself cannot happen.
        ends: Also demand that every accepted job can still end afterwards.
        probe: Also put every command to the state that is on disk afterwards.
        model: The functions of the model, the real ones by default.
        rules: The world around it.

    Raises:
        Broken: A property does not hold.
    """
    run = ConcreteReplay(scope, model, rules)
    possible = run.run(actions)
    for number, happened in enumerate(run.happened, 1):
        for wrong in happened.wrong:
            raise Broken(f"step {number} {happened.action}: {wrong.property}: {wrong.message}")
    for wrong in run.probe() if possible and probe else ():
        raise Broken(f"afterwards: {wrong.property}: {wrong.message}")
    if possible and ends and not can_end(scope, actions, model=model, rules=rules):
        raise Broken("no_job_stuck: no fair step leads to the end of every accepted job")
    return run


# -- the explorer's worlds and these -------------------------------------------------------------


def unreduced(
    explorer: Explorer, worlds: Sequence[World], actions: Sequence[Action]
) -> list[Action]:
    """Returns the actions of a path with jobs and workers that keep their names.

    Args:
        explorer: The exploration that found the path.
        worlds: The canonical worlds of the path, the start first.
        actions: The action before each world but the first, named as in its own world.
    """
    rules, canonical = explorer.rules, explorer.symmetry.canonical
    world, named = rules.start(), []
    for target, action in zip(worlds[1:], actions, strict=True):
        way = next(
            way
            for way in successors(rules, world)
            if way.action[0] == action[0]
            and (
                action[0] not in {"finish", "end", "late", "hear", "enqueue"}
                or way.action[2] == action[2]
            )
            and canonical(way.world) == target
        )
        named.append(way.action)
        world = way.world
    return named


def seen(rules: Rules, world: World) -> Any:
    """Returns a world as plain values, with tokens as ranks: the same for both spaces."""
    globe, durable, batch, crew, stale, told = world
    parts, space = rules.parts, rules.space
    entries = parts.batches.values[batch]
    workers = parts.crews.values[crew]
    late = parts.stales.values[stale]
    states = [space.rows[durable], *(space.rows[entry.mid] for entry in entries)]
    ranks: dict[tuple[int, int], int] = {}
    for job in range(space.scope.jobs):
        alive = {rows[job].label for rows in states} - {0}
        alive |= {h.label for worker in workers for h in worker if h.job == job}
        alive |= {label for j, label in late if j == job}
        ranks |= {(job, label): rank for rank, label in enumerate(sorted(alive), 1)}
    value: Globe = parts.globes.values[globe]
    return (
        tuple(value),
        [
            [tuple(row._replace(label=ranks.get((job, row.label), 0))) for job, row in enumerate(s)]
            for s in states
        ],
        [(space.models[mid].paused) for mid in (durable, *(entry.mid for entry in entries))],
        [entry.effects for entry in entries],
        parts.tolds.values[told],
        [[(h.job, ranks[h.job, h.label], h.phase) for h in worker] for worker in workers],
        [(job, ranks[job, label]) for job, label in late],
    )


def agreement(explorer: Explorer, samples: int, seed: int = 0) -> tuple[int, str]:
    """Replays sampled histories of an exploration over whole states.

    Half of them are shortest ways to worlds that it found, with their names restored; half
    are random walks, each world of which it must have found under some names.

    Returns:
        How many steps were compared, and the first difference, or nothing.
    """
    rng = random.Random(seed)  # noqa: S311 - which histories are looked at is no secret
    count = len(explorer.keys)
    compared = 0
    for number in rng.sample(range(count), min(samples, count)):
        for named in (_way_to(explorer, number), _walk(explorer, rng)):
            steps, difference = _compare(explorer, named)
            compared += steps
            if difference:
                return compared, difference
    return compared, ""


WALK_STEPS: Final = 40


def _way_to(explorer: Explorer, number: int) -> list[Action]:
    actions, worlds = explorer.path(number)
    return unreduced(explorer, worlds, actions)


def _walk(explorer: Explorer, rng: random.Random) -> list[Action]:
    rules, world, actions = explorer.rules, explorer.rules.start(), []
    for _ in range(WALK_STEPS):
        ways = successors(rules, world)
        if not ways:
            break
        way = rng.choice(ways)
        world = way.world
        actions.append(way.action)
    return actions


def _compare(explorer: Explorer, named: Sequence[Action]) -> tuple[int, str]:
    """Takes the same steps in both spaces and compares the worlds after each."""
    rules = explorer.rules
    world = rules.start()
    run = ConcreteReplay(explorer.scope, explorer.space.model, type(rules))
    if not run.run(named):
        steps = len(run.happened)
        return steps, f"{named[steps]} is not possible after {named[:steps]}"
    for index, happened in enumerate(run.happened):
        world = next(w.world for w in successors(rules, world) if w.action == happened.action)
        if not explorer.knows(world):
            return index, f"{named[: index + 1]} leads to a world that was not explored"
        run.space.now = NOW_MS + STEP_MS * index
        here, there = seen(rules, world), seen(run.rules, happened.after)
        if here != there:
            return index, f"after {named[: index + 1]} one has {here}, the other {there}"
    return len(run.happened), ""
