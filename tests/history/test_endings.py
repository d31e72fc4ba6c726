"""How attempts ended, by their tokens: as the log says, and all of them in one reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver.helper import main as helper
from beaver.history.endings import find_endings
from beaver.structs.questions import Ending, Endings
from beaver.system.disk import SystemDisk, SystemFile
from beaver_model.events import AttemptEnded, Dispatched
from tests.history.lives import index, live, tiny
from tests.worlds.model import job
from tests.worlds.stores import LoggedWorld, flip

JOBS = 300


def by_the_log(world: LoggedWorld) -> dict[int, tuple[str, int, int]]:
    """Job, worker and seq of the end (0 for none) of each attempt."""
    found: dict[int, tuple[str, int, int]] = {}
    for seq, (_, event) in enumerate(world.log, 1):
        if isinstance(event, Dispatched):
            found[seq] = (event.job, event.worker, 0)
        elif isinstance(event, AttemptEnded) and event.token:
            found[event.token] = (*found[event.token][:2], seq)
    return found


def told(world: LoggedWorld, tokens: Any = None) -> Endings:
    last_seq = world.state.last_seq
    asked = range(last_seq + 2) if tokens is None else tokens
    return find_endings(world.disk, world.layout, asked, last_seq)


def seqs_of(found: list[Ending]) -> dict[int, tuple[str, int, int]]:
    return {e.token: (e.job, e.worker, e.end.seq if e.end else 0) for e in found}


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("share", [0, 0.3, 0.6, 1])
def test_each_attempt_ended_as_the_log_says(
    tmp_path: Path, share: float, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of the log is in the index; what is no token is left out."""
    if small:
        tiny(monkeypatch)
    world = live(LoggedWorld(tmp_path / "data"))
    if share:
        index(world, round(world.state.last_seq * share))
    answer = told(world)
    assert seqs_of(answer.found) == by_the_log(world)
    tokens = [ending.token for ending in answer.found]
    assert tokens == sorted(tokens)
    assert len(tokens) > 5
    assert not answer.damaged


def test_a_damaged_index_is_said_to_be_and_the_log_read_instead(tmp_path: Path) -> None:
    world = live(LoggedWorld(tmp_path / "data"))
    index(world)
    flip(world.layout.history, 0)
    answer = told(world)
    assert answer.damaged
    assert seqs_of(answer.found) == by_the_log(world)


class CountingDisk(SystemDisk):
    """Counts the bytes that are read."""

    bytes_read = 0

    def open(self, path: str, *, write: bool = False, create: bool = False) -> SystemFile:
        file = super().open(path, write=write, create=create)
        read = file.pread

        def pread(size: int, offset: int) -> bytes:
            data = read(size, offset)
            self.bytes_read += len(data)
            return data

        file.pread = pread  # type: ignore[method-assign]
        return file


@pytest.mark.parametrize("indexed", [False, True])
def test_many_tokens_cost_one_reading_of_the_log(tmp_path: Path, indexed: bool) -> None:
    """Asked for one by one they cost a hundred times as much, and held up all other questions."""
    world = LoggedWorld(tmp_path / "data")
    for number in range(JOBS):
        world.run(f"j{number}")
    if indexed:
        index(world)
    tokens = list(by_the_log(world))
    disk = CountingDisk()
    world.disk = disk
    told(world, tokens[-1:])
    one, disk.bytes_read = disk.bytes_read, 0
    assert len(told(world, tokens).found) == JOBS
    log_bytes = Path(world.layout.log).stat().st_size
    assert disk.bytes_read <= 3 * max(one, log_bytes)
    assert one > 0


def test_an_answer_that_is_too_long_says_where_to_ask_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is too long by itself is told all the same."""
    world = LoggedWorld(tmp_path / "data")
    for name in ("a", "b", "c"):
        world.enqueue(job(name))
        world.dispatch(name)
        world.complete(name, b'"%s"' % (b"x" * 100))
    monkeypatch.setattr(helper, "TOLD_BYTES_MAX", 150)
    tokens, found = list(by_the_log(world)), []
    while tokens:
        raw = helper._endings(world.layout, [tokens, world.state.last_seq])
        answer = msgspec.json.decode(raw, type=Endings)
        assert len(answer.found) == 1
        found += answer.found
        tokens = [token for token in tokens if answer.next_token and token >= answer.next_token]
    assert seqs_of(found) == by_the_log(world)
