"""A store of several segments and snapshots, to be read without its server."""

from __future__ import annotations

from pathlib import Path

from beaver.helper.work import prune_archive, take_snapshot
from beaver_model import State, fingerprint
from beaver_model.commands import Boot
from tests.worlds.model import job
from tests.worlds.runtime import ManualClock
from tests.worlds.stores import LoggedWorld


def snap(world: LoggedWorld) -> None:
    take_snapshot(world.disk, world.layout, world.state.last_seq, ManualClock())


def long_store(world: LoggedWorld) -> list[str]:
    """Four sealed segments and an active one; fingerprints of the state at every seq."""
    fingerprints = [fingerprint(State())]

    def note() -> None:
        fingerprints.extend([""] * (world.state.last_seq - len(fingerprints)))
        fingerprints.append(fingerprint(world.state))

    world.do(Boot())
    note()
    for number in range(4):
        world.enqueue(job(f"job-{number}"))
        note()
        world.dispatch(f"job-{number}", worker=number + 1)
        note()
        if number % 2:
            world.complete(f"job-{number}", b'{"n": 1}')
        else:
            world.fail(f"job-{number}", "broke", retry=number == 0)
        note()
        if number in (1, 2):
            snap(world)
        world.seal()
        world.now_ms += 60_000
    world.enqueue(job("last"))
    note()
    return fingerprints


def prune(world: LoggedWorld) -> None:
    now_ms = world.now_ms + 1_000
    prune_archive(world.disk, world.layout, keep_bytes=0, keep_ms=0, now_ms=now_ms, applied_seq=99)


def listing(path: str) -> list[tuple[str, int]]:
    """Every file below a directory with its size and time: what only reads changes none."""
    return sorted(
        (str(file), file.stat().st_mtime_ns) for file in Path(path).rglob("*") if file.is_file()
    )
