"""The controller over a pool that the test plays: limits, cancels, deaths, time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from beaver.dispatch.controller import Controller
from beaver.dispatch.dispatching import SCARCE_BYTES
from beaver.dispatch.slots_view import Concurrency
from beaver.dispatch.time_limits import TICK_S
from beaver.ports import PoolEvents
from beaver.structs.messages import Attempt, Outcome, OutcomeKind, TaskInfo
from beaver_model import JobState, violations
from beaver_model.commands import Boot, Cancel, Enqueue
from tests.worlds.model import job
from tests.worlds.runtime import EngineWorld, on_loop, turns


class PlayedPool:
    """A `ports.Pool` whose workers do what the test says, when it says so."""

    def __init__(self, clock_ns: object) -> None:
        self.clock = clock_ns
        self.added: list[int] = []
        self.sent: dict[int, list[Attempt]] = {}
        self.begun: dict[int, tuple[int, int]] = {}
        self.killed: list[int] = []
        self.told: list[tuple[int, int]] = []

    async def start(self, events: PoolEvents) -> Sequence[TaskInfo]:
        return []

    def add(self, worker: int) -> None:
        self.added.append(worker)

    def dispatch(self, worker: int, attempts: Sequence[Attempt]) -> None:
        self.sent.setdefault(worker, []).extend(attempts)

    def recall(self, worker: int) -> list[int]:
        started = self.begun.get(worker, (0, 0))[0]
        waiting = [a for a in self.sent.get(worker, []) if a.token > started]
        self.sent[worker] = [a for a in self.sent.get(worker, []) if a.token <= started]
        return [a.token for a in waiting]

    def started(self, worker: int) -> tuple[int, int]:
        return self.begun.get(worker, (0, 0))

    def cancel(self, worker: int, token: int) -> None:
        self.told.append((worker, token))

    def retire(self, worker: int) -> None:
        raise AssertionError("nothing retires a worker here")

    def kill(self, worker: int) -> None:
        self.killed.append(worker)

    async def stop(self) -> None:
        self.added.clear()


class Entropy:
    def random(self) -> float:
        return 0.5

    def token_bytes(self, count: int) -> bytes:
        return bytes(count)


class ControllerWorld(EngineWorld):
    """An engine, a controller and a played pool with ready workers."""

    def __init__(
        self,
        path: Path,
        workers: int = 1,
        engine_options: dict[str, Any] | None = None,
        *,
        boot: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(path, **engine_options or {})
        if boot:
            self.engine.submit(Boot(), lambda reply: None)
            self.engine.flush()
        self.pool = PlayedPool(self.clock)
        usual: dict[str, Any] = {"concurrency": 1, "mode": Concurrency.ONE, "grace_ms": 1_000}
        self.controller = Controller(
            self.engine,
            self.pool,
            self.clock,
            Entropy(),
            store="s",
            workers=workers,
            to_job=lambda request, now_ms, origin: job(request.id),
            on_pool_failure=self.failures.append,
            **usual | options,
        )
        self.controller.start()
        for worker in range(1, workers + 1):
            self.controller.worker_ready(worker, 100 + worker)

    async def enqueue(self, *names: str, **options: Any) -> None:
        await self.engine.execute(Enqueue([job(name, **options) for name in names]))
        await turns()

    def state_of(self, job: str) -> JobState:
        return self.state.jobs[job].state

    def begin(self, worker: int = 1, index: int = 0) -> int:
        """The worker starts the user code of an attempt that it was sent."""
        token = self.pool.sent[worker][index].token
        self.pool.begun[worker] = (token, self.clock.monotonic)
        return token

    def end(self, worker: int, kind: OutcomeKind = OutcomeKind.OK, ms: float = 0.1) -> None:
        """The worker reports on the attempt that it has begun."""
        token = self.pool.begun[worker][0]
        (attempt,) = [a for a in self.pool.sent[worker] if a.token == token]
        self.pool.sent[worker].remove(attempt)
        self.controller.outcomes(worker, [Outcome(token, attempt.job, kind, elapsed_ms=ms)])

    async def tick(self) -> None:
        """Lets the controller look at the limits."""
        await asyncio.sleep(TICK_S * 1.5)


@on_loop
async def test_an_attempt_is_sent_only_once_its_dispatch_is_durable(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data")
    durable: list[bool] = []
    send = world.pool.dispatch

    def dispatch(worker: int, attempts: Sequence[Attempt]) -> None:
        durable.append(all(a.token <= world.wal.last_seq for a in attempts))
        send(worker, attempts)

    world.pool.dispatch = dispatch  # type: ignore[method-assign]
    await world.enqueue("a")
    assert durable == [True]


@on_loop
async def test_a_lone_job_and_its_dispatch_to_an_idle_worker_are_one_commit(tmp_path: Path) -> None:
    """So what a start waits for is one sync: that of its ENQUEUE, whose commit holds the DISPATCH.

    The producer's answer and the attempt leave with it.
    """
    world = ControllerWorld(tmp_path / "data")
    commits: list[list[str]] = []
    world.engine.observers.append(
        lambda first_seq, now_ms, events: commits.append([event.NAME for event in events])
    )
    for name in ("a", "b", "c"):
        await world.enqueue(name)
        world.begin()
        world.end(1)
        await turns()
    assert commits == [["ENQUEUE", "DISPATCH"], ["ACK"]] * 3


@on_loop
async def test_a_worker_that_was_useful_is_not_restarted_again_and_again(tmp_path: Path) -> None:
    """What the one before it has done says nothing of a process that dies in its start."""
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a")
    world.begin()
    world.end(1)
    world.controller.worker_exited(1, 0, "exited with 0")
    assert world.pool.added == [1, 1], "replaced at once"
    world.controller.worker_exited(1, 0, "was killed by signal 9")
    assert world.pool.added == [1, 1], "replaced after a while"


@on_loop
async def test_a_timed_out_attempt_is_killed_and_reaped_before_the_log_says_so(
    tmp_path: Path,
) -> None:
    """P10."""
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a", timeout_ms=500)
    token = world.begin()
    world.clock.pass_ms(501)
    await world.tick()
    assert world.pool.killed == [1]
    assert world.state.jobs["a"].token == token, "not reaped yet, so still in flight"
    world.controller.worker_exited(1, token, "was killed by signal 9")
    await turns()
    row = world.state.jobs["a"]
    assert (row.state, row.attempt) == (JobState.PENDING, 1)
    assert row.extra is not None
    assert row.extra.cause == "time_limit"
    assert world.pool.added == [1, 1], "a killed worker is replaced at once"


@on_loop
async def test_a_worker_that_does_not_get_ready_is_killed_and_replaced_ever_later(
    tmp_path: Path,
) -> None:
    world = ControllerWorld(tmp_path / "data", workers=2, start_limit_ms=1)
    loop, worker = asyncio.get_running_loop(), world.controller.workers[2]
    world.controller.worker_exited(2, 0, "exited with 3")  # and the next start hangs
    waits: list[float] = []
    async with asyncio.timeout(20):
        for kills in range(1, 5):
            while len(world.pool.killed) < kills:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await world.enqueue(f"job-{kills}")
            world.controller.worker_exited(2, 0, "killed by signal 9")
            asked_s, added = loop.time(), len(world.pool.added)
            while len(world.pool.added) == added:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            waits.append(loop.time() - asked_s)
    assert world.pool.killed == [2] * 4, "worker 1 was ready in time"
    assert world.controller.starts_overdue == 4
    assert waits == sorted(waits)
    assert waits[-1] > 4 * waits[0]
    assert all(row.attempt == (row.worker == 1) for row in world.state.jobs.values())
    world.controller.worker_ready(2, 7)
    await asyncio.sleep(0.01)
    assert world.pool.killed == [2] * 4, "nor is one that got ready after all"
    assert worker.start_limit is None


@on_loop
async def test_steps_of_the_clock_never_shorten_a_running_limit(tmp_path: Path) -> None:
    """P12."""
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a", timeout_ms=500)
    world.begin()
    world.clock.wall += 86_400_000
    await world.tick()
    assert world.pool.killed == []
    world.clock.wall -= 2 * 86_400_000
    world.clock.monotonic += 501_000_000
    await world.tick()
    assert world.pool.killed == [1]


@on_loop
async def test_no_job_starts_before_its_run_at(tmp_path: Path) -> None:
    """P12."""
    world = ControllerWorld(tmp_path / "data")
    run_at_ms = world.clock.wall + 10_000
    await world.engine.execute(Enqueue([job("a", run_at_ms=run_at_ms)]))
    await turns()
    world.clock.pass_ms(9_999)
    world.engine.touch()
    await turns()
    assert world.pool.sent == {}
    world.clock.pass_ms(1)
    world.engine.touch()
    await turns()
    assert [a.job for a in world.pool.sent[1]] == ["a"]


@on_loop
async def test_time_in_a_prefetch_does_not_count_towards_the_limit(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data", prefetch=2)
    await world.enqueue("a", "b", timeout_ms=500)
    assert len(world.pool.sent[1]) == 2
    world.begin()
    world.clock.pass_ms(400)
    world.end(1)
    world.begin()
    world.clock.pass_ms(400)
    await world.tick()
    assert world.pool.killed == []


@on_loop
async def test_what_a_dead_worker_had_not_started_is_given_back(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data", prefetch=3)
    await world.enqueue("a", "b", "c")
    token = world.begin()
    world.controller.worker_exited(1, token, "exited with 3")
    await turns()
    rows = world.state.jobs
    assert [rows[name].attempt for name in "abc"] == [1, 0, 0]
    extra = rows["a"].extra
    assert extra is not None
    assert (extra.cause, extra.error) == ("worker_lost", "its worker exited with 3")
    assert violations(world.state) == []


@on_loop
async def test_cancelling_what_waits_in_a_prefetch_disturbs_nothing_else(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data", prefetch=3)
    await world.enqueue("a", "b", "c")
    world.begin()
    await world.engine.execute(Cancel("b"))
    await turns()
    assert world.state.jobs["b"].state == JobState.CANCELLED
    assert world.pool.killed == []
    assert [a.job for a in world.pool.sent[1]] == ["a", "c"]
    assert world.state.jobs["c"].attempt == 1, "it was sent again as it was"


@on_loop
async def test_cancelling_what_runs_kills_it_and_releases_its_neighbours(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data", prefetch=2)
    await world.enqueue("a", "b")
    token = world.begin()
    await world.engine.execute(Cancel("a"))
    await turns()
    assert world.pool.killed == [1]
    assert world.state_of("a") == JobState.IN_FLIGHT
    world.controller.worker_exited(1, token, "was killed by signal 9")
    await turns()
    assert world.state_of("a") == JobState.CANCELLED
    assert (world.state_of("b"), world.state.jobs["b"].attempt) == (JobState.PENDING, 0)


@on_loop
async def test_an_ack_that_comes_before_the_kill_wins_over_a_cancel(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a")
    token = world.begin()
    await world.engine.execute(Cancel("a"))
    world.end(1)
    world.controller.worker_exited(1, token, "was killed by signal 9")
    await turns()
    assert world.state.completed == 1


@on_loop
async def test_threads_are_told_first_and_killed_after_the_grace(tmp_path: Path) -> None:
    """P10: only then the offender is charged, and its neighbours are released."""
    world = ControllerWorld(tmp_path / "data", mode=Concurrency.MANY, concurrency=2)
    await world.enqueue("a", timeout_ms=500)
    await world.enqueue("b", timeout_ms=60_000)
    assert len(world.pool.sent[1]) == 2
    world.pool.begun[1] = (world.pool.sent[1][1].token, world.clock.monotonic)
    await world.tick()
    world.clock.pass_ms(1_400)
    await world.tick()
    assert world.pool.killed == [], "the child stops it softly, within the grace"
    world.clock.pass_ms(200)
    await world.tick()
    assert world.pool.killed == [1]
    world.controller.worker_exited(1, world.pool.begun[1][0], "was killed by signal 9")
    await turns()
    rows = world.state.jobs
    assert [rows[name].attempt for name in "ab"] == [1, 0]


@pytest.mark.parametrize("first", ["the limit", "the cancel"])
@on_loop
async def test_what_ran_too_long_beside_a_cancelled_one_is_not_cancelled(
    tmp_path: Path, first: str
) -> None:
    """One kill ends both; each is told for what it was: TIMEOUT, and CANCEL."""
    world = ControllerWorld(tmp_path / "data", mode=Concurrency.MANY, concurrency=3, grace_ms=100)
    long, cancelled = ("a", "b") if first == "the limit" else ("b", "a")
    for name in "abc":
        await world.enqueue(name, timeout_ms=500 if name == long else 60_000)
    begun = world.pool.sent[1][-1].token
    world.pool.begun[1] = (begun, world.clock.monotonic)
    await world.tick()
    world.clock.pass_ms(450)
    await world.engine.execute(Cancel(cancelled))
    world.clock.pass_ms(200)
    await world.tick()
    assert world.pool.killed == [1], "the grace of both is over"
    world.controller.worker_exited(1, begun, "was killed by signal 9")
    await turns()
    rows = world.state.jobs
    assert rows[cancelled].state == JobState.CANCELLED
    assert (rows[long].state, rows[long].attempt) == (JobState.PENDING, 1)
    assert (rows["c"].state, rows["c"].attempt) == (JobState.PENDING, 0)


@on_loop
async def test_a_suspect_has_nobody_waiting_behind_it(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data", prefetch=8)
    await world.enqueue("a")
    token = world.begin()
    await world.engine.execute(Boot(power_cut=True))
    world.pool.sent.clear()
    world.controller.worker_exited(1, token, "was lost")
    world.controller.worker_ready(1, 102)
    await turns()
    await world.enqueue("b", "c")
    assert world.state.jobs["a"].suspect
    assert [a.job for a in world.pool.sent[1]] == ["a"]
    world.begin()
    world.end(1)
    await turns()
    assert [a.job for a in world.pool.sent[1]] == ["b", "c"]


@on_loop
async def test_outcomes_wait_for_room_in_the_log_and_are_written_later(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a")
    world.begin()
    world.limit_room(lambda size: 0)
    world.end(1)
    await turns()
    assert world.state.completed == 0
    world.limit_room(None)
    world.controller.retry_unwritten()
    await turns()
    assert world.state.completed == 1


@on_loop
async def test_nothing_is_dispatched_before_what_waits_for_room_is_written(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a", "b")
    world.begin()
    world.limit_room(lambda size: 0)
    world.end(1)
    await turns()
    world.limit_room(None)
    world.engine.touch()
    await turns()
    assert world.state.jobs["b"].state == JobState.PENDING
    world.controller.retry_unwritten()
    await turns()
    assert world.state.completed == 1
    assert [attempt.job for attempt in world.pool.sent[1]] == ["b"]


@on_loop
async def test_that_outcomes_wait_for_room_is_told_once_and_so_is_the_end_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the job; where the server stops before, it says that the job runs again."""
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a")
    world.begin()
    world.limit_room(lambda size: 0)
    world.end(1)
    await turns()
    for _ in range(3):
        world.controller.retry_unwritten()
    (waits,) = said(caplog)
    assert "no room for how job a ended, up to" in waits
    await world.controller.drain(50)
    _, lost = said(caplog)
    assert "how job a ended was not written" in lost
    world.limit_room(None)
    world.controller.retry_unwritten()
    assert said(caplog)[2:] == ["the log has room again: how jobs ended is written"]


