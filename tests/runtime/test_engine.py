"""The engine: group commit, and nothing seen outside before it is durable (P1)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver.engine import group_commit
from beaver.engine.engine import Engine, NotOwner
from beaver.engine.group_commit import ENOUGH
from beaver.engine.replies import Applied, Refused, Reply
from beaver.errors import DiskFull, InvalidInput, QueueFull, StorageFailed
from beaver.journal.memory import MemoryJournal, MemoryLog
from beaver.journal.port import Done, Failed, Position
from beaver.store.recovery import open_store
from beaver.system.disk import SystemDisk
from beaver_model import Rejection, State, fingerprint
from beaver_model.bounds import BATCH_BYTES_MAX
from beaver_model.commands import AnyCommand, Boot, Cancel, Dispatch, Enqueue, SetQueue
from tests.worlds.model import job
from tests.worlds.runtime import EngineWorld, ManualClock, applied, on_loop, turns


@on_loop
async def test_commands_of_one_turn_share_one_frame_and_one_sync(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    replies: list[Reply] = []
    for n in range(100):
        world.engine.submit(Enqueue([job(str(n))]), replies.append)
    assert replies == []
    await turns()
    assert world.engine.counters.commits == 1
    assert world.wal.last_seq == 100
    assert [reply.first_seq for reply in applied(replies)] == list(range(1, 101))


@on_loop
async def test_every_reply_waits_for_what_it_is_computed_from(tmp_path: Path) -> None:
    """Acceptances, refusals, no-ops and reads alike: none before the log holds the seq."""
    world = EngineWorld(tmp_path / "data")
    told: list[tuple[str, int]] = []

    def note(name: str) -> Any:
        return lambda _: told.append((name, world.wal.last_seq))

    world.engine.submit(Enqueue([job()]), note("accepted"))
    world.engine.submit(Enqueue([job()]), note("no-op"))
    world.engine.submit(Enqueue([job(digest=b"x" * 12)]), note("refused"))
    world.engine.read(lambda state: len(state.jobs), note("read"))
    assert told == []
    await turns()
    assert told == [("accepted", 1), ("no-op", 1), ("refused", 1), ("read", 1)]


@on_loop
async def test_a_reply_that_rests_on_durable_state_is_given_at_once(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    await world.engine.execute(Enqueue([job()]))
    replies: list[Reply] = []
    world.engine.submit(Enqueue([job()]), replies.append)
    assert len(replies) == 1
    assert world.engine.counters.commits == 1


@on_loop
async def test_who_sends_answers_on_is_called_once_when_a_whole_commit_is_told(
    tmp_path: Path,
) -> None:
    """At once, before the loop turns; also where one of them raises."""
    world = EngineWorld(tmp_path / "data")
    asyncio.get_running_loop().set_exception_handler(lambda *_: seen.append("reported"))
    seen: list[str] = []

    def done(reply: Reply) -> None:
        world.engine.once_told(lambda: seen.append("sent"))
        seen.append("told")

    def broken() -> None:
        raise ValueError

    world.engine.submit(Enqueue([job("a")]), done)
    world.engine.submit(Enqueue([job("b")]), lambda _: world.engine.once_told(broken))
    world.engine.submit(Enqueue([job("c")]), done)
    world.engine.flush()
    assert seen == ["told", "told", "sent", "reported", "sent"]

    seen.clear()
    world.engine.submit(Enqueue([job("a")]), done)  # Known, and durable: told without a commit.
    assert seen == ["told"]
    await turns()
    assert seen == ["told", "sent"]


@on_loop
async def test_what_observers_tell_leaves_with_the_answers(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    seen: list[str] = []
    world.engine.observers.append(
        lambda *_: world.engine.once_told(lambda: seen.append("sent")),
    )
    world.engine.submit(Enqueue([job("a")]), lambda _: seen.append("told"))
    world.engine.flush()
    assert seen == ["told", "sent"]


@on_loop
async def test_nobody_waits_for_what_is_only_counted(tmp_path: Path) -> None:
    """Answers leave, and then the commit is counted and shown to late observers."""
    world = EngineWorld(tmp_path / "data")
    seen: list[str] = []
    world.engine.late_observers.append(lambda *_: seen.append("seen"))
    world.engine.submit(
        Enqueue([job("a")]), lambda _: world.engine.once_told(lambda: seen.append("sent"))
    )
    world.engine.flush()
    assert seen == ["sent", "seen"]
    assert world.engine.counters.events == 1


@on_loop
async def test_late_observers_see_commits_in_their_order(tmp_path: Path) -> None:
    """Also where an answer makes another commit before its own one was shown."""
    world = EngineWorld(tmp_path / "data")
    seen: list[int] = []
    world.engine.late_observers.append(lambda first_seq, *_: seen.append(first_seq))

    def done(_: Reply) -> None:
        world.engine.submit(Enqueue([job("inner")]), lambda _: None)
        world.engine.flush()

    world.engine.submit(Enqueue([job("outer")]), done)
    world.engine.flush()
    assert seen == sorted(seen)
    assert len(seen) == 2


@on_loop
async def test_a_commit_asks_for_room_only_where_the_last_one_left_too_little(
    tmp_path: Path,
) -> None:
    """And never takes more than was reserved: the log would refuse it."""
    world = EngineWorld(tmp_path / "data")
    reserve, asked = world.wal.reserve, list[int]()

    def counted(size: int) -> int:
        asked.append(size)
        return reserve(size)

    world.limit_room(counted)
    for number in range(2_000):
        await world.engine.execute(Enqueue([job(f"{number}")]))
    assert 1 < len(asked) < 200
    assert not world.failures


@on_loop
async def test_an_answer_that_makes_another_commit_leaves_after_all_the_same(
    tmp_path: Path,
) -> None:
    world = EngineWorld(tmp_path / "data")
    seen: list[str] = []

    def done(_: Reply) -> None:
        world.engine.submit(Enqueue([job("inner")]), lambda _: seen.append("inner told"))
        world.engine.flush()
        world.engine.once_told(lambda: seen.append("sent"))
        seen.append("told")

    world.engine.submit(Enqueue([job("outer")]), done)
    world.engine.flush()
    await turns()
    assert seen == ["inner told", "told", "sent"]


@on_loop
async def test_a_later_command_of_a_batch_sees_the_earlier_one(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    replies: list[Reply] = []
    for command in (Enqueue([job()]), Dispatch("a", 1), Cancel("a")):
        world.engine.submit(command, replies.append)
    await turns()
    names = [event.NAME for reply in applied(replies) for event in reply.events]
    assert names == ["ENQUEUE", "DISPATCH", "CANCEL_REQUESTED"]


@on_loop
async def test_what_the_controller_adds_before_a_commit_shares_its_frame(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")

    def dispatch_all(now_ms: int) -> None:
        for row in list(world.state.jobs.values()):
            if not row.token:
                world.engine.submit(Dispatch(row.id, 1), lambda _: None)

    world.engine.before_commit = dispatch_all
    reply = await world.engine.execute(Enqueue([job()]))
    assert reply.first_seq == 1
    assert (world.engine.counters.commits, world.wal.last_seq) == (1, 2)


@on_loop
async def test_a_refusal_reaches_who_waits_as_an_error_with_the_rejection(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    with pytest.raises(Refused) as caught:
        await world.engine.execute(Cancel("nobody"))
    assert caught.value.rejection == Rejection("no_such_job", {"job": "nobody"})


@on_loop
async def test_after_a_failed_write_nothing_more_is_decided_or_told(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    await world.engine.execute(Enqueue([job("before")]))
    replies: list[Reply] = []

    def broken(after: Position, payload: bytes, count: int, done: Done) -> None:
        done(Failed(StorageFailed("Input/output error")))

    world.wal.append = broken  # type: ignore[method-assign]
    world.engine.submit(Enqueue([job("lost")]), replies.append)
    await turns()
    assert len(world.failures) == 1
    world.engine.submit(Enqueue([job("later")]), replies.append)
    world.engine.read(lambda state: Applied(state.last_seq, ()), replies.append)
    await turns()
    assert replies == [], "an answer after a failed write could be a lie"


@on_loop
async def test_another_thread_may_not_touch_the_engine(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    caught: list[BaseException] = []

    def intrude() -> None:
        for attempt in (
            lambda: world.engine.submit(Boot(), lambda _: None),
            lambda: world.engine.state,
            lambda: world.engine.read(lambda state: state, lambda _: None),
        ):
            try:
                attempt()
            except NotOwner as error:
                caught.append(error)

    thread = threading.Thread(target=intrude)
    thread.start()
    thread.join()
    assert len(caught) == 3


@on_loop
async def test_what_is_replayed_is_what_was_live(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    for n in range(50):
        await world.engine.execute(Enqueue([job(str(n), run_at_ms=n * 7 % 3)]))
        world.clock.pass_ms(3)
        if n % 3 == 0:
            await world.engine.execute(Dispatch(str(n), 1))
    world.engine.close()
    again = open_store(SystemDisk(), str(world.path), clock=ManualClock(), create=False)
    assert fingerprint(again.state) == fingerprint(world.state)
    again.journal.close()


@on_loop
async def test_stamps_never_go_back_and_go_on_with_the_monotonic_clock(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    await world.engine.execute(Enqueue([job("a")]))
    first_ms = world.state.time_ms
    world.clock.wall -= 3_600_000
    world.clock.monotonic += 5_000_000
    await world.engine.execute(Enqueue([job("b")]))
    assert world.state.time_ms == first_ms + 5
    world.clock.wall += 7_200_000
    await world.engine.execute(Enqueue([job("c")]))
    assert world.state.time_ms == world.clock.wall


@on_loop
async def test_after_a_quiet_moment_the_last_frame_is_closed(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    await world.engine.execute(Enqueue([job()]))
    marked = asyncio.Event()
    idle = world.wal.idle

    def mark() -> None:
        idle()
        marked.set()

    world.wal.idle = mark  # type: ignore[method-assign]
    async with asyncio.timeout(10):
        await marked.wait()
    assert world.wal.last_seq == 1, "a mark holds no event"


@on_loop
async def test_no_quiet_moment_is_told_while_a_batch_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark would take room that was made for the batch, and its commit would not fit.

    Where several were answered, a commit waits for one more turn of the loop: the moment after
    the last commit is over in between.
    """
    monkeypatch.setattr(group_commit, "IDLE_S", 0.0)
    world = EngineWorld(tmp_path / "data")
    told: list[tuple[int, int]] = []
    mark = world.wal.idle

    def idle() -> None:
        told.append((world.engine.durable_seq, world.state.last_seq))
        mark()

    monkeypatch.setattr(world.wal, "idle", idle)

    async def produce(name: str) -> None:
        for n in range(10):
            await world.engine.execute(Enqueue([job(f"{name} {n}")]))

    await asyncio.gather(produce("a"), produce("b"), produce("c"))
    assert world.engine.counters.gathered > 0, "commits wait for a turn"
    async with asyncio.timeout(10):
        while not told:  # noqa: ASYNC110 - the moment is the engine's to choose
            await asyncio.sleep(0)
    assert [seqs for seqs in told if seqs[0] != seqs[1]] == []


