"""The budgets that all connections share: exact at their bounds, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from beaver.request.requests import make_request
from beaver.server import budget, connection
from beaver.server.budget import FRAME_BYTES_FREE, Answers, Frames
from beaver.server.results import Results
from beaver.structs.views import ResultView
from beaver.transport import framing
from beaver_model.events import Cancelled
from tests.runtime.test_service import served, wait_until
from tests.worlds.runtime import on_loop, turns


class Someone:
    """A connection, as a budget sees it."""

    def __init__(self, unread_bytes: int = 0) -> None:
        self.unread_bytes = unread_bytes
        self.went_on = 0
        self.why = ""

    def go_on(self) -> None:
        self.went_on += 1

    def cut_off(self, why: str) -> None:
        self.why = why


# -- answers --------------------------------------------------------------------------------


@on_loop
async def test_requests_are_taken_below_the_bound_and_wait_at_it() -> None:
    answers, one = Answers(100), Someone()
    answers.charge(99)
    assert answers.admits(one)
    answers.charge(1)
    assert not answers.admits(one)
    answers.charge(0)
    await turns()
    assert one.went_on == 0
    answers.charge(-1)
    await turns()
    assert one.went_on == 1


@on_loop
async def test_what_was_sent_and_read_meanwhile_counts_no_longer() -> None:
    answers = Answers(100)
    for _ in range(1_000):
        answers.left_unread(Someone(unread_bytes=0), 10)
    assert answers.total < 100


@on_loop
async def test_who_leaves_most_unread_is_hung_up_on_and_the_others_stay() -> None:
    answers, worst, other = Answers(100), Someone(44), Someone(5)
    answers.left_unread(other, 5)
    answers.left_unread(worst, 44)
    assert worst.why == "", "below half of the bound nobody is"
    worst.unread_bytes = 45
    answers.left_unread(worst, 45)
    assert worst.why
    assert not other.why
    assert answers.total == 5


@on_loop
async def test_a_client_that_leaves_takes_what_it_held_with_it() -> None:
    answers, gone, waiting = Answers(100), Someone(30), Someone()
    answers.left_unread(gone, 30)
    answers.charge(70)
    assert not answers.admits(waiting)
    answers.forget(gone)
    await turns()
    assert waiting.went_on == 1
    assert answers.total == 70


# -- frames ---------------------------------------------------------------------------------


@on_loop
async def test_frames_up_to_the_bound_come_in_and_the_next_waits_in_order() -> None:
    frames, one, two, three = Frames(100), Someone(), Someone(), Someone()
    assert frames.take(one, 100)
    assert not frames.take(two, 60)
    assert not frames.take(three, 10)
    frames.give_back(one)
    await turns()
    assert (two.went_on, three.went_on) == (1, 1)
    assert frames.total == 70
    assert frames.take(two, 60), "it has it"


@on_loop
async def test_a_small_frame_does_not_overtake_one_that_waits() -> None:
    frames, one, two, three = Frames(100), Someone(), Someone(), Someone()
    frames.take(one, 60)
    assert not frames.take(two, 60)
    assert not frames.take(three, 10), "there is room, but it is not its turn"
    frames.give_back(two)
    await turns()
    assert three.went_on == 1


@on_loop
async def test_a_slow_frame_is_cut_off_only_while_another_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "FRAME_GRACE_S", 0.05)
    monkeypatch.setattr(budget, "_LOOK_S", 0.02)
    frames, slow, two = Frames(100), Someone(), Someone()
    frames.take(slow, 100)
    await asyncio.sleep(0.2)
    assert not slow.why
    assert not frames.take(two, 1)
    await wait_until(lambda: bool(slow.why))
    await turns()
    assert two.went_on == 1


# -- connections ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [framing.HELLO_BYTES_MAX, framing.HELLO_BYTES_MAX + 1])
@on_loop
async def test_before_hello_a_frame_is_a_few_kilobytes_at_most(tmp_path: Path, size: int) -> None:
    async with served(tmp_path) as (_, door):
        stranger = await door.stranger()
        stranger.writer.write(size.to_bytes(4, "little") + b"\x93\x00")
        if size <= framing.HELLO_BYTES_MAX:
            await turns(20)
            assert not stranger.reader.at_eof(), "it is waited for"
        else:
            number, status, said = await stranger.answer()
            assert (number, status) == (0, 1)
            assert f"a frame of {size} bytes" in said[1]
            assert await stranger.answer() is None


@on_loop
async def test_who_does_not_say_hello_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HELLO_S", 0.05)
    async with served(tmp_path) as (_, door):
        client, stranger = await door.client(), await door.stranger()
        assert await asyncio.wait_for(stranger.reader.read(), 10) == b""
        assert (await client.ask("status"))["pending"] == 0, "who did stays"


@on_loop
async def test_one_connection_more_than_the_limit_is_told_why_not(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, door):
        door.server._connections_max = 2
        first, _ = await door.client(), await door.client()
        refused = await door.stranger()
        number, status, (kind, said) = await refused.answer()
        assert (number, status, kind) == (0, 1, "StoreUnavailable")
        assert "2 connections open, which is the limit" in said
        first.writer.close()
        await wait_until(lambda: len(door.server.connections) == 1)
        await door.client()


@pytest.mark.parametrize("bound", ["WAITS_MAX", "WAITS_ALL_MAX"])
@on_loop
async def test_waits_are_bounded_for_one_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(connection, bound, 3)
    async with served(tmp_path) as (_, door), asyncio.timeout(20):
        client, other = await door.client(), await door.client()
        await client.ask("enqueue", [make_request("echo", id="a")])
        client.send(*([n, "wait", ["a", -1]] for n in range(1, 5)))
        number, status, (kind, said) = await client.answer()
        assert (number, status, kind) == (4, 1, "StoreUnavailable")
        assert "3 waits open, which is the limit" in said
        if bound == "WAITS_ALL_MAX":
            with pytest.raises(Exception, match="there are 3 waits open"):
                await other.ask("wait", "a", 1)
        await other.ask("cancel", "a")
        assert sorted([(await client.answer())[0] for _ in range(3)]) == [1, 2, 3]
        assert (await other.ask("wait", "a", 1))["state"] == "cancelled", "there is room again"


@on_loop
async def test_requests_without_an_answer_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest waits in the kernel, and every one is answered."""
    monkeypatch.setattr(connection, "ASKED_MAX", 10)
    async with served(tmp_path) as (world, door):
        client = await door.client()
        client.send(*([n, "enqueue", [[make_request("echo", n)]]] for n in range(1, 1_001)))
        got = [(await client.answer())[0] for _ in range(1_000)]
        assert got == list(range(1, 1_001))
        assert world.engine.counters.commits >= 100


