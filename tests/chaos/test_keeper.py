"""Keepers and producers killed at random: nothing that was acknowledged is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import read_commits
from beaver.store.recovery import read_store
from beaver.structs.views import Accepted
from beaver.system.disk import SystemDisk
from beaver.transport import endpoint
from beaver_chaos.checker.client_record import ClientRecord
from beaver_chaos.checker.history import HistoryCheck
from beaver_chaos.checker.stories import compare_stories
from beaver_model.invariants import violations
from tests.support.program import beaver, eventually, serving
from tests.worlds.keeper import ended, is_alive, keeper_pid, no_keeper_left, python

PRODUCERS = 6
ROUNDS = 14

PRODUCER = """
import sys
from beaver import Beaver
app = Beaver(sys.argv[1])
n = 0
while True:
    name = f"{sys.argv[2]}-{n}"
    print("asks", name, flush=True)
    made = app.enqueue("echo", n, id=name)
    print("told", name, made.seq, flush=True)
    n += 1
"""


class Crowd:
    """Producers that write down what they ask for and are told, until they are killed."""

    def __init__(self, data: Path, accounts: Path) -> None:
        self._data, self._accounts = data, accounts
        accounts.mkdir()
        self._number = 0
        self._running: list[subprocess.Popen[str]] = []

    def fill(self) -> None:
        """Starts producers until there are enough of them again."""
        self._running = [p for p in self._running if p.poll() is None]
        while len(self._running) < PRODUCERS:
            self._number += 1
            name = f"p{self._number}"
            with (self._accounts / name).open("w") as account:
                self._running.append(
                    python(
                        PRODUCER,
                        str(self._data),
                        name,
                        stdout=account.fileno(),
                        stderr=subprocess.DEVNULL,
                    )
                )

    def kill(self, count: int) -> None:
        for producer in random.sample(self._running, count):
            assert producer.poll() is None, producer.stderr
            producer.kill()
            producer.wait()

    def kill_all(self) -> None:
        for producer in self._running:
            producer.kill()
            producer.wait()

    def witness(self) -> ClientRecord:
        """Returns what was asked for, and what was told."""
        witness = ClientRecord()
        for account in sorted(self._accounts.iterdir()):
            last = ""
            for line in account.read_text().splitlines(keepends=True):
                word, name, *seq = line.split() if line.endswith("\n") else ("", "")
                if word == "asks":
                    witness.sending([name])
                    last = name
                elif word == "told":
                    witness.acknowledge([Accepted(name, int(seq[0]), True)])
                    last = ""
            if last:
                witness.lose([last])
        return witness


@pytest.mark.chaos
def test_nothing_acknowledged_is_lost_when_keepers_and_producers_are_killed(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"random.seed({seed})")
    random.seed(seed)
    data = tmp_path / "data"
    crowd = Crowd(data, tmp_path / "accounts")
    keepers = set()
    with no_keeper_left(data):
        try:
            for turn in range(ROUNDS):
                crowd.fill()
                time.sleep(random.uniform(0.05, 0.8))  # chaos comes at any time
                if turn % 3 == 2:
                    crowd.kill(random.randint(1, PRODUCERS // 2))
                    continue
                if turn % 3 == 1:
                    eventually(lambda: keeper_pid(data), "a keeper serves them")
                # One that only starts is as good.
                info = endpoint.read(str(data)) if data.exists() else None
                if info is not None and info.keeper and is_alive(info.pid):
                    keepers.add(info.pid)
                    os.kill(info.pid, signal.SIGKILL)
                    ended(info.pid)
            eventually(lambda: len(crowd.witness().acknowledged) > 100, "many jobs are told")
        finally:
            crowd.kill_all()
        assert len(keepers) > ROUNDS // 4, "keepers were there to be killed"
        witness = crowd.witness()
        history = HistoryCheck()
        history.read(read_commits(SystemDisk(), Layout(str(data)), 0))
        history.compare(witness)
        assert history.violations == []
        state, _ = read_store(SystemDisk(), str(data))
        assert list(violations(state)) == []
        beaver("verify", str(data))
        assert compare_stories(SystemDisk(), Layout(str(data))) == []
        with serving(data) as server:
            server.drained(len(state.jobs))
