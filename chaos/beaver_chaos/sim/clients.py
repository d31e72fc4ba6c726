"""Simulated clients and operators: the real asyncio client, over connections in memory.

A client never gives up a request to enqueue whose outcome it does not know: it sends the
very same again.  What it is told goes to the `ClientRecord`, and to the watch at the moment when
it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from beaver.client.asynchronous import AsyncClient, _Wire
from beaver.client.calls import Call
from beaver.errors import (
    BeaverError,
    Conflict,
    DiskFull,
    InvalidInput,
    NoServer,
    NotFound,
    QueueFull,
    ServerGone,
    ServerLeft,
    StoreUnavailable,
    WaitTimeout,
)
from beaver.request.operations import Nothing, Operation
from beaver.structs.views import Accepted
from beaver.transport import framing
from beaver.transport.endpoint import read_greeting
from beaver_chaos.sim.loop import Process
from beaver_chaos.sim.machine import Machine
from beaver_chaos.sim.plan import JobPlan
from beaver_chaos.sim.scripts import request_of
from beaver_model.events import Cancelled, CancelRequested, Discarded, Requeued

_HELLO: Final = Operation("hello", Nothing, list[Any])
_RETRY_S: Final = 0.005
_FULL_RETRY_S: Final = 0.25
_CANCELLED: Final = {"cancelled": Cancelled.NAME, "cancel_requested": CancelRequested.NAME}

NO_ROOM: Final = "would be one more than"
"""Said of a queue for which none of the others can be forgotten."""


def _same(value: Any) -> Any:
    return value


class SimClient:
    """One client process.  Its requests are pipelined over one connection."""

    def __init__(self, world: Machine, number: int) -> None:
        self.world, self.number = world, number
        self.process = Process(f"client {number}")
        self._client: AsyncClient | None = None
        self._dialling = False
        self.busy = 0
        """Requests that are still to be answered."""

    def begin(self, kind: str, args: tuple[Any, ...]) -> None:
        """Starts to carry out an act, which has been counted as one of the busy."""
        asyncio.get_running_loop().create_task(self._carry_out(kind, args))

    async def _carry_out(self, kind: str, args: tuple[Any, ...]) -> None:
        try:
            if kind == "enqueue":
                await self._enqueue(args[0])
            else:
                await self._try(kind, args)
        finally:
            self.busy -= 1

    # -- the connection --------------------------------------------------------------------------

    async def _connected(self) -> AsyncClient:
        while self._client is None or self._client.closed:
            if self._dialling:
                await asyncio.sleep(_RETRY_S)
                continue
            self._dialling = True
            self._client = await self._dial()
            self._dialling = False
            if self._client is None:
                await asyncio.sleep(_RETRY_S)
        return self._client

    async def _dial(self) -> AsyncClient | None:
        await asyncio.sleep(self.world.latency_ns() / 1e9)
        life = self.world.listening
        if life is None:
            return None
        wire = _Wire()
        with self.world.loop.within(life.process):
            answering = life.accept()
        self.world.connections.connect((self.process, wire), (life.process, answering))
        try:
            answer = await wire.ask(Call(_HELLO, [framing.VERSION], _same))
        except ServerGone:
            return None
        return AsyncClient(wire, read_greeting([0, 0, framing.decode_message(answer)]))

    # -- requests --------------------------------------------------------------------------------

    async def _enqueue(self, jobs: Sequence[JobPlan]) -> None:
        world, names = self.world, [job.id for job in jobs]
        requests = [request_of(job) for job in jobs]
        unknown = any(name in world.witness.sent for name in names)
        world.witness.sending(names)
        while True:
            client = await self._connected()
            try:
                answers = await client.enqueue(requests)
            except ServerLeft:
                self._untouched(names, unknown=unknown)
            except ServerGone:
                unknown = True
                world.witness.lose(names)
                world.note("client", self.number, "has no answer for", *names)
            except (DiskFull, QueueFull, StoreUnavailable) as error:
                world.reach("new jobs are refused for want of disk")
                world.note("client", self.number, "is refused", type(error).__name__, *names)
                await asyncio.sleep(_FULL_RETRY_S)
            except InvalidInput as error:
                if not isinstance(error, Conflict) and NO_ROOM in str(error):
                    world.reach("no queue can be forgotten for a new one")
                    world.note("client", self.number, "is refused a queue for", *names)
                    world.witness.give_up(names)
                    return
                world.watch.wrong(f"the same jobs {names} were sent, and there is {error}")
                return
            else:
                world.note("client", self.number, "is told of", *names)
                self._take(answers)
                world.watch.told(max((answer.seq for answer in answers), default=0))
                await self._look(client, names[0])
                return

    def _untouched(self, names: Sequence[str], *, unknown: bool) -> None:
        """The ending server has refused these.  If no other one got them, the log lacks them."""
        self.world.reach("a request is left by who ends, and sent again")
        known = self.world.watch.book.pages
        if not unknown and any(name in known for name in names):
            self.world.watch.wrong(f"{names} were left by a server that ended, and are in the log")

    def _take(self, answers: Sequence[Accepted]) -> None:
        """Tells the witness; an id that was forgotten since may stand for a new job."""
        world, witness = self.world, self.world.witness
        for answer in answers:
            known = witness.acknowledged.get(answer.id)
            if known is not None and known != answer.seq and answer.id in world.watch.forgotten:
                world.reach("an id is forgotten and stands for a new job")
                witness.forget(answer.id)
            elif not answer.created:
                world.reach("a request is sent again, and the job is known")
        witness.acknowledge(answers)

    async def _look(self, client: AsyncClient, name: str) -> None:
        """Every later read through that server sees what was acknowledged (P11)."""
        try:
            await client.show(name)
        except NotFound:
            if name in self.world.watch.forgotten:
                return
            self.world.watch.wrong(f"job {name} was acknowledged, and the server knows no such job")
        except ServerGone:
            return

    async def _try(self, kind: str, args: tuple[Any, ...]) -> None:
        """Asks once; refused, or with no answer, it may have happened or not."""
        world = self.world
        client = await self._connected()
        try:
            if kind == "cancel":
                event = _CANCELLED.get(await client.cancel(args[0]))
                if event is not None:
                    world.witness.change(event, args[0])
            elif kind == "requeue":
                await client.requeue(args[0])
                world.witness.change(Requeued.NAME, args[0])
            elif kind == "discard":
                await client.discard(args[0])
                world.witness.change(Discarded.NAME, args[0])
            elif kind in ("pause", "resume"):
                await client.set_queue(args[0], paused=kind == "pause")
            elif kind == "weight":
                await client.set_queue(args[0], weight=args[1])
            elif kind == "show":
                await client.show(args[0])
            elif kind == "wait":
                view = await client.wait(args[0], args[1] / 1000)
                world.watch.told_end(view.id, view.state)
            else:
                status = await client.status()
                world.watch.told(status.last_seq)
        except (ServerGone, NotFound, Conflict, DiskFull, NoServer, WaitTimeout) as error:
            world.note("client", self.number, kind, *args[:1], "gets", type(error).__name__)
        except BeaverError as error:
            if isinstance(error, InvalidInput) and NO_ROOM in str(error):
                world.note("client", self.number, kind, *args[:1], "is refused a queue")
                return
            world.watch.wrong(f"client {self.number}: {kind} {args[:1]} gets {error!r}")
        else:
            world.reach(f"a client's {kind} is done")
            world.note("client", self.number, kind, *args[:1], "is done")
