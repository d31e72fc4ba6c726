"""The machines reach what they are there for: nothing they claim to try has a count of zero.

Counted over one run of every machine under the profile in force, the runs of the other
tests of this folder where they are part of the session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import get_args

import pytest

from beaver.journal.wal.recovery_table import RecoveryRow
from beaver_model.commands import REJECTIONS, AnyCommand
from beaver_model.events import ALL_EVENTS
from tests.stateful.machines import MACHINES
from tests.stateful.running import SEEN, Runs

pytestmark = pytest.mark.invariants

UNREACHED_REJECTIONS = {
    # A pending job always has an attempt left, or it would be dead: a guard.
    "no_attempt_left",
}
REACHED_ROWS = (
    RecoveryRow.NEW_STORE,
    RecoveryRow.EMPTY_LOG,
    RecoveryRow.OPEN_END,
    RecoveryRow.MARKED_END,
    RecoveryRow.CLOSED_END,
    RecoveryRow.SEALED_EMPTY,
    RecoveryRow.TORN_TAIL,
    RecoveryRow.PREPARED_UNUSED,
    RecoveryRow.SEALING_NOT_LINKED,
    RecoveryRow.SEALING_LINKED,
    RecoveryRow.SNAPSHOT_DAMAGED,
    RecoveryRow.SNAPSHOTS_USELESS,
)
"""Rows of the recovery table that a crash or rot of one file may lead to."""
WITNESSES = (
    "stale outcome",
    "several dispatched at once",
    "several completed at once",
    "clock steps back",
    "clock steps forwards",
    "crash inside a commit",
    "crash inside a recovery",
    "and inside the next",
    "a commit in doubt survived",
    "sealed",
    "pruned",
    "replay from an older snapshot",
    "went on: rot of the last frame",
    "went on: rot behind the last frame",
    "went on: rot of a snapshot",
    "refused: rot before the last frame",
    "refused: rot of a header",
    "refused: a log shorter than its snapshot",
    "refused: stale frame",
    "refused: foreign segment",
    "refused: missing segment",
    "refused: cut segment",
    "asked while a frame is under way",
    "crash while a frame is under way",
    "crash inside a commit of several",
    "a batch in doubt survived",
    "a failed write ends the engine",
    "sealed between commits",
    "prefetched",
    "sent before its DISPATCH is on disk",
    "in flight at a crash",
    "in flight at a crash, begun",
    "a worker dies with work",
    "drain",
    "killed for a limit",
    "killed for a cancel",
    "killed for stillness",
    "killed for a drain",
    "killed for a start that hangs",
    "a late writer is deposed by every journal",
    "messages of a cluster change places",
    "a message of a cluster is lost",
    "a cluster changes its leader and drops a tail",
    "a commit in doubt survives",
    "a commit in doubt is lost",
    "a commit in doubt comes late",
    "a server leads",
    "a leader is deposed",
    "a server that wants to lead is late",
    "a pull is got",
    "a pull is lost",
    "a pull is dropped",
    "a heartbeat of nobody",
    "a worker is told to stop",
    "an outcome is taken",
    "an outcome is late",
    "remote attempts outlive a crash",
)


MORE_RUNS = 4
"""What is rare may be missing from one run: any change of the code changes what is drawn."""


@pytest.fixture(autouse=True)
def _everything_was_run(runs: Runs) -> None:
    for machine, times in MACHINES.items():
        runs(machine, times)


def test_every_command_is_asked(runs: Runs) -> None:
    meet(runs, SEEN.commands, [command.__name__ for command in get_args(AnyCommand)])


def test_every_event_is_logged(runs: Runs) -> None:
    meet(runs, SEEN.events, [event.NAME for event in ALL_EVENTS])


def test_every_rejection_is_met(runs: Runs) -> None:
    meet(runs, SEEN.rejections, sorted(set(REJECTIONS) - UNREACHED_REJECTIONS))


def test_every_row_of_the_recovery_table_that_a_crash_leaves_is_met(runs: Runs) -> None:
    meet(runs, SEEN.rows, [row.label for row in REACHED_ROWS])


def test_every_situation_that_a_machine_names_comes_about(runs: Runs) -> None:
    meet(runs, SEEN.witnesses, WITNESSES)


def meet(runs: Runs, counts: Counter[str], names: Iterable[str]) -> None:
    """Looks for what was not met yet in a few more runs."""
    wanted = list(names)
    for number in range(MORE_RUNS):
        for machine, times in MACHINES.items():
            if all(counts[name] for name in wanted):
                return
            runs.again(machine, times, number)
    assert [name for name in wanted if not counts[name]] == []
