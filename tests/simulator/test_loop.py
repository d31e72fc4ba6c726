"""The loop: virtual time, chosen order, processes that die, and no way out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from beaver_chaos.sim.loop import Forbidden, Process, SimLoop, StepsExceeded


def first(count: int) -> int:
    return 0


def loop_of(choose: Callable[[int], int] = first, *, in_order: bool = False) -> SimLoop:
    return SimLoop(choose, steps_max=1_000, in_order=in_order)  # type: ignore[abstract]


def test_time_jumps_to_the_next_timer_and_nothing_waits() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert loop_of().run(main()) == 86_400


def test_choosing_the_first_is_the_order_of_asyncio() -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        loop = asyncio.get_running_loop()
        for n in range(5):
            loop.call_soon(seen.append, n)
        await asyncio.sleep(1)
        return seen

    assert loop_of().run(main()) == asyncio.run(main_of_asyncio()) == [0, 1, 2, 3, 4]


async def main_of_asyncio() -> list[int]:
    seen: list[int] = []
    loop = asyncio.get_running_loop()
    for n in range(5):
        loop.call_soon(seen.append, n)
    await asyncio.sleep(0)
    return seen


def test_another_choice_is_another_order_and_in_order_holds_within_a_process() -> None:
    def orders(in_order: bool) -> set[tuple[int, ...]]:
        found = set()
        for seed in range(50):
            seen: list[int] = []

            async def main(seen: list[int] = seen) -> None:
                for n in range(3):
                    asyncio.get_running_loop().call_soon(seen.append, n)
                await asyncio.sleep(1)

            loop_of(random.Random(seed).randrange, in_order=in_order).run(main())
            found.add(tuple(seen))
        return found

    assert len(orders(in_order=False)) == 6
    assert orders(in_order=True) == {(0, 1, 2)}


def test_a_killed_process_runs_nothing_any_more_not_even_its_finally() -> None:
    loop, victim, seen = loop_of(), Process("victim"), []

    async def work() -> None:
        try:
            seen.append("begins")
            await asyncio.sleep(1)
            seen.append("goes on")
        finally:
            seen.append("tidies up")

    async def main() -> list[str]:
        with loop.within(victim):
            loop.create_task(work())
        await asyncio.sleep(0.5)
        loop.kill(victim)
        await asyncio.sleep(2)
        return list(seen)

    assert loop.run(main()) == ["begins"]


def test_a_stopped_process_goes_on_where_it_was() -> None:
    loop, held, seen = loop_of(), Process("held"), []

    async def work() -> None:
        for n in range(3):
            await asyncio.sleep(1)
            seen.append((n, loop.time()))

    async def main() -> None:
        with loop.within(held):
            loop.create_task(work())
        await asyncio.sleep(1.5)
        loop.stop_process(held)
        await asyncio.sleep(10)
        loop.continue_process(held)
        await asyncio.sleep(10)

    loop.run(main())
    assert seen == [(0, 1.0), (1, 11.5), (2, 12.5)]


def test_a_callback_of_a_process_passes_it_on() -> None:
    loop, owner = loop_of(), Process("owner")
    seen = []

    async def main() -> None:
        loop.call_in(owner, 0, lambda: loop.call_later(1, lambda: seen.append(loop.current)))
        await asyncio.sleep(2)

    loop.run(main())
    assert seen == [owner]


def test_threads_are_forbidden_and_an_endless_run_ends() -> None:
    async def thread() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(Forbidden):
        loop_of().run(thread())

    async def spin() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(StepsExceeded):
        loop_of().run(spin())

    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(StepsExceeded):
        loop_of().run(hang())


def test_tasks_are_ordered_in_sets_by_birth() -> None:
    async def main() -> bool:
        async def nothing() -> None: ...

        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(nothing()) for _ in range(6)]
        await asyncio.sleep(1)
        return list({*tasks[::-1]}) == tasks

    assert loop_of().run(main())
