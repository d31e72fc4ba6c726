"""The end of a keeper: nobody is shown out before what was taken in is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

from beaver.config.layers import load_config
from beaver.holder.owning import own_log
from beaver.keeper.parts import KeeperParts
from beaver.request.requests import make_request
from beaver.server.unix_socket import SocketServer
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver.transport import framing
from tests.runtime.test_service import Peer
from tests.worlds.runtime import on_loop
from tests.worlds.service import NoPast


class NoHelper:
    """`ports.Helper`, of which nothing is asked."""

    async def stop(self) -> None:
        """There is none to be stopped."""


def keeper(path: Path) -> KeeperParts:
    path.mkdir(mode=0o700)
    config = load_config({"data": str(path)}, environ={"BEAVER_COMMIT": "writer"})
    disk, clock = SystemDisk(), SystemClock()
    owned = own_log(config, disk, clock, bytes(16))
    assert owned is not None

    def failed(error: BaseException) -> None:
        raise error

    return KeeperParts(
        config,
        owned,
        clock=clock,
        disk=disk,
        on_failure=failed,
        make_helper=lambda _: NoHelper(),  # type: ignore[arg-type,return-value] # nothing is asked
        make_past=lambda *_: NoPast(),
    )


@on_loop
async def test_the_farewell_comes_behind_the_answer_of_the_last_commit(
    tmp_path: Path,
) -> None:
    """So what is not answered by then was not carried out, and is sent again: `requeue` too.

    The commit is with the writer process when the keeper is asked to leave.
    """
    parts = keeper(tmp_path / "data")
    server = SocketServer(parts.service, "store")
    await server.start(str(tmp_path / "socket"))
    peer = Peer(*await asyncio.open_unix_connection(str(tmp_path / "socket")))
    try:
        peer.send([0, "hello", [framing.VERSION]])
        assert (await peer.answer())[:2] == [0, 0]
        peer.send([1, "enqueue", [[make_request("echo", id="a")]]])
        async with asyncio.timeout(30):
            while not parts.engine.state.last_seq:  # noqa: ASYNC110 - it says so to nobody
                await asyncio.sleep(0)
            assert parts.engine.durable_seq == 0, "the writer has it"
            await parts.halt(server.close)
            number, status, _ = await peer.answer()
            assert (number, status) == (1, 0)
            assert (await peer.answer())[1] == framing.FAREWELL
            assert await peer.answer() is None
        assert parts.engine.durable_seq == 1
    finally:
        peer.writer.close()
        await server.close()
        await parts.finish()
