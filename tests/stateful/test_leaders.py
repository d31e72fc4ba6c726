"""Servers that lead one replicated log in turn: the real engine over a journal kept remotely.

Each server follows the log, tries to lead it with a BOOT, decides and answers while it does,
and when it is deposed discards the whole engine, rebuilds from snapshots and journal, and
follows.  The network loses, delays and reorders, and the cluster drops what it had not yet
committed.  It is checked that

- an answer is given only for what is in the log, whatever happens later;
- at most one server's commits count in an epoch, and every server reads the same state;
- whoever is deposed tells nobody anything more, and is never ended by it;
- at rest one server can lead, and what it is asked for is answered.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from beaver.engine.engine import Engine
from beaver.engine.replies import Applied, Reply
from beaver.errors import LostLeadership
from beaver.snapshot.port import MemorySnapshots
from beaver.store.rebuild import Replica, rebuild
from beaver_model import fingerprint, violations
from beaver_model.commands import Boot, Enqueue
from tests.journal.remote import Network, RemoteJournal, Stream
from tests.stateful.played import stepped_loop
from tests.stateful.running import SEEN, Runs
from tests.stateful.stores import MovedClock
from tests.stateful.strategies import CHANCE, NOW_MS
from tests.worlds.model import job

pytestmark = pytest.mark.invariants

TIMES = 1.0
SERVERS = st.integers(0, 2)


class Server:
    """One server of a cluster."""

    def __init__(self, name: str, stream: Stream, network: Network, kept: MemorySnapshots) -> None:
        self.name, self.stream, self.network, self.kept = name, stream, network, kept
        self.lives = 0
        self.clock = MovedClock(NOW_MS)
        self.engine: Engine | None = None
        self.leads = False
        """Its BOOT is in the log."""
        self.follow()

    def follow(self) -> None:
        """Begins anew: from the newest snapshot and the log."""
        self.leads, self.engine, self.lives = False, None, self.lives + 1
        self.loop = stepped_loop()
        self.journal = RemoteJournal(self.stream, self.network)
        self.replica: Replica = rebuild(self.journal, self.kept)

    def lead(self) -> None:
        """Tries to: whoever comes second behind the same place is deposed."""
        self.replica.catch_up()
        self.journal.position = self.replica.position or (0,)
        with self.loop.running():
            self.engine = Engine(
                self.replica.state, self.journal, self.clock, on_failure=self.failed
            )
        self.engine.submit(Boot(writer=f"{self.name}.{self.lives}"), self.booted)
        self.loop.settle()

    def booted(self, reply: Reply) -> None:
        assert isinstance(reply, Applied)
        self.leads = True
        SEEN.witness("a server leads")

    def failed(self, error: BaseException) -> None:
        assert isinstance(error, LostLeadership), "deposed, never ended"
        SEEN.witness("a leader is deposed" if self.leads else "a server that wants to lead is late")
        self.is_deposed = True

    is_deposed = False

    def notice(self) -> None:
        """Discards everything once it is deposed."""
        if self.is_deposed:
            assert self.engine is not None
            self.engine.discard()
            self.is_deposed = False
            self.follow()


class Leaders(RuleBasedStateMachine):
    """Three servers and their log."""

    @initialize()
    def begin(self) -> None:
        self.stream, self.network, self.kept = Stream(), Network(), MemorySnapshots()
        self.servers = [
            Server(name, self.stream, self.network, self.kept) for name in ("one", "two", "three")
        ]
        self.asked = 0
        self.acknowledged: dict[str, int] = {}

    def turn(self) -> None:
        for server in self.servers:
            server.loop.settle()
            server.notice()

    @rule(number=SERVERS)
    def suspects(self, number: int) -> None:
        """It has heard nothing for a while: the leader may be dead, or only slow."""
        server = self.servers[number]
        if server.engine is None:
            server.lead()
        self.turn()

    @rule(number=SERVERS, count=st.integers(1, 3))
    def ask(self, number: int, count: int) -> None:
        server = self.servers[number]
        if server.engine is None:
            return
        for _ in range(count):
            self.asked += 1
            name = f"job-{self.asked}"

            def told(reply: Reply, name: str = name) -> None:
                assert isinstance(reply, Applied)
                self.acknowledged[name] = reply.first_seq

            server.engine.submit(Enqueue([job(name)]), told)
        self.turn()

    @rule(steps=st.integers(1, 40), chance=CHANCE)
    def the_network_works(self, steps: int, chance: Random) -> None:
        draw = chance.randrange
        for _ in range(steps):
            what, under_way, tail = draw(10), self.network.under_way, self.stream.tail
            if what < 5 and under_way:
                self.network.deliver(draw(len(under_way)))
            elif what == 5 and under_way:
                self.network.lose(draw(len(under_way)))
            elif what == 6 and tail:
                self.stream.change_leader()
            elif what < 9 and tail:
                self.stream.commit()
            else:
                self.servers[draw(3)].journal.ask()
            self.turn()

    @rule(number=SERVERS)
    def snapshot(self, number: int) -> None:
        """A follower takes it: what it holds is committed."""
        server = self.servers[number]
        if server.engine is None:
            server.replica.catch_up()
            self.kept.save(self.stream.store, server.replica.snapshot())

    @rule(number=SERVERS)
    def killed(self, number: int) -> None:
        """Also in the middle of an append, which may arrive later."""
        server = self.servers[number]
        server.journal.abandon()
        server.is_deposed = False
        server.follow()

    @rule()
    def rest(self) -> None:
        """The network works again: everybody has an outcome, and somebody can lead."""
        for server in self.servers:
            server.journal.wait()
        self.turn()
        for server in self.servers:
            server.journal.wait()
        self.turn()
        server = self.servers[0]
        for _ in range(3):
            if server.leads:
                break
            if server.engine is None:
                server.lead()
            server.journal.wait()
            self.turn()
        assert server.leads, "with a network that works somebody leads"
        told: list[Reply] = []
        assert server.engine is not None
        self.asked += 1
        server.engine.submit(Enqueue([job(f"job-{self.asked}")]), told.append)
        server.loop.settle()
        server.journal.wait()
        self.turn()
        if server.leads:
            assert [type(reply) for reply in told] == [Applied]

    @invariant()
    def what_was_acknowledged_is_in_the_log(self) -> None:
        if not hasattr(self, "servers"):
            return
        replica = rebuild(RemoteJournal(self.stream, self.network), MemorySnapshots())
        assert violations(replica.state) == []
        for name, seq in self.acknowledged.items():
            assert replica.state.seq_of(name) == seq, f"{name} was acknowledged and is gone"
        assert replica.voided == 0, "the fence alone keeps a deposed writer's commits out"
        for server in self.servers:
            if server.engine is None:
                server.replica.catch_up()
                assert fingerprint(server.replica.state) == fingerprint(replica.state)

    def teardown(self) -> None:
        if hasattr(self, "servers"):
            self.rest()


def test_whoever_leads_nothing_acknowledged_is_lost(runs: Runs) -> None:
    runs(Leaders, TIMES)
