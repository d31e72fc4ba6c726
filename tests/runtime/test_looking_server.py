"""A server keeps its loop turning for the next request of a client that is alone."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from beaver.server.outbox import Outbox
from beaver.system.spinning import LOOK_S
from tests.api.test_looking import Machine
from tests.worlds.runtime import on_loop


class Answered:
    """A connection with an answer."""

    def flush(self) -> None:
        """Sends it."""


def send_to(outbox: Outbox, count: int) -> None:
    for _ in range(count):
        outbox.add(cast("Any", Answered()))


async def yields_of(machine: Machine, turns: int = 1_000) -> int:
    """Returns how often a loop has looked in some turns."""
    before_s = machine.now_s
    for _ in range(turns):
        await asyncio.sleep(0)
    return round((machine.now_s - before_s) / machine.yield_s)


def outbox_of(machine: Machine) -> Outbox:
    loop = asyncio.get_running_loop()
    return Outbox(lambda send: cast("None", loop.call_soon(send)), machine.looking)


@on_loop
async def test_it_looks_behind_an_answer_to_one_client_and_for_a_moment_only() -> None:
    machine = Machine(vain_pause_s=1.0)
    send_to(outbox_of(machine), 1)
    looked = await yields_of(machine)
    assert 0 < looked <= LOOK_S / machine.yield_s + 2
    assert await yields_of(machine) == 0


@on_loop
async def test_it_does_not_look_behind_answers_to_several_clients() -> None:
    """Others come while the log syncs: the loop has enough to do, and they need the cores."""
    machine = Machine(vain_pause_s=1.0)
    send_to(outbox_of(machine), 2)
    assert await yields_of(machine) == 0


@on_loop
async def test_it_looks_on_as_long_as_the_next_request_comes_soon() -> None:
    machine = Machine(vain_pause_s=1.0)
    outbox = outbox_of(machine)
    for _ in range(20):
        send_to(outbox, 1)
        assert await yields_of(machine, 10) > 5
    send_to(outbox, 2)  # Another client has come.
    await yields_of(machine, 3)
    assert await yields_of(machine) == 0


@on_loop
async def test_after_a_look_in_vain_it_sleeps_at_once_for_a_while() -> None:
    machine = Machine(vain_pause_s=1.0)
    outbox = outbox_of(machine)
    send_to(outbox, 1)
    await yields_of(machine)
    send_to(outbox, 1)
    assert await yields_of(machine) == 0
    machine.now_s += 1.0
    send_to(outbox, 1)
    assert await yields_of(machine) > 0


@on_loop
async def test_a_request_that_has_come_ends_the_look_at_once() -> None:
    """To yield the core then would keep its client waiting; its answer begins another look."""
    machine = Machine(vain_pause_s=1.0)
    outbox = outbox_of(machine)
    send_to(outbox, 1)
    assert await yields_of(machine, 3) > 0
    outbox.has_come = True
    assert await yields_of(machine) == 0
    send_to(outbox, 1)
    assert await yields_of(machine, 3) > 0
