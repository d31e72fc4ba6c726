"""Every journal agrees with every other: one machine drives them all, and they tell the same.

A journal in memory, the log on disk on either way to it, and one that is kept by a cluster
whose network loses, delays and reorders what it carries, and whose leader changes.  Commits,
rivals that append first, quiet moments, reopenings, kills in the middle of an append and
readings from any place come in every order.  It is checked that

- all tell the same outcome, and hold the same commits behind every place;
- what was appended stays, what was deposed never appears, and what was killed in the middle is
  there whole or not at all;
- a place that was stored stays good, whatever has happened since.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from beaver.journal.port import Appended, AppendOutcome, Deposed, Position
from beaver_model.events import AnyEvent
from tests.journal.journals import KINDS, Journals, OnDisk, Remote
from tests.stateful.running import SEEN, Runs
from tests.stateful.strategies import CHANCE
from tests.worlds.journal import enqueued

pytestmark = pytest.mark.invariants

TIMES = 1.0
DISTURBED_STEPS = st.integers(0, 30)
NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3, unique=True)


class Agreement(RuleBasedStateMachine):
    """One list of commits, and what every journal makes of it."""

    @initialize()
    def begin(self) -> None:
        self.all: list[Journals] = [kind() for kind in KINDS]
        self.expected: list[list[AnyEvent]] = []
        self.is_late = False
        """Somebody else has appended since the journals were opened."""
        self.places: list[list[Position]] = [[] for _ in self.all]
        """Of each journal, the places behind its commits."""
        self.ends = [kept.journal.position for kept in self.all]
        """Where each writer believes that its journal ends."""

    def batch(self, names: list[str]) -> list[AnyEvent]:
        return [enqueued(f"{name}-{len(self.expected)}") for name in names]

    # -- what is done ------------------------------------------------------------------------

    @rule(names=NAMES, steps=DISTURBED_STEPS, chance=CHANCE)
    def append(self, names: list[str], steps: int, chance: Random) -> None:
        events = self.batch(names)
        outcomes = []
        for kept, end in zip(self.all, self.ends, strict=True):
            started = kept.start(events, end)
            self.settle(kept, steps, chance)
            (outcome,) = started
            outcomes.append(outcome)
        assert {type(outcome) for outcome in outcomes} == {Deposed if self.is_late else Appended}
        if self.is_late:
            SEEN.witness("a late writer is deposed by every journal")
            self.reopen()
        else:
            self.took(events, outcomes)

    def took(self, events: list[AnyEvent], outcomes: list[AppendOutcome]) -> None:
        self.expected.append(events)
        for index, outcome in enumerate(outcomes):
            assert isinstance(outcome, Appended)
            self.places[index].append(outcome.position)
            self.ends[index] = outcome.position

    def settle(self, kept: Journals, steps: int, chance: Random) -> None:
        """Lets the network of a cluster do what it can for a while, and then work."""
        if isinstance(kept, Remote):
            for _ in range(steps):
                self.disturb(kept, chance.randrange)
        kept.journal.wait()

    def disturb(self, kept: Remote, draw: Callable[[int], int]) -> None:
        network, stream = kept.network, kept.stream
        what = draw(8)
        if what < 4 and network.under_way:
            index = draw(len(network.under_way))
            SEEN.witness("messages of a cluster change places", index > 0)
            network.deliver(index)
        elif what == 4 and network.under_way:
            SEEN.witness("a message of a cluster is lost")
            network.lose(draw(len(network.under_way)))
        elif what == 5 and stream.tail:
            SEEN.witness("a cluster changes its leader and drops a tail")
            stream.change_leader()
        elif what == 6 and stream.tail:
            stream.commit()
        else:
            kept.journal.ask()

    @rule(names=NAMES)
    def a_rival_appends(self, names: list[str]) -> None:
        """Behind this writer's back."""
        events = self.batch(names)
        for kept in self.all:
            kept.rival(events)
        self.expected.append(events)
        for index, kept in enumerate(self.all):
            self.places[index].append(kept.commits()[-1].position)
        self.is_late = True

    @rule()
    def a_quiet_moment(self) -> None:
        for kept in self.all:
            kept.journal.idle()

    @rule()
    def reopen(self) -> None:
        for kept in self.all:
            kept.open()
        self.ends = [kept.journal.position for kept in self.all]
        self.is_late = False

    @rule(names=NAMES, steps=DISTURBED_STEPS, chance=CHANCE)
    def killed_in_the_middle(self, names: list[str], steps: int, chance: Random) -> None:
        """Nobody is told; the next writer finds the commit, or makes it again."""
        if self.is_late:
            self.reopen()
        events, before = self.batch(names), len(self.expected)
        for kept, end in zip(self.all, self.ends, strict=True):
            kept.start(events, end)
            if isinstance(kept, Remote):
                for _ in range(steps):
                    self.disturb(kept, chance.randrange)
        self.reopen()
        outcomes: list[AppendOutcome] = []
        for kept in self.all:
            found = kept.commits()
            assert len(found) in {before, before + 1}, "whole, or not at all"
            if len(found) > before:
                SEEN.witness("a commit in doubt survives")
                outcomes.append(Appended(found[-1].position, 0, 0.0))
                continue
            SEEN.witness("a commit in doubt is lost")
            outcome = kept.append(events)
            if isinstance(outcome, Deposed):
                # It was on its way still, and arrived before this one.
                assert isinstance(kept, Remote)
                SEEN.witness("a commit in doubt comes late")
                kept.open()
                outcome = Appended(kept.journal.position, 0, 0.0)
            outcomes.append(outcome)
        self.took(events, outcomes)

    # -- what holds --------------------------------------------------------------------------

    @rule(chance=CHANCE)
    def read_from_anywhere(self, chance: Random) -> None:
        if self.expected:
            index = chance.randrange(len(self.expected))
            for kept, places in zip(self.all, self.places, strict=True):
                told = [events for _, events in kept.events(places[index])]
                assert told == self.expected[index + 1 :]

    @invariant()
    def all_tell_the_same(self) -> None:
        for kept in getattr(self, "all", ()):
            assert [events for _, events in kept.events()] == self.expected
            if isinstance(kept, OnDisk):
                seqs = [commit.first_seq for commit in kept.commits()]
                assert seqs == [
                    1 + sum(map(len, self.expected[:index])) for index in range(len(seqs))
                ]


def test_all_journals_agree(runs: Runs) -> None:
    runs(Agreement, TIMES)
