"""Followers of the log share what is made for them, and none is left asleep."""

from __future__ import annotations

import asyncio

import msgspec

from beaver.server.http.feed import WOKEN_AT_ONCE, Feed, Piece, Quiet
from beaver.structs.questions import Walked, WalkedEvent

FOLLOWERS = 2 * WOKEN_AT_ONCE + 1


class Log:
    """A log that grows by hand."""

    def __init__(self) -> None:
        self.last_seq, self.asked = 0, 0
        self.feed = Feed(self.walk, lambda: self.last_seq)

    async def walk(self, after_seq: int, until_seq: int, bytes_max: int) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        events = [
            WalkedEvent(seq, "ENQUEUE", f"j{seq}", "q", msgspec.Raw(b'{"seq":%d}' % seq))
            for seq in range(after_seq + 1, until_seq + 1)
        ]
        return msgspec.json.encode(Walked(events, until_seq, 1))

    def grow(self, count: int) -> None:
        self.last_seq += count
        self.feed.committed()


async def take(log: Log, count: int, found: list[Piece]) -> None:
    """Follows until so many events came."""
    steps = log.feed.follow(0, 5.0)
    async for step in steps:
        assert isinstance(step, Piece)
        found.append(step)
        count -= len(step.events)
        if not count:
            break
    await steps.aclose()


def test_followers_at_one_place_share_one_piece_and_one_question() -> None:
    """However many they are; on both sides of how many are woken at once."""

    async def run() -> None:
        log = Log()
        found: list[list[Piece]] = [[] for _ in range(FOLLOWERS)]
        following = asyncio.gather(*(take(log, 3, one) for one in found))
        await asyncio.sleep(0.01)
        log.grow(3)
        async with asyncio.timeout(10):
            await following
        assert len({id(piece) for one in found for piece in one}) == 1
        assert log.asked == 1
        piece = found[0][0]
        assert piece.whole is piece.whole
        assert piece.whole == b"".join(
            b'id: %d\nevent: ENQUEUE\ndata: {"seq":%d}\n\n' % (n, n) for n in (1, 2, 3)
        )

    asyncio.run(run())


def test_what_comes_while_a_follower_is_busy_is_not_missed() -> None:
    """It is at another place than the others then."""

    async def run() -> None:
        log = Log()
        seen: list[int] = []
        async with asyncio.timeout(10):
            async for step in log.feed.follow(0, 0.01):
                if isinstance(step, Piece):
                    seen += [one.seq for one in step.events]
                    await asyncio.sleep(0.05)
                if log.last_seq < 20:
                    log.grow(2)
                    await asyncio.sleep(0.03)
                    log.grow(2)
                elif len(seen) == log.last_seq:
                    break
        assert seen == list(range(1, log.last_seq + 1))

    asyncio.run(run())


def test_a_quiet_log_says_so_and_the_end_of_the_server_ends_it() -> None:
    async def run() -> None:
        log = Log()
        steps = log.feed.follow(0, 0.01)
        assert isinstance(await anext(steps), Quiet)
        asleep = [asyncio.ensure_future(take(log, 1, [])) for _ in range(3)]
        await asyncio.sleep(0.01)
        log.feed.close()
        async with asyncio.timeout(10):
            assert [step async for step in steps] == []
            await asyncio.gather(*asleep)

    asyncio.run(run())