@on_loop
async def test_a_frame_beyond_the_free_size_takes_room_until_it_is_whole(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, door):
        shared = door.server._budget
        client = await door.client()
        for size in (FRAME_BYTES_FREE - 200, FRAME_BYTES_FREE * 4):
            frame = framing.encode_frame([1, "enqueue", [[make_request("echo", "x" * size)]]])
            client.writer.write(frame[:-1])
            await turns(20)
            assert shared.frames.total == (len(frame) if size > FRAME_BYTES_FREE else 0)
            client.writer.write(frame[-1:])
            assert (await client.answer())[:2] == [1, 0]
            assert shared.frames.total == 0


@on_loop
async def test_when_all_is_answered_nothing_is_held(tmp_path: Path) -> None:
    """Every charge is given back: of answers, requests, waits and frames, dropped ones too."""
    async with served(tmp_path) as (_, door), asyncio.timeout(20):
        shared = door.server._budget
        client = await door.client()
        big = make_request("echo", "x" * 100_000, id="big")
        client.send([1, "enqueue", [[big]]], *([n, "show", ["big"]] for n in range(2, 60)))
        for n in range(60, 80):
            client.send([n, "wait", ["big", -1]], [n + 100, "explain", ["big"]])
        client.send([300, "list", ["", "", "", 0, 0]], [301, "nothing", []], [302, "show", ["?"]])
        for _ in range(59 + 20 + 3):
            await client.answer()
        assert shared.waits == 20
        client.writer.transport.abort()
        other = await door.client()
        other.writer.write(framing.encode_frame([1, "status", []])[:-1])
        await wait_until(lambda: len(door.server.connections) == 1)
        other.writer.close()
        await wait_until(lambda: not door.server.connections)
        await turns(20)
        assert (shared.answers.total, shared.frames.total, shared.waits) == (0, 0, 0)


def test_taking_back_a_wait_costs_the_same_however_many_there_are() -> None:
    """A client with a hundred thousand waits for one job hangs up: no scan for each."""

    class Counted:
        compared = 0

        def __call__(self, view: ResultView) -> None:
            raise AssertionError("nobody waits any more")

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return self is other

        __hash__ = object.__hash__

    results = Results()
    forgets = [results.wait("a", Counted()) for _ in range(1_000)]
    for forget in reversed(forgets):
        forget()
        forget()
    assert Counted.compared == 0
    assert results.waiting == 0
    results.observe(1, 1, [Cancelled("a", 0)])
