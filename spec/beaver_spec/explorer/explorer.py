"""The explorer: breadth first through every world that the rules reach.

It visits each world once, in the order of its distance from the start, so that the first
counterexample is a shortest one.  Worlds that differ only by the names of jobs and workers
are one (`symmetry`), and worlds that differ only by what clients know share their ways on.
Within the bounds of the scope nothing is left out; what
the scope itself leaves out is said in the report.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from array import array
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from beaver_spec.explorer.actions import Action, is_fair, kind_of
from beaver_spec.explorer.model_under_test import ModelUnderTest
from beaver_spec.explorer.properties import Wrong
from beaver_spec.explorer.rows import IN_FLIGHT, PENDING
from beaver_spec.explorer.rules import Rules
from beaver_spec.explorer.scopes import Scope
from beaver_spec.explorer.space import Space, finish_tally
from beaver_spec.explorer.steps import Effect, Step, Tally
from beaver_spec.explorer.symmetry import TOLD_BITS, TOLD_MASK, Symmetry
from beaver_spec.explorer.ways import successors, ways
from beaver_spec.explorer.world import DOWN, UP, Rest, World, rest_of

PROGRESS_EVERY: Final = 2_000
"""States between two calls of a progress function."""

RulesOf = Callable[[Space], Rules]
Progress = Callable[[int, int], None]
"""Called with the states seen and those still to be expanded."""


class Counterexample(NamedTuple):
    """A violation and the shortest path to it: actions, and the worlds after each."""

    wrong: Wrong
    actions: tuple[Action, ...]
    worlds: tuple[World, ...]
    """Canonical worlds: the first is the start."""
    probed: bool = False
    """It takes one more command, which the world does not send, to show what is wrong."""


class Exploration(NamedTuple):
    """The result of one exploration."""

    scope: Scope
    states: int
    transitions: int
    diameter: int
    models: int
    """States of the model alone, those that differ by the names of jobs once."""
    seconds: float
    memory_mb: float
    tally: Tally
    actions: dict[str, int]
    """Edges by the kind of action."""
    counterexample: Counterexample | None
    ends: int
    """States in which every accepted job has ended."""
    complete: bool
    """False where it stopped at a counterexample or at `states_max`."""


class Edge(NamedTuple):
    """A way on from every world with one rest, as the search needs it."""

    rest: int
    tells: tuple[Effect, ...]
    action: int
    fair: bool
    wrong: tuple[Wrong, ...]


class Explorer:
    """One exploration of one scope."""

    def __init__(
        self,
        scope: Scope,
        *,
        model: ModelUnderTest | None = None,
        rules: RulesOf = Rules,
        space: Space | None = None,
        ignore: frozenset[str] = frozenset(),
        states_max: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Prepares an exploration; `run` carries it out.

        Args:
            scope: The bounds.
            model: The functions to explore; the real ones by default.
            rules: The world around the model; tests pass broken ones.
            space: The states of the model; tests pass broken ones.
            ignore: Properties that do not count, so that tests see others.
            states_max: Where to stop; 0 means never.
            progress: Called every so often.
        """
        self.scope = scope
        self.space = space or Space(scope, model)
        self.rules = rules(self.space)
        self.parts = self.rules.parts
        self.symmetry = Symmetry(self.parts)
        self.ignore = ignore
        self.states_max = states_max
        self.progress = progress
        self.keys = array("Q")
        """The key of each world, in the order in which they were found."""
        self._numbers: dict[int, int] = {}
        """The number of the world that each key leads to, canonical or not."""
        self._parents = array("I")
        self._by_action = array("H")
        self._actions: list[Action] = []
        self._action_numbers: dict[Action, int] = {}
        self._edges: dict[int, list[Edge]] = {}
        self._steps: dict[int, list[Step]] = {}
        self._visits: dict[int, int] = {}
        """For each rest: worlds that have it, edges from them, and what these asked."""
        self._tells: dict[tuple[int, tuple[Effect, ...]], int] = {}
        self._sound: set[int] = set()
        """Rests with which nothing is wrong."""
        self._fair_sources = array("I")
        self._fair_targets = array("I")

    def run(self) -> Exploration:
        """Explores the scope until it is done or something is wrong."""
        started = time.perf_counter()
        collecting = gc.isenabled()
        # Millions of tuples of numbers, none in a cycle: collecting them finds nothing.
        gc.disable()
        try:
            found, diameter, complete = self._search()
        finally:
            if collecting:
                gc.enable()
        if found is None and complete:
            found = self._probe()
        if found is None and complete and "no_job_stuck" not in self.ignore:
            found = self._check_ends()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        actions = self._count_edges()
        return Exploration(
            scope=self.scope,
            states=len(self.keys),
            transitions=sum(actions.values()),
            diameter=diameter,
            models=self.space.models_count(),
            seconds=time.perf_counter() - started,
            memory_mb=peak / (1 << 20 if sys.platform == "darwin" else 1 << 10),
            tally=finish_tally(self.space),
            actions=actions,
            counterexample=found,
            ends=len(self._ended()),
            complete=complete and found is None,
        )

    def _search(self) -> tuple[Counterexample | None, int, bool]:
        """Returns what is wrong, how far away the last world is, and whether it came to an end."""
        keys, numbers, edges, visits, tells_of = (
            self.keys,
            self._numbers,
            self._edges,
            self._visits,
            self._tells,
        )
        fair_sources, fair_targets = self._fair_sources, self._fair_targets
        self._add(self.symmetry.canonical_key(self.symmetry.key(self.rules.start())), 0, 0)
        diameter, at, level_end = 0, 0, 1
        while at < len(keys):
            if at == level_end:
                diameter += 1
                level_end = len(keys)
            if self.progress is not None and at % PROGRESS_EVERY == 0:
                self.progress(len(keys), len(keys) - at)
            if self.states_max and len(keys) > self.states_max:
                return None, diameter, False
            rest, told = keys[at] >> TOLD_BITS, keys[at] & TOLD_MASK
            found = edges.get(rest)
            if found is None:
                found = self._expand(rest)
            visits[rest] += 1
            for target, tells, action, fair, wrong in found:
                key = target << TOLD_BITS
                if tells:
                    heard = tells_of.get((told, tells))
                    if heard is None:
                        heard = tells_of[told, tells] = self.rules.tell(told, tells)
                    key |= heard
                else:
                    key |= told
                if wrong:
                    return self._wrong_step(wrong[0], at, action, key), diameter, False
                number = numbers.get(key)
                if number is None:
                    number, counterexample = self._reach(key, at, action)
                    if counterexample is not None:
                        return counterexample, diameter, False
                if fair:
                    fair_sources.append(at)
                    fair_targets.append(number)
            at += 1
        return None, diameter, True

    def _expand(self, rest: int) -> list[Edge]:
        """Asks the rules for the ways on from every world with a rest, once."""
        symmetry = self.symmetry
        steps: list[Step] = []
        found: list[Edge] = []
        self._edges[rest] = found
        for way in ways(self.rules, symmetry.rests[rest]):
            found.append(
                Edge(
                    symmetry.rest(way.rest),
                    way.tells,
                    self._number_of(way.action),
                    is_fair(way.action),
                    self._counted(way.wrong),
                )
            )
            steps += way.steps
        self._steps[rest] = steps
        self._visits[rest] = 0
        return found

    def _reach(self, key: int, parent: int, action: int) -> tuple[int, Counterexample | None]:
        """Returns the number of a key that was not met yet, and what is wrong with its world."""
        canonical = self.symmetry.canonical_key(key)
        number = self._numbers.get(canonical)
        if number is not None:
            self._numbers[key] = number
            return number, None
        number = self._add(canonical, parent, action)
        self._numbers[key] = number
        wrong = self._check(canonical >> TOLD_BITS, canonical & TOLD_MASK)
        return number, self._counterexample(wrong[0], number) if wrong else None

    def _check(self, number: int, told: int) -> tuple[Wrong, ...]:
        """Returns what is wrong with a world; what its rest says is looked at once."""
        rest = self.symmetry.rests[number]
        broken = self.rules.check_promises(told, rest[1])
        wrong = self._counted((broken,)) if broken is not None else ()
        if number not in self._sound:
            wrong = (*wrong, *self._counted(self.rules.check_rest(rest)))
            if not wrong:
                self._sound.add(number)
        return wrong

    def _add(self, key: int, parent: int, action: int) -> int:
        number = self._numbers[key] = len(self.keys)
        self.keys.append(key)
        self._parents.append(parent)
        self._by_action.append(action)
        return number

    def _counted(self, wrong: Collection[Wrong]) -> tuple[Wrong, ...]:
        return tuple(w for w in wrong if w.property not in self.ignore) if wrong else ()

    def _count_edges(self) -> dict[str, int]:
        """Returns the edges by kind of action, and counts those of each step of the model."""
        counts: dict[str, int] = {}
        for rest, edges in self._edges.items():
            visits = self._visits[rest]
            for edge in edges:
                kind = kind_of(self._actions[edge.action])
                counts[kind] = counts.get(kind, 0) + visits
            for step in self._steps[rest]:
                step.edges += visits
        return counts

    def _probe(self) -> Counterexample | None:
        """Puts every command to every state of the model that can be on disk."""
        probed: set[int] = set()
        rests: set[int] = set()
        for number, key in enumerate(self.keys):
            rest = key >> TOLD_BITS
            if rest in rests:
                continue
            rests.add(rest)
            durable = self.symmetry.rests[rest][1]
            if durable not in probed:
                probed.add(durable)
                wrong = self._counted(self.space.probe(durable))
                if wrong:
                    return self._counterexample(wrong[0], number)._replace(probed=True)
        return None

    # -- eventually ------------------------------------------------------------------------------

    def has_ended(self, rest: Rest) -> bool:
        """True where every accepted job has ended, and nothing waits for a sync."""
        globe, durable, batch, _, _ = rest
        if (
            self.parts.globes.values[globe].phase not in {UP, DOWN}
            or self.parts.batches.values[batch]
        ):
            return False
        return all(row.state not in {PENDING, IN_FLIGHT} for row in self.space.rows[durable])

    def _ended(self) -> list[int]:
        """Returns the worlds in which every accepted job has ended."""
        ends = [self.has_ended(rest) for rest in self.symmetry.rests]
        return [number for number, key in enumerate(self.keys) if ends[key >> TOLD_BITS]]

    def _check_ends(self) -> Counterexample | None:
        """Every world must reach an end of all accepted jobs by fair steps alone.

        Walks backwards over the fair edges from the worlds that have ended.  With strong
        fairness, and with what is unfair bounded, that is "every job ends eventually".
        """
        count = len(self.keys)
        offsets = array("I", bytes(4 * (count + 1)))
        for target in self._fair_targets:
            offsets[target + 1] += 1
        for index in range(count):
            offsets[index + 1] += offsets[index]
        sources = array("I", bytes(4 * len(self._fair_sources)))
        cursor = array("I", offsets)
        for source, target in zip(self._fair_sources, self._fair_targets, strict=True):
            sources[cursor[target]] = source
            cursor[target] += 1
        reached = bytearray(count)
        stack = self._ended()
        for number in stack:
            reached[number] = 1
        while stack:
            number = stack.pop()
            for source in sources[offsets[number] : offsets[number + 1]]:
                if not reached[source]:
                    reached[source] = 1
                    stack.append(source)
        stuck = reached.find(0)
        if stuck < 0:
            return None
        message = "from here no fair step leads to the end of every accepted job"
        return self._counterexample(Wrong("no_job_stuck", message), stuck)

    # -- the way to a world ----------------------------------------------------------------------

    def _number_of(self, action: Action) -> int:
        number = self._action_numbers.get(action)
        if number is None:
            number = self._action_numbers[action] = len(self._actions)
            self._actions.append(action)
        return number

    def world(self, number: int) -> World:
        """Returns a world that was found."""
        return self.symmetry.world(self.keys[number])

    def knows(self, world: World) -> bool:
        """True where the world was found, under some names of jobs and workers."""
        return self.symmetry.canonical_key(self.symmetry.key(world)) in self._numbers

    def path(self, number: int) -> tuple[list[Action], list[World]]:
        """Returns the shortest way to a world: its actions, and the worlds with the start."""
        actions: list[Action] = []
        worlds = [self.world(number)]
        while number:
            actions.append(self._actions[self._by_action[number]])
            number = self._parents[number]
            worlds.append(self.world(number))
        return actions[::-1], worlds[::-1]

    def _counterexample(self, wrong: Wrong, number: int) -> Counterexample:
        actions, worlds = self.path(number)
        return Counterexample(wrong, tuple(actions), tuple(worlds))

    def _wrong_step(self, wrong: Wrong, number: int, action: int, key: int) -> Counterexample:
        actions, worlds = self.path(number)
        target = self.symmetry.world(self.symmetry.canonical_key(key))
        return Counterexample(wrong, (*actions, self._actions[action]), (*worlds, target))


def can_end(
    scope: Scope,
    actions: Sequence[Action],
    *,
    model: ModelUnderTest | None = None,
    rules: RulesOf = Rules,
) -> bool:
    """True where, after these actions, fair steps can bring every accepted job to its end."""
    explorer = Explorer(scope, model=model, rules=rules)
    world = explorer.rules.start()
    for action in actions:
        ways = successors(explorer.rules, world)
        world = next(way.world for way in ways if way.action == action)
    canonical = explorer.symmetry.canonical
    seen = {canonical(world)}
    waiting = list(seen)
    while waiting:
        world = waiting.pop()
        if explorer.has_ended(rest_of(world)):
            return True
        for way in successors(explorer.rules, world):
            target = canonical(way.world)
            if is_fair(way.action) and target not in seen:
                seen.add(target)
                waiting.append(target)
    return False
