"""The explorer: breadth first through every world that the rules reach.

It visits each world once, in the order of its distance from the start, so that the first
counterexample is a shortest one.  Worlds that differ only by the names of jobs and workers
are one (`world.Parts.canonical`).  Within the bounds of the scope nothing is left out; what
the scope itself leaves out is said in the report.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from beaver_spec.actions import Action, is_fair, kind_of
from beaver_spec.properties import Wrong
from beaver_spec.rows import IN_FLIGHT, PENDING
from beaver_spec.rules import Rules
from beaver_spec.scopes import Scope
from beaver_spec.space import ModelUnderTest, Space, Tally, finish_tally
from beaver_spec.world import DOWN, UP, World

PROGRESS_EVERY: Final = 2_000
"""States between two calls of a progress function."""

RulesOf = Callable[[Space], Rules]
Progress = Callable[[int, int], None]
"""Called with the states seen and those still to be expanded."""


class Counterexample(NamedTuple):
    """What is wrong, and the shortest way there, as actions and the worlds after each."""

    wrong: Wrong
    actions: tuple[Action, ...]
    worlds: tuple[World, ...]
    """Canonical worlds: the first is the start."""
    probed: bool = False
    """It takes one more command, which the world does not send, to show what is wrong."""


class Exploration(NamedTuple):
    """What one exploration found."""

    scope: Scope
    states: int
    transitions: int
    diameter: int
    models: int
    """States of the model alone."""
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


class Explorer:
    """One exploration of one scope."""

    def __init__(
        self,
        scope: Scope,
        *,
        model: ModelUnderTest | None = None,
        rules: RulesOf = Rules,
        ignore: frozenset[str] = frozenset(),
        states_max: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Args beyond the obvious.

        Args:
            scope: The bounds.
            model: The functions to explore; the real ones by default.
            rules: The world around the model; tests pass broken ones.
            ignore: Properties that do not count, so that tests see others.
            states_max: Where to stop; 0 means never.
            progress: Called every so often.
        """
        self.scope = scope
        self.space = Space(scope, model)
        self.rules = rules(self.space)
        self.parts = self.rules.parts
        self.ignore = ignore
        self.states_max = states_max
        self.progress = progress
        self.worlds: list[World] = []
        self.numbers: dict[World, int] = {}
        self.parents = array("I")
        self._actions: list[Action] = []
        self._action_numbers: dict[Action, int] = {}
        self._by_action = array("I")
        self._fair_sources = array("I")
        self._fair_targets = array("I")
        self._counts: dict[str, int] = {}

    def run(self) -> Exploration:
        """Explores the scope until it is done or something is wrong."""
        started = time.perf_counter()
        collecting = gc.isenabled()
        # Millions of tuples of numbers, none in a cycle: collecting them finds nothing.
        gc.disable()
        try:
            found, transitions, diameter, complete = self._search()
        finally:
            if collecting:
                gc.enable()
        if found is None and complete:
            found = self._probe()
        if found is None and complete and "no_job_stuck" not in self.ignore:
            found = self._check_ends()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Exploration(
            scope=self.scope,
            states=len(self.worlds),
            transitions=transitions,
            diameter=diameter,
            models=len(self.space.models),
            seconds=time.perf_counter() - started,
            memory_mb=peak / (1 << 20 if sys.platform == "darwin" else 1 << 10),
            tally=finish_tally(self.space),
            actions=self._counts,
            counterexample=found,
            ends=sum(map(self.has_ended, self.worlds)),
            complete=complete and found is None,
        )

    def _search(self) -> tuple[Counterexample | None, int, int, bool]:
        rules, canonical, numbers, worlds = (
            self.rules,
            self.parts.canonical,
            self.numbers,
            self.worlds,
        )
        first = canonical(rules.start())
        numbers[first] = 0
        worlds.append(first)
        self.parents.append(0)
        self._by_action.append(self._number_of(("start",)))
        transitions, diameter, at, level_end = 0, 0, 0, 1
        counts = self._counts
        while at < len(worlds):
            if at == level_end:
                diameter += 1
                level_end = len(worlds)
            if self.progress is not None and at % PROGRESS_EVERY == 0:
                self.progress(len(worlds), len(worlds) - at)
            if self.states_max and len(worlds) > self.states_max:
                return None, transitions, diameter, False
            world = worlds[at]
            for way in rules.successors(world):
                transitions += 1
                action = way.action
                kind = kind_of(action)
                counts[kind] = counts.get(kind, 0) + 1
                target = canonical(way.world)
                number = numbers.get(target)
                if way.wrong:
                    wrong = self._counted(way.wrong)
                    if wrong:
                        found = self._counterexample(wrong[0], at, action, target)
                        return found, transitions, diameter, False
                if number is None:
                    number = numbers[target] = len(worlds)
                    worlds.append(target)
                    self.parents.append(at)
                    self._by_action.append(self._number_of(action))
                    wrong = self._counted(rules.check(target))
                    if wrong:
                        found = self._counterexample(wrong[0], number)
                        return found, transitions, diameter, False
                if is_fair(action):
                    self._fair_sources.append(at)
                    self._fair_targets.append(number)
            at += 1
        return None, transitions, diameter, True

    def _counted(self, wrong: list[Wrong] | tuple[Wrong, ...]) -> list[Wrong]:
        return [w for w in wrong if w.property not in self.ignore]

    def _probe(self) -> Counterexample | None:
        """Puts every command to every state of the model that can be on disk."""
        probed: set[int] = set()
        for number, world in enumerate(self.worlds):
            if world[1] not in probed:
                probed.add(world[1])
                wrong = self._counted(self.space.probe(world[1]))
                if wrong:
                    return self._counterexample(wrong[0], number)._replace(probed=True)
        return None

    # -- eventually ------------------------------------------------------------------------------

    def has_ended(self, world: World) -> bool:
        """True where every accepted job has ended, and nothing waits for a sync."""
        globe, durable, batch, _, _, _ = world
        if (
            self.parts.globes.values[globe].phase not in {UP, DOWN}
            or self.parts.batches.values[batch]
        ):
            return False
        return all(row.state not in {PENDING, IN_FLIGHT} for row in self.space.rows[durable])

    def _check_ends(self) -> Counterexample | None:
        """Every world must reach an end of all accepted jobs by fair steps alone.

        Walks backwards over the fair edges from the worlds that have ended.  With strong
        fairness, and with what is unfair bounded, that is "every job ends eventually".
        """
        count = len(self.worlds)
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
        stack = [n for n, world in enumerate(self.worlds) if self.has_ended(world)]
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

    def path(self, number: int) -> tuple[list[Action], list[World]]:
        """Returns the shortest way to a world: its actions, and the worlds with the start."""
        actions: list[Action] = []
        worlds = [self.worlds[number]]
        while number:
            actions.append(self._actions[self._by_action[number]])
            number = self.parents[number]
            worlds.append(self.worlds[number])
        return actions[::-1], worlds[::-1]

    def _counterexample(
        self,
        wrong: Wrong,
        number: int,
        action: Action | None = None,
        target: World | None = None,
    ) -> Counterexample:
        actions, worlds = self.path(number)
        if action is not None and target is not None:
            actions.append(action)
            worlds.append(target)
        return Counterexample(wrong, tuple(actions), tuple(worlds))


def explore(
    scope: Scope,
    *,
    model: ModelUnderTest | None = None,
    rules: RulesOf = Rules,
    ignore: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> Exploration:
    """Explores a scope; see `Explorer`."""
    return Explorer(scope, model=model, rules=rules, ignore=ignore, progress=progress).run()


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
        ways = explorer.rules.successors(world)
        world = next(way.world for way in ways if way.action == action)
    seen = {explorer.parts.canonical(world)}
    waiting = list(seen)
    while waiting:
        world = waiting.pop()
        if explorer.has_ended(world):
            return True
        for way in explorer.rules.successors(world):
            target = explorer.parts.canonical(way.world)
            if is_fair(way.action) and target not in seen:
                seen.add(target)
                waiting.append(target)
    return False
