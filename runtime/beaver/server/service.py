"""What clients may ask of a running server: each operation of `operations`, over the engine.

Each has a method of its name, which the local socket and HTTP use.  A method gets the arguments,
read and checked as the table says, and a `Respond`, which it calls once with the answer, when all
that the answer rests on is durable.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from beaver.engine.engine import Engine
from beaver.engine.replies import Applied, Reply
from beaver.errors import BeaverError, InvalidInput
from beaver.inspect import queries
from beaver.request.operations import (
    OPERATIONS,
    Again,
    Many,
    Nothing,
    OneBulk,
    OneJob,
    QueueSettings,
)
from beaver.request.rejections import error_of
from beaver.server.answers import Answer, Asker, PastTeller, Respond, Watch
from beaver.server.asking import Questions
from beaver.server.bulk.choosing import Choosing
from beaver.server.received import read_requests
from beaver.server.results import Results
from beaver.server.strangers import Strangers
from beaver.structs.messages import Request
from beaver.structs.views import (
    AcceptedBriefly,
    QueueView,
    ReloadView,
    StatusView,
)
from beaver.text import jsontext
from beaver.text.names import check_name
from beaver_model import Rejection, State
from beaver_model.commands import AnyCommand, Cancel, Discard, NewJob, Requeue, SetQueue
from beaver_model.events import QueueForgotten
from beaver_model.rows import Origin

OP_CHARS_MAX: Final = 64
"""The name of an operation that does not exist is repeated where it is no longer than this."""

T = TypeVar("T")

_json: Final = msgspec.json.Encoder().encode


class Service(Questions):
    """Answers requests.  Every method belongs to the loop's thread."""

    KIND = "server"
    """What it says of itself in its hello."""

    def __init__(
        self,
        engine: Engine,
        results: Results,
        past: PastTeller,
        *,
        to_job: Callable[[Request, int, int, str], NewJob],
        status: Callable[[State], StatusView],
        payload_bytes_max: int,
        reload: Callable[[], Awaitable[ReloadView]] | None = None,
        leave: Callable[[], None] | None = None,
    ) -> None:
        """Makes a service that answers from these parts.

        Args:
            engine: Owner of the state.
            results: How jobs ended, from memory.
            past: How jobs went, from the log.
            to_job: Resolves a request at a time, with its origin and who asks.
            status: Builds the status of a state, with what only the running server knows.
            payload_bytes_max: Bound on an edited payload.
            reload: Gives the server new workers.
            leave: Ends the server.
        """
        super().__init__(engine, results, past, status)
        self._to_job, self._reload, self._leave = to_job, reload, leave
        self.payload_bytes_max = payload_bytes_max
        self._strangers = Strangers(engine.state)
        self.choosing: Choosing | None = None
        """Begins actions on many jobs, where the server keeps files of them."""

    def handle(
        self, op: str, body: Any, respond: Respond, origin: Origin = Origin.LOCAL, by: str = ""
    ) -> Watch | None:
        """Carries out one request.  Whatever is wrong with it is its answer.

        Args:
            op: Name of the operation.
            body: Its arguments, as they came.
            respond: Called once with the answer; an `Asker` tells who asks.
            origin: How the request came.
            by: Who enqueues, where that is logged; see `beaver_model.events.By`.

        Returns:
            The wait for an answer, to be dropped where nobody wants it any more.
        """
        if op == "enqueue":
            self.enqueue(body, respond, origin, by)
            return None
        try:
            operation = OPERATIONS.get(op)
            if operation is None:
                known = ", ".join(sorted(OPERATIONS))
                said = repr(op) if len(op) <= OP_CHARS_MAX else f"of {len(op):,} characters"
                raise InvalidInput(f"no operation {said}; there are {known}")
            method: Callable[[Any, Asker], Watch | None] = getattr(self, operation.method)
            asker = respond if type(respond) is Asker else Asker(respond, by=by)
            return method(operation.arguments(body), asker)
        except BeaverError as error:
            respond(error)
        return None

    def enqueue(
        self, body: Any, respond: Respond, origin: Origin = Origin.LOCAL, by: str = ""
    ) -> None:
        """Carries out the operation that comes most, as `handle` does; `body` is as it came."""
        try:
            requests = read_requests(body)
        except BeaverError as error:
            respond(error)
            return
        self.take_in(requests, respond, origin, by)

    def take_in(
        self, requests: Sequence[Request], respond: Respond, origin: Origin, by: str = ""
    ) -> None:
        """Takes in jobs that were read, and fit into one commit."""
        engine, to_job = self._engine, self._to_job
        try:
            # A lone job mostly has no delay, which is all that wants to know the time.
            now_ms = engine.now_ms() if len(requests) != 1 or requests[0].delay_ms else 0
            jobs = [to_job(request, now_ms, origin, by) for request in requests]
            engine.enqueue(jobs, self._enqueued, respond)
        except BeaverError as error:
            respond(error)

    def once_told(self, callback: Callable[[], None]) -> None:
        """See `Engine.once_told`."""
        self._engine.once_told(callback)

    # -- jobs come in ----------------------------------------------------------------------

    def _enqueued(self, jobs: list[NewJob], reply: Reply) -> Answer:
        """Answers with id, seq and newness of each job, right after they were taken in."""
        if not isinstance(reply, Applied):
            return error_of(reply) if isinstance(reply, Rejection) else reply
        first_seq, events = reply.first_seq, reply.events
        if len(events) == len(jobs) and not (events and type(events[0]) is QueueForgotten):
            found = [AcceptedBriefly(job.id, seq, True) for seq, job in enumerate(jobs, first_seq)]
        else:
            found = []
            for job in jobs:
                seq = self._engine.state.seq_of(job.id)
                assert seq is not None, "a job that was taken in is known"
                found.append(AcceptedBriefly(job.id, seq, seq >= first_seq))
        return self._strangers.told(jobs, found)

    # -- changes by operators --------------------------------------------------------------------

    def _change(self, command: AnyCommand, told: Callable[[State], Any], respond: Respond) -> None:
        """Submits a command and answers with what the state says right after it."""

        def answer(reply: Reply) -> Answer:
            if isinstance(reply, Rejection):
                return error_of(reply)
            return reply if isinstance(reply, BeaverError) else told(self._engine.state)

        self._engine.change(command, answer, respond)

    def _change_job(self, command: Cancel | Requeue | Discard, respond: Respond) -> None:
        self._change(command, lambda state: queries.changed_word(state, command.job), respond)

    def cancel(self, asked: OneJob, asker: Asker) -> None:
        self._change_job(Cancel(asked.job, asker.by), asker)

    def requeue(self, asked: Again, asker: Asker) -> None:
        payload = asked.payload
        if payload is not None:
            payload = jsontext.check(payload, self.payload_bytes_max, "payload")
        self._change_job(Requeue(asked.job, payload, asker.by), asker)

    def discard(self, asked: OneJob, asker: Asker) -> None:
        self._change_job(Discard(asked.job, asker.by), asker)

    def set_queue(self, asked: QueueSettings, asker: Asker) -> None:
        command, queue = SetQueue(**msgspec.structs.asdict(asked), by=asker.by), asked.queue
        check_name(queue, "queue")

        def told(state: State) -> bytes:
            index = state.queues.get(queue)
            now_ms = self._engine.now_ms()
            return _json(queries.queue_view(index, now_ms) if index is not None else QueueView())

        self._change(command, told, asker)

    def bulk(self, asked: Many, asker: Asker) -> Watch:
        """Answers once the set of jobs is on disk, or counted."""
        choosing = self._choosing()
        watch = Watch(asker, holds=True)

        async def answer() -> bytes:
            return _json(
                await choosing.begin(asked.action, asked.where, asker.by, dry_run=asked.dry_run)
            )

        self._later(answer, watch)
        return watch

    def bulk_status(self, asked: OneBulk, asker: Asker) -> None:
        choosing = self._choosing()
        self._read(lambda _: choosing.find(asked.bulk), asker)

    def _choosing(self) -> Choosing:
        if self.choosing is None:
            raise InvalidInput("this server takes no actions on many jobs")
        return self.choosing

    def reload(self, asked: Nothing, asker: Asker) -> Watch:
        """Answers once the new workers serve, or with why they do not."""
        reload = self._reload
        if reload is None:
            raise InvalidInput("this server does not reload")

        async def answer() -> bytes:
            return _json(await reload())

        watch = Watch(asker)
        self._later(answer, watch)
        return watch

    def leave(self, asked: Nothing, respond: Respond) -> None:
        """Answers, and ends the server as a first signal does: another one waits for the store."""
        if self._leave is None:
            raise InvalidInput("this server does not leave")
        respond([])
        self._leave()

    def hello(self, store: str) -> list[Any]:
        """Returns what the server says of itself behind the protocol version."""
        return [store, self._engine.state.epoch, os.getpid(), self.KIND, self.payload_bytes_max]
