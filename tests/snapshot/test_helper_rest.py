"""The helper rests: it ends when nothing is asked of it, and comes back when something is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from beaver.helper.process import HelperProcess
from tests.snapshot.test_helper_process import is_alive, until


def test_a_helper_ends_when_nothing_is_asked_and_is_started_again(tmp_path: Path) -> None:
    """A server with nothing to do keeps no helper in memory; the next request finds one."""

    async def use() -> None:
        helper = HelperProcess(str(tmp_path), idle_s=0.05)
        try:
            await helper.prepare(str(tmp_path / "one"), 1 << 16)
            first = helper.pid
            assert first is not None
            await until(lambda: helper.pid is None and not is_alive(first), "the helper has ended")
            await helper.prepare(str(tmp_path / "two"), 1 << 16)
            assert helper.pid not in (None, first)
        finally:
            await helper.stop()

    asyncio.run(use())
    assert (tmp_path / "two").read_bytes() == bytes(1 << 16)


def test_a_helper_stays_while_it_is_at_work(tmp_path: Path) -> None:
    """However long that takes: its time begins when the last request is answered."""

    async def use() -> None:
        helper = HelperProcess(str(tmp_path), idle_s=0.0)
        try:
            asked = [
                asyncio.create_task(helper.prepare(str(tmp_path / f"{number}"), 32 << 20))
                for number in range(3)
            ]
            await until(lambda: helper.pid is not None, "the helper is there")
            pid = helper.pid
            while not asked[2].done():
                assert helper.pid == pid
                await asyncio.sleep(0.001)
            await asyncio.gather(*asked)
        finally:
            await helper.stop()

    asyncio.run(use())
