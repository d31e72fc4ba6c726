"""Remote workers over HTTP: they register, say that they live, ask for work, and leave.

A pull is a long poll without a thread: its handler sleeps until `dispatch.pulls` has something
whose DISPATCH is durable.  A client that goes meanwhile gives back what it had got.

What may not live here: leases (`dispatch.leases`), and how attempts end (`outcomes`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, Final

import msgspec

from beaver.access.roles import Right
from beaver.dispatch.remote_workers import CAPACITY_MAX, NAMES_MAX
from beaver.errors import Conflict, InvalidInput, NotFound
from beaver.server.http.routing import Body, HttpCall, NoBody, Reply, Route
from beaver.structs.messages import Attempt
from beaver.structs.views import StatusView, WorkerView
from beaver.task.programs import EXEC
from beaver.text.names import check_name
from beaver_model.bounds import INTEGER_MAX, NAME_BYTES_MAX, REMOTE_WORKERS_FROM

BODY_BYTES_MAX: Final = 64 << 10
RUNNING_MAX: Final = 2 * CAPACITY_MAX
"""Tokens that one heartbeat names."""
WAIT_MS_MAX: Final = 60_000
"""Longest time that one pull waits."""

_decode_status: Final = msgspec.json.Decoder(StatusView).decode

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_BYTES_MAX)]
Names = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=NAMES_MAX)]
TokenNumber = Annotated[int, msgspec.Meta(ge=1, le=INTEGER_MAX)]


# -- what is sent and answered -----------------------------------------------------------------


class Workers(msgspec.Struct):
    """All workers."""

    workers: list[WorkerView]


class Registration(Body):
    """A worker that comes."""

    name: Name
    """For people; two may share one."""
    tasks: Names
    """What it can run."""
    capacity: Annotated[int, msgspec.Meta(ge=1, le=CAPACITY_MAX)]
    """Jobs that it may hold at once."""
    queues: Names | None = None
    """Whose jobs it takes; all, where it does not say."""


class Registered(msgspec.Struct):
    """What a worker is called from now on, and what is expected of it."""

    worker: int
    lease_ms: int
    """Silence after which it has lost its jobs."""
    heartbeat_ms: int
    """How often it should be heard of."""


class Heartbeat(Body):
    """A worker that lives."""

    running: (
        Annotated[list[TokenNumber], msgspec.Meta(max_length=RUNNING_MAX)] | msgspec.UnsetType
    ) = msgspec.UNSET
    """Tokens of all that it runs.  What it holds and has not named for a lease is taken away."""


class Heard(msgspec.Struct):
    """What a worker has to know."""

    cancel: list[int]
    """Tokens of attempts that are to stop."""
    lost: list[int]
    """Tokens that it named and does not hold: nobody waits for their outcome."""
    drain: bool
    """It is to end what it runs, and to leave."""


class PullBody(Body):
    """A request for work."""

    max: Annotated[int, msgspec.Meta(ge=1, le=CAPACITY_MAX)] = 1
    """Attempts that it takes at most."""
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=WAIT_MS_MAX)] = 0
    """How long to wait for the first one."""


class Given(msgspec.Struct):
    """One attempt of a job."""

    job: str
    task: str
    queue: str
    payload: msgspec.Raw
    token: int
    """Its outcome carries it."""
    attempt: int
    """1 for the first."""
    max_attempts: int
    timeout_ms: int
    """After so long it is taken back."""
    idempotency_key: str
    """The same for every attempt of a job."""
    tags: tuple[str, ...]


class Work(msgspec.Struct):
    """What a worker is to run; nothing, where the wait has ended."""

    attempts: list[Given]
    drain: bool
    """It is given nothing more: it is to end what it runs, and to leave."""


class Drained(msgspec.Struct):
    """A worker that is given nothing more."""

    worker: int
    jobs: int
    """Jobs that it still holds."""


# -- requests ----------------------------------------------------------------------------------


def _number(call: HttpCall) -> int:
    """Returns the worker in the path.

    Raises:
        NotFound: It is no number.
    """
    number = call.number("worker")
    if number is None:
        raise NotFound("no such worker: its number is what POST /v1/workers has answered")
    return number


async def _register(call: HttpCall) -> Reply:
    body = await call.body(Registration, BODY_BYTES_MAX)
    check_name(body.name, "name")
    tasks = frozenset(check_name(task, "tasks") for task in body.tasks)
    queues = None
    if body.queues is not None:
        queues = frozenset(check_name(queue, "queues") for queue in body.queues)
    if EXEC in tasks:
        raise InvalidInput("tasks: exec runs on the server's own machine only")
    leases = call.site.leases

    def register() -> Registered:
        worker = leases.register(body.name, tasks, queues, body.capacity, call.token.id)
        return Registered(worker.number, leases.lease_ms, leases.heartbeat_ms)

    return Reply(*await call.site.read(lambda _: register()), 201)


async def _heartbeat(call: HttpCall) -> Reply:
    body, number = await call.body(Heartbeat, BODY_BYTES_MAX), _number(call)
    running = None if isinstance(body.running, msgspec.UnsetType) else body.running

    def beat() -> Heard:
        return Heard(*call.site.leases.heartbeat(number, running))

    return Reply(*await call.site.read(lambda _: beat()))


async def _pull(call: HttpCall) -> Reply:
    body, number = await call.body(PullBody, BODY_BYTES_MAX), _number(call)
    with call.site.holding(call.token) if body.wait_ms else nullcontext():
        attempts, drain = await _wait_for_work(call, number, body)
    work = Work([_given(attempt) for attempt in attempts], drain)
    return Reply(work, call.site.engine.durable_seq)


async def _wait_for_work(
    call: HttpCall, number: int, body: PullBody
) -> tuple[Sequence[Attempt], bool]:
    """Returns what a worker gets, and whether it is to leave.

    Where the wait ends with something under way to the disk, that is waited for.

    Raises:
        NotFound: The worker is not known (any more).
    """
    site, leases = call.site, call.site.leases
    told: asyncio.Future[Sequence[Attempt]] = site.waiting()

    def given(attempts: Sequence[Attempt]) -> None:
        if not told.done():
            told.set_result(attempts)

    pull, is_read = None, False
    try:
        pull = leases.pull(number, body.max, given, waits=body.wait_ms > 0)
        if body.wait_ms:
            await asyncio.wait((told,), timeout=body.wait_ms / 1000)
        if body.wait_ms and not told.done() and not pull.attempts:
            return (), pull.worker.draining
        attempts = await told
        transport = call.request.transport
        is_read = transport is not None and not transport.is_closing()
        return attempts, pull.worker.draining
    finally:
        site.forget(told)
        if pull is not None and not is_read:
            leases.drop(pull)


def _given(attempt: Attempt) -> Given:
    return Given(
        attempt.job,
        attempt.task,
        attempt.queue,
        msgspec.Raw(attempt.payload),
        attempt.token,
        attempt.attempt,
        attempt.max_attempts,
        attempt.timeout_ms,
        attempt.idempotency_key,
        attempt.tags,
    )


async def _leave(call: HttpCall) -> Reply:
    await call.body(NoBody, BODY_BYTES_MAX)
    number = _number(call)

    def leave() -> Drained:
        held = len(call.site.leases.worker(number).held)
        call.site.leases.remove(number)
        return Drained(number, held)

    return Reply(*await call.site.read(lambda _: leave()))


async def _drain(call: HttpCall) -> Reply:
    await call.body(NoBody, BODY_BYTES_MAX)
    number = _number(call)
    if number < REMOTE_WORKERS_FROM:
        raise Conflict(
            f"worker {number} is the server's own: `beaver reload` replaces those, and a signal "
            "ends them with the server"
        )

    def drain() -> Drained:
        return Drained(number, len(call.site.leases.drain(number).held))

    return Reply(*await call.site.read(lambda _: drain()))


async def _workers(call: HttpCall) -> Reply:
    seq = call.site.engine.durable_seq
    status = _decode_status(await call.site.ask("status", []))
    return Reply(Workers(status.workers), seq)


_CHANGE: Final = ("unsupported_media_type", "too_large")
_OF_WORKER: Final = (*_CHANGE, "not_found")

ROUTES: Final = (
    Route("GET", "/v1/workers", Right.READ, _workers, "All workers", {200: Workers}),
    Route(
        "POST", "/v1/workers", Right.WORK, _register, "Register a worker", {201: Registered},
        body=Registration, problems=(*_CHANGE, "too_many_requests"),
    ),
    Route(
        "POST", "/v1/workers/{worker}/heartbeat", Right.WORK, _heartbeat,
        "Say that a worker lives, and what it runs", {200: Heard}, body=Heartbeat,
        problems=_OF_WORKER,
    ),
    Route(
        "POST", "/v1/workers/{worker}/pull", Right.WORK, _pull,
        "Get work, up to what the worker has room for", {200: Work}, body=PullBody,
        problems=(*_OF_WORKER, "too_many_requests"),
    ),
    Route(
        "POST", "/v1/workers/{worker}/drain", Right.DISMISS, _drain,
        "Give a worker nothing more, and have it told to leave", {200: Drained}, body=NoBody,
        problems=(*_OF_WORKER, "conflict"),
    ),
    Route(
        "DELETE", "/v1/workers/{worker}", Right.DISMISS, _leave,
        "See a worker off: what it holds is given back, and no attempt is spent", {200: Drained},
        body=NoBody, problems=_OF_WORKER,
    ),
)  # fmt: skip