# -- admission --------------------------------------------------------------------------------


@on_loop
async def test_state_bytes_are_bounded_and_outcomes_go_on(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data", state_bytes_max=1_000)
    await world.engine.execute(Enqueue([job("a"), job("b")]))
    with pytest.raises(QueueFull, match="state_size_max"):
        await world.engine.execute(Enqueue([job("c")]))
    assert "c" not in world.state.jobs
    await world.engine.execute(Dispatch("a", 1))


@on_loop
async def test_a_queues_own_bound_refuses_only_its_jobs(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    await world.engine.execute(SetQueue("small", bytes_max=500))
    await world.engine.execute(Enqueue([job("a", queue="small")]))
    with pytest.raises(QueueFull, match="queue small"):
        await world.engine.execute(Enqueue([job("b", queue="small")]))
    await world.engine.execute(Enqueue([job("b", queue="large")]))


@on_loop
async def test_new_jobs_leave_room_for_outcomes_in_the_log(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data", reserve_bytes=50_000)
    await world.engine.execute(Enqueue([job()]))
    asked: list[int] = []
    reserve = world.wal.reserve
    left = world.wal.room

    def small(size: int) -> int:
        asked.append(size)
        return reserve(size) if size <= 40_000 else 0

    world.limit_room(small)
    with pytest.raises(DiskFull):
        await world.engine.execute(Enqueue([job("b")]))
    assert asked[-1] > 50_000
    assert isinstance(await world.engine.execute(Dispatch("a", 1)), Applied)
    assert world.wal.room < left


@on_loop
async def test_a_full_disk_refuses_new_jobs_and_takes_outcomes(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    await world.engine.execute(Enqueue([job()]))
    world.engine.admission.disk_full = True
    with pytest.raises(DiskFull):
        await world.engine.execute(Enqueue([job("b")]))
    assert isinstance(await world.engine.execute(Dispatch("a", 1)), Applied)
    world.engine.admission.disk_full = False
    await world.engine.execute(Enqueue([job("b")]))


@on_loop
async def test_a_reply_tells_the_right_seq_where_a_commit_made_room_for_its_command(
    tmp_path: Path,
) -> None:
    """The commit's observers submit as well: a cancelled attempt is confirmed, say."""
    world = EngineWorld(tmp_path / "data")
    observed: list[int] = []

    def observe(first_seq: int, now_ms: int, events: Any) -> None:
        observed.append(first_seq)
        if len(observed) == 1:
            world.engine.submit(Enqueue([job("between")]), lambda reply: None)

    world.engine.observers.append(observe)
    replies: list[Reply] = []
    world.engine.submit(Enqueue([job(str(n)) for n in range(5_000)]), replies.append)
    large = msgspec.structs.replace(job("large"), payload=b"1" * BATCH_BYTES_MAX)
    world.engine.submit(Enqueue([large]), replies.append)
    assert observed == [1], "there was no room for both in one commit"
    await turns()
    assert [reply.first_seq for reply in applied(replies)] == [1, 5_002]
    assert world.state.jobs["large"].seq == 5_002


@on_loop
async def test_what_changes_nothing_does_not_hold_the_stamp_of_a_later_batch(
    tmp_path: Path,
) -> None:
    """P12: a delay counts from its own time, not from that of an earlier no-op."""
    world = EngineWorld(tmp_path / "data")
    await world.engine.execute(Enqueue([job()]))
    await world.engine.execute(Enqueue([job()]))
    with pytest.raises(Refused):
        await world.engine.execute(Cancel("nobody"))
    world.clock.pass_ms(3_600_000)
    assert world.engine.now_ms() == world.clock.wall
    await world.engine.execute(Enqueue([job("b")]))
    assert world.state.jobs["b"].ready_ms == world.clock.wall


@pytest.mark.parametrize("where", ["before_commit", "observer", "encoding"])
def test_a_bug_on_the_way_of_a_commit_ends_the_engine_and_tells_nobody(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise OverflowError(where)

    async def check() -> None:
        world = EngineWorld(tmp_path / "data")
        if where == "before_commit":
            world.engine.before_commit = broken
        elif where == "observer":
            world.engine.observers.append(broken)
        else:
            monkeypatch.setattr("beaver.engine.group_commit.encode_commit", broken)
        replies: list[Reply] = []
        world.engine.submit(Enqueue([job()]), replies.append)
        await turns()
        assert [type(failure) for failure in world.failures] == [OverflowError]
        assert replies == []

    asyncio.run(check())


@on_loop
async def test_a_generator_that_raises_fails_the_engine(tmp_path: Path) -> None:
    """What it had yet to yield is known to nobody: the next start has to find it out."""
    world = EngineWorld(tmp_path)

    def commands() -> Iterator[AnyCommand]:
        yield Enqueue([job("a")])
        raise RuntimeError("a bug of ours")

    with pytest.raises(RuntimeError):
        world.engine.submit_each(commands(), lambda command, error: None)
    with pytest.raises(StorageFailed):
        await world.engine.execute(Enqueue([job("b")]))


@on_loop
async def test_what_was_applied_is_committed_also_where_its_answer_raised(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path)

    def answer(reply: Reply) -> None:
        raise RuntimeError("a bug of ours")

    with pytest.raises(RuntimeError):
        world.engine.change(Enqueue([job("a")]), answer, lambda _: None)
    await asyncio.sleep(0.05)
    assert world.engine.durable_seq == world.engine.state.last_seq == 1


async def submit_in_turns(world: EngineWorld, *names: str) -> None:
    """Submits one job in each turn of the loop, as clients do whose requests come in a row."""
    loop = asyncio.get_running_loop()

    def come(left: tuple[str, ...]) -> None:
        world.engine.submit(Enqueue([job(left[0])]), lambda _: None)
        if left[1:]:
            loop.call_soon(come, left[1:])

    come(names)
    await turns(2 * len(names) + 4)


@on_loop
async def test_a_lone_producer_waits_for_nobody(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    await submit_in_turns(world, "a", "b", "c")
    assert world.engine.counters.commits == 3


@on_loop
async def test_among_many_a_commit_waits_for_those_who_come_in_a_row(tmp_path: Path) -> None:
    """As long as each look brings somebody, and not for who comes after that."""
    world = EngineWorld(tmp_path / "data")
    for name in "ab":
        world.engine.submit(Enqueue([job(name)]), lambda _: None)
    await turns()
    before = world.engine.counters.commits
    await submit_in_turns(world, *"cdefg")
    assert world.engine.counters.commits == before + 1
    assert world.engine.durable_seq == 7


@on_loop
async def test_no_commit_waits_longer_than_a_sync_takes(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    clock = world.clock
    for name in "ab":
        world.engine.submit(Enqueue([job(name)]), lambda _: None)
    await turns()
    before = world.engine.counters.commits
    loop = asyncio.get_running_loop()

    def come(left: int) -> None:
        clock.monotonic += 1_000_000  # far more than a sync has taken by this clock
        world.engine.submit(Enqueue([job(f"late-{left}")]), lambda _: None)
        if left:
            loop.call_soon(come, left - 1)

    come(9)
    await turns(40)
    assert world.engine.counters.commits >= before + 4


@on_loop
async def test_a_batch_that_is_large_enough_goes_off_at_once(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    for name in "ab":
        world.engine.submit(Enqueue([job(name)]), lambda _: None)
    await turns()
    before = world.engine.counters.commits
    loop = asyncio.get_running_loop()
    world.engine.submit(Enqueue([job(f"x{n}") for n in range(ENOUGH)]), lambda _: None)
    loop.call_soon(world.engine.submit, Enqueue([job("next")]), lambda _: None)
    await turns()
    assert world.engine.counters.commits == before + 2


@on_loop
async def test_the_open_batch_tells_what_must_be_durable_before_what_leaves(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    await world.engine.execute(Enqueue([job("a")]))
    assert str(world.engine.open_batch) == "nothing to write before 0 answers"
    world.engine.submit(Dispatch("a", 1), lambda _: None)
    world.engine.submit(SetQueue("slow", paused=True), lambda _: None)
    world.engine.read(lambda state: state.last_seq, lambda _: None)
    assert str(world.engine.open_batch) == (
        "seqs 2 to 3 at 1000000 ms before 3 answers: DISPATCH a, QUEUE"
    )
    world.engine.flush()
    assert str(world.engine.open_batch) == "nothing to write before 0 answers"


@on_loop
async def test_once_durable_calls_back_behind_what_was_applied_before(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    told: list[int] = []
    world.engine.once_durable(lambda: told.append(world.wal.last_seq))
    assert told == [0], "all there is is durable"
    world.engine.enqueue([job("a")], lambda _, reply: reply, lambda _: None)
    world.engine.once_durable(lambda: told.append(world.wal.last_seq))
    assert told == [0]
    await turns()
    assert told == [0, 1]


@on_loop
async def test_a_commit_keeps_to_what_its_journal_takes(tmp_path: Path) -> None:
    """Both sides of the bound, in a batch and alone."""
    log = MemoryLog()
    journal = MemoryJournal(log)
    journal.commit_bytes_max = 20_000
    failures: list[BaseException] = []
    engine = Engine(State(), journal, ManualClock(), on_failure=failures.append)
    replies: list[Reply] = []
    for name in "abc":
        large = msgspec.structs.replace(job(name), payload=b"1" * 8_000)
        engine.submit(Enqueue([large]), replies.append)
    engine.flush()
    assert [type(reply) for reply in replies] == [Applied] * 3
    assert max(len(payload) for _, payload in log.commits) <= 20_000
    assert len(log.commits) == 2
    huge = msgspec.structs.replace(job("huge"), payload=b"1" * 20_000)
    with pytest.raises(InvalidInput, match="at most 20000"):
        await engine.execute(Enqueue([huge]))
    assert failures == []
