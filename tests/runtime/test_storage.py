"""A whole server runs over any journal, and follows whoever has deposed it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from beaver.journal.codec import encode_commit
from beaver.journal.port import Stamp
from beaver.store.rebuild import rebuild
from beaver_model import fingerprint, violations
from beaver_model.events import AnyEvent, Booted, Enqueued
from beaver_model.rows import Spec, encode_spec
from tests.worlds.runtime import on_loop
from tests.worlds.storage import InMemory, Remote, names, running


@on_loop
async def test_a_server_runs_over_a_journal_in_memory_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    """Nothing of the log or the snapshots is in a file."""
    storage = InMemory()
    for round_number, name in enumerate(("a", "b"), start=1):
        async with running(tmp_path / "data", storage) as client:
            await client.enqueue(name)
            assert (await client.ended(name)).state == "completed"
            assert (await client.ended("a")).state == "completed", "of the server before as well"
        assert len(storage.kept.kept) == round_number, "a snapshot at the end"
    told = [line.split()[0] for line in names(storage.log.read(None))]
    assert [word for word in told if word in {"BOOT", "ENQUEUE", "DISPATCH", "ACK"}] == [
        *("BOOT", "ENQUEUE", "DISPATCH", "ACK"),
        *("BOOT", "ENQUEUE", "DISPATCH", "ACK"),
    ]
    found = {path.name for path in (tmp_path / "data").iterdir()}
    assert not {"wal.log", "archive", "snapshot.json", "history.db", "LOCK"} & found


@on_loop
async def test_a_deposed_server_discards_its_assembly_recovers_and_follows(
    tmp_path: Path,
) -> None:
    """A rival leads for a moment.  What it took in is run, and nothing is taken in twice."""
    storage = Remote()
    carrying = asyncio.get_running_loop().create_task(storage.carry())
    try:
        async with running(tmp_path / "data", storage) as client:
            await client.enqueue("before")
            await client.ended("before")
            await storage_is_quiet(storage)
            state = rebuild(storage.journal(), storage.kept).state
            epoch, now_ms = state.epoch + 1, state.time_ms
            theirs: list[AnyEvent] = [
                Booted(epoch, False, "rival"),
                Enqueued("theirs", encode_spec(Spec("echo")), b"null", b"d" * 12),
            ]
            for number, event in enumerate(theirs, start=1):
                stamp = Stamp(epoch, "rival", number)
                storage.stream.committed.append(encode_commit(now_ms, [event], stamp))
            await client.enqueue("after")
            for name in ("theirs", "after"):
                assert (await client.ended(name)).state == "completed"
    finally:
        carrying.cancel()
    told = names(storage.journal().read(None))
    assert [line for line in told if line.startswith("ENQUEUE")] == [
        "ENQUEUE before",
        "ENQUEUE theirs",
        "ENQUEUE after",
    ]
    boots = [line for line in told if line.startswith("BOOT")]
    assert len(boots) == 3
    assert boots[1] == "BOOT rival"
    assert boots[0] == boots[2], "the same process leads again"
    assert len(storage.owners) == 2, "with another journal, opened anew"
    assert storage.lost, "the network was faulty"
    replica = rebuild(storage.journal(), storage.kept)
    assert replica.voided == 0
    assert violations(replica.state) == []
    whole = rebuild(storage.journal(), InMemory().kept)
    assert fingerprint(replica.state) == fingerprint(whole.state)


async def storage_is_quiet(storage: Remote) -> None:
    """Returns when the server appends nothing any more."""
    before = -1
    while before != len(storage.stream.committed) or storage.owners[-1].is_settling:
        before = len(storage.stream.committed)
        await asyncio.sleep(0.3)