@on_loop
async def test_that_ready_jobs_wait_for_room_is_told_once_while_it_is_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not while one runs, for which the room is kept; and again when it comes back."""
    world = ControllerWorld(tmp_path / "data", prefetch=1)
    await world.enqueue("a", "b", "c")
    reserve = world.wal.reserve

    def scarce(size: int) -> int:
        return reserve(size) if size < SCARCE_BYTES else 0

    for _ in range(2):
        world.begin()
        world.limit_room(scarce)
        world.controller.retry_unwritten()
        await turns()
        assert not said(caplog)
        world.end(1)
        for _ in range(3):
            await turns()
            world.controller.retry_unwritten()
        (waits,) = said(caplog)
        assert "no room to run another job" in waits
        caplog.clear()
        world.limit_room(None)
        world.controller.retry_unwritten()
        await turns()
        world.controller.retry_unwritten()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"]


@on_loop
async def test_draining_gives_back_what_waits_and_then_what_runs_too_long(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data", prefetch=2)
    await world.enqueue("a", "b")
    token = world.begin()
    drained = asyncio.ensure_future(world.controller.drain(50))
    await turns()
    assert world.state.jobs["b"].state == JobState.PENDING
    while not world.pool.killed:
        await world.tick()
    world.controller.worker_exited(1, token, "was killed by signal 9")
    await drained
    assert [world.state.jobs[n].attempt for n in "ab"] == [0, 0]
    assert world.pool.added == [1], "nothing is started while it drains"


@on_loop
async def test_a_worker_that_cannot_be_sent_to_is_killed_and_its_jobs_come_back(
    tmp_path: Path,
) -> None:
    world = ControllerWorld(tmp_path / "data")

    def broken(worker: int, attempts: Sequence[Attempt]) -> None:
        raise OSError(24, "Too many open files")

    world.pool.dispatch = broken  # type: ignore[method-assign]
    await world.enqueue("a")
    assert world.pool.killed == [1]
    world.controller.worker_exited(1, 0, "was killed by signal 9")
    await turns()
    row = world.state.jobs["a"]
    assert (row.state, row.attempt) == (JobState.PENDING, 0)
