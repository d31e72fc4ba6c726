"""Each machine finds the bugs that it is there for, within its budget in CI.

A bug is sown by replacing one function of the program; the machine then has to fail, and to
say within a few seeds what it is there to say of that bug.  Another check may see it first:
Hypothesis takes values from the constants of the source, so any edit gives other runs.

Over the code as it is the same machines pass with the same budget (the tests beside this
one).  More bugs, sown into the source, name these machines as their layer in
`tests.mutants.sown.stateful`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

from beaver.dispatch.dispatching import Dispatching
from beaver.dispatch.supervision import Supervisor
from beaver.dispatch.time_limits import TimeLimits
from beaver.engine.engine import Engine
from beaver.engine.stamps import Stamper
from beaver.helper import work
from beaver.journal.wal import reader, scan
from beaver.journal.wal.log import Wal
from beaver.snapshot import files
from beaver_chaos.sim.disk import SimFile
from beaver_model import applying, deciding
from beaver_model.commands import Boot
from beaver_model.events import Released
from beaver_model.rows import Spec
from beaver_model.state import State
from tests.stateful.machines import MACHINES
from tests.stateful.running import Machine, until_the_first_failure
from tests.stateful.test_commits import Commits
from tests.stateful.test_lifecycle import Lifecycle
from tests.stateful.test_scheduling import Scheduling
from tests.stateful.test_storage import Storage

pytestmark = pytest.mark.invariants


SEEDS: Final = 6
"""Runs of a machine, each of which has to fail, until one says what it is there to say."""


class Bug(NamedTuple):
    """What is replaced, by what, which machine must see it, and what it says then."""

    home: Any
    name: str
    wrong: Callable[[Any], Any]
    """Makes the wrong function from the right one."""
    machine: Machine
    said: str
    """Regular expression."""


def _told_at_once(right: Any) -> Any:
    def wrong(self: Engine, done: Any, reply: Any) -> None:
        self._replies.tell(done, reply)
        self.touch()

    return wrong


def _not_synced(right: Any) -> Any:
    return SimFile.pwrite


def _error_overheard(right: Any) -> Any:
    return lambda self, error, seconds: right(self, None, seconds)


def _wall_clock(right: Any) -> Any:
    return lambda self: self._clock.wall_ms()


def _count_not_kept(right: Any) -> Any:
    """An index is not updated: what leaves the ready jobs is still counted."""

    def wrong(self: State, row: Any) -> Any:
        ready = self.ready
        taken = right(self, row)
        self.ready = ready
        return taken

    return wrong


def _release_keeps_the_charge(right: dict[type, Any]) -> dict[type, Any]:
    def wrong(state: State, event: Released) -> None:
        right[Released](state, event)
        row = state.jobs[event.job]
        if row.attempt + 1 < row.spec.max_attempts:
            state.ledger -= hash((row.seq, row.state, row.attempt, row.token))
            row.attempt += 1
            state.ledger = (state.ledger + hash((row.seq, row.state, row.attempt, 0))) % (1 << 64)

    return {**right, Released: wrong}


def _one_more_evicted(right: Any) -> Any:
    def wrong(self: State, job: str, time_ms: int, tombstone: bytes) -> None:
        most = self.tombstones_max
        self.tombstones_max = most - 1 if 0 < most < 1_000 else most
        right(self, job, time_ms, tombstone)
        self.tombstones_max = most

    return wrong


def _boot_charges_nothing(right: dict[type, Any]) -> dict[type, Any]:
    def wrong(state: State, command: Boot, now_ms: int) -> Any:
        return right[Boot](state, Boot(frozenset(), command.power_cut), now_ms)

    return {**right, Boot: wrong}


def _stored_crc_believed(right: Any) -> Any:
    def wrong(buffer: bytes, position: int, size: int, previous_crc: int) -> int:
        crc: int = struct.unpack_from("<I", buffer, position + 4)[0]
        return crc

    return wrong


def _says_nothing(right: Any) -> Any:
    return lambda *_: None


def _extra_forgotten(right: Any) -> Any:
    def wrong(job: tuple[Any, ...], spec: int) -> Any:
        return right((*job[:10], None), spec)

    return wrong


def _newest_counts(right: Any) -> Any:
    def wrong(disk: Any, layout: Any) -> int:
        return files.inspect_snapshot(disk, layout.snapshot).last_seq

    return wrong


def _as_if_not_begun(right: Any) -> Any:
    return lambda self, worker, token, held, started, detail: right(
        self, worker, token, held, 0, detail
    )


def _limits_by_the_wall(right: Any) -> Any:
    def wrong(self: TimeLimits, worker: Any, now_ns: int) -> Any:
        wall_ns = self._clock.wall_ms() * 1_000_000
        offset = self.__dict__.setdefault("wall_offset", now_ns - wall_ns)
        return right(self, worker, wall_ns + offset)

    return wrong


def _no_delay(right: Any) -> Any:
    return lambda self, attempt, jitter: 0


BUGS = {
    "reply-before-the-sync": Bug(
        Engine, "_release", _told_at_once, Commits, "told before it was durable"
    ),
    "reply-before-the-sync, as the lifecycle sees it": Bug(
        Engine, "_release", _told_at_once, Lifecycle, "acknowledged, not durable"
    ),
    "frame-without-its-sync": Bug(
        SimFile, "pwrite_durable", _not_synced, Commits, "told before it was durable"
    ),
    "failed-writer-overheard": Bug(
        Wal, "_written", _error_overheard, Commits, "the engine goes on|waits for ever"
    ),
    "stamps-go-back": Bug(Stamper, "now_ms", _wall_clock, Lifecycle, "another stamp|never go back"),
    "index-not-updated": Bug(State, "take", _count_not_kept, Lifecycle, "ready_index_matches"),
    "release-keeps-the-charge": Bug(
        applying,
        "_APPLY",
        _release_keeps_the_charge,
        Lifecycle,
        "by the events|ready_index_matches",
    ),
    "tombstone-evicted-early": Bug(
        State,
        "bury",
        _one_more_evicted,
        Lifecycle,
        "remembered of finished jobs|by the events|the engine differs",
    ),
    "frame-not-verified": Bug(
        scan,
        "frame_crc_of",
        _stored_crc_believed,
        Storage,
        "not refused|another state|no commit|same frame",
    ),
    "chain-of-segments-ignored": Bug(
        reader,
        "_refuse_break",
        _says_nothing,
        Storage,
        "(foreign|missing) segment: not refused|goes to the end",
    ),
    "snapshot-forgets-a-field": Bug(
        files,
        "job_line",
        _extra_forgotten,
        Storage,
        "another state|fingerprint|sums up|as it was written",
    ),
    "archive-pruned-by-the-newest-snapshot": Bug(
        work, "_older_snapshot_seq", _newest_counts, Storage, "begins with seq|are missing"
    ),
    "attempts-not-counted-after-a-crash": Bug(
        deciding,
        "_DECIDE",
        _boot_charges_nothing,
        Scheduling,
        "as if it had not begun|charged wrongly",
    ),
    "dead-worker-charged-nothing": Bug(
        Supervisor,
        "_fate",
        _as_if_not_begun,
        Scheduling,
        "as if it had not begun|a drain leaves nothing in flight",
    ),
    "limits-by-the-wall-clock": Bug(
        TimeLimits, "_overdue", _limits_by_the_wall, Scheduling, "for nothing|overlooked"
    ),
    "timer-not-armed": Bug(
        Dispatching, "_arm_timer", _says_nothing, Scheduling, "is idle, and .* wait"
    ),
    "backoff-ignored": Bug(Spec, "backoff_ms", _no_delay, Scheduling, "another delay"),
}


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS.keys())
def test_the_machine_finds_it(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bug.home, bug.name, bug.wrong(getattr(bug.home, bug.name)))
    budget = until_the_first_failure(MACHINES[bug.machine])
    said: list[str] = []
    while not said or not re.search(bug.said, said[-1]):
        assert len(said) < SEEDS, said
        machine = seed(len(said))(type(bug.machine.__name__, (bug.machine,), {}))
        with pytest.raises(Exception) as caught:  # noqa: PT011 - what it says is compared above
            run_state_machine_as_test(machine, settings=budget)
        said.append("\n".join(_words(caught.value)))


def _words(error: BaseException | None) -> Sequence[str]:
    """Returns what an error and those behind it say."""
    words: list[str] = []
    while error is not None:
        words.append(str(error))
        error = error.__cause__ or error.__context__
    return words
