"""What clients may ask of a running server: each operation of `protocol`, over the engine.

One table, `OPERATIONS`, maps a name to a method; the local socket uses it now, HTTP will.
A method gets the request's body and a `Respond`, which it calls once with the answer, when
all that the answer rests on is durable.  Bodies come from outside: everything is checked.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from beaver import jsontext, queries
from beaver.engine import Applied, Engine, Reply
from beaver.errors import BeaverError, InvalidInput, WaitTimeout
from beaver.messages import Request
from beaver.refusals import error_of
from beaver.requests import check_name, request_bytes
from beaver.results import Results
from beaver.views import Enqueued, EventView, QueueView, ResultView, StatusView
from beaver_model import Rejection, State
from beaver_model.bounds import BATCH_BYTES_MAX, BATCH_JOBS_MAX
from beaver_model.commands import AnyCommand, Cancel, Discard, Enqueue, Job, Requeue, SetQueue
from beaver_model.rows import Origin

Respond = Callable[["Answer"], None]
Answer = list[Any] | str | bytes | BeaverError
"""The body of an answer (views are JSON, as bytes), or the error that answers instead."""

_json: Final = msgspec.json.Encoder().encode


class HistoryReader(Protocol):
    """The history, brought up to a seq before it is read."""

    async def events_of(self, job: str, as_of_seq: int) -> tuple[list[EventView], int]:
        """Returns the job's events, and the seq from which history is kept."""
        ...

    async def result_of(self, job: str, as_of_seq: int) -> ResultView | None: ...


class Service:
    """Answers requests.  Every method belongs to the loop's thread."""

    def __init__(
        self,
        engine: Engine,
        results: Results,
        history: HistoryReader,
        *,
        to_job: Callable[[Request, int, int], Job],
        status: Callable[[State], StatusView],
        payload_bytes_max: int,
    ) -> None:
        """Args beyond the obvious.

        Args:
            engine: Owner of the state.
            results: How jobs ended, from memory.
            history: How jobs went, from the projection.
            to_job: Resolves a request at a time, with its origin.
            status: The figures of a state with those of the running server.
            payload_bytes_max: Bound on an edited payload.
        """
        self._engine, self._results, self._history = engine, results, history
        self._to_job, self._status = to_job, status
        self._payload_bytes_max = payload_bytes_max
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, op: str, body: Any, respond: Respond, origin: Origin = Origin.LOCAL) -> None:
        """Carries out one request.  Whatever is wrong with it is its answer."""
        try:
            if op == "enqueue":
                self._enqueue(body, respond, origin)
                return
            method = OPERATIONS.get(op)
            if method is None:
                known = ", ".join(sorted(OPERATIONS))
                raise InvalidInput(f"no operation {op!r}; there are enqueue, {known}")
            method(self, body, respond)
        except BeaverError as error:
            respond(error)

    async def close(self) -> None:
        """Ends the questions that still wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- jobs come in ----------------------------------------------------------------------

    def _enqueue(self, body: Any, respond: Respond, origin: Origin) -> None:
        (requests,) = _arguments(body, _EnqueueBody, _decode_enqueue)
        if len(requests) > BATCH_JOBS_MAX:
            raise InvalidInput(f"{len(requests)} jobs in one commit; at most {BATCH_JOBS_MAX} fit")
        size = sum(map(request_bytes, requests))
        if size > BATCH_BYTES_MAX and len(requests) > 1:
            raise InvalidInput(
                f"jobs of {size} bytes in one commit; at most {BATCH_BYTES_MAX} fit: "
                "send them in chunks"
            )
        now_ms = self._engine.now_ms()
        jobs = [self._to_job(request, now_ms, origin) for request in requests]
        engine = self._engine
        last_seq = engine.state.last_seq

        def accepted(state: State) -> list[Enqueued]:
            found: list[Enqueued] = []
            for job in jobs:
                seq = state.seq_of(job.id)
                if seq is not None:
                    found.append(Enqueued(job.id, seq, seq > last_seq))
            return found

        # 1. The command is applied in memory.  2. The seqs are read off at once, since later
        # commands may evict a tombstone.  3. Both are told when the commit is durable.
        outcome: list[Reply] = []
        answer: list[list[Enqueued]] = []

        def done(reply: Reply) -> None:
            outcome.append(reply)
            if answer:
                respond(_enqueued_answer(reply, answer[0]))

        engine.submit(Enqueue(jobs), done)
        answer.append(accepted(engine.state))
        if outcome:
            respond(_enqueued_answer(outcome[0], answer[0]))

    # -- questions ---------------------------------------------------------------------------

    def _read(self, question: Callable[[State], Any], respond: Respond) -> None:
        """Answers with the JSON of a view, or with the error that the question raises."""

        def guarded(state: State) -> Answer:
            try:
                return _json(question(state))
            except BeaverError as error:
                return error

        self._engine.read(guarded, respond)

    def status(self, body: Any, respond: Respond) -> None:
        self._read(self._status, respond)

    def list_jobs(self, body: Any, respond: Respond) -> None:
        word, queue, task, after_seq, limit = _arguments(body, _ListBody)
        self._read(
            lambda state: queries.list_jobs(state, word, queue, task, after_seq, limit), respond
        )

    def show(self, body: Any, respond: Respond) -> None:
        (job,) = _arguments(body, _JobBody)
        self._read(lambda state: queries.show(state, job), respond)

    def explain(self, body: Any, respond: Respond) -> None:
        (job,) = _arguments(body, _JobBody)

        async def answer() -> bytes:
            events, kept_from = await self._history.events_of(job, self._engine.durable_seq)
            view = queries.explain(self._engine.state, job, events, kept_from)
            return _json(view)

        self._later(answer, respond)

    def history(self, body: Any, respond: Respond) -> None:
        (job,) = _arguments(body, _JobBody)

        async def answer() -> bytes:
            events, kept_from = await self._history.events_of(job, self._engine.durable_seq)
            return _json(queries.explain(self._engine.state, job, events, kept_from).events)

        self._later(answer, respond)

    def _later(self, answer: Callable[[], Any], respond: Respond) -> None:
        """Answers from the history, which may take a while, and then from durable state."""

        async def run() -> None:
            try:
                body: Answer = await answer()
            except BeaverError as error:
                body = error
            except Exception as error:  # noqa: BLE001 - the asker gets an answer, whatever it was
                body = BeaverError(f"the history cannot be read: {type(error).__name__}: {error}")
            self._engine.read(lambda _: body, respond)

        # Everything durable now must be in the answer, so nothing open may be overtaken.
        self._engine.read(lambda _: None, lambda _: self._start(run))

    def _start(self, run: Callable[[], Any]) -> None:
        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wait(self, body: Any, respond: Respond) -> None:
        job, timeout_ms = _arguments(body, _WaitBody)
        engine = self._engine

        def look(state: State) -> ResultView | BeaverError | None:
            try:
                return queries.result(state, job, self._results.get(job))
            except BeaverError as error:
                return error

        def found(view: ResultView | BeaverError | None) -> None:
            if isinstance(view, BeaverError):
                respond(view)
            elif view is None:
                self._wait_for_end(job, timeout_ms, respond)
            elif view.state == "expired":
                self._later(lambda: self._old_result(job, view), respond)
            else:
                respond(_json(view))

        engine.read(look, found)

    async def _old_result(self, job: str, expired: ResultView) -> bytes:
        view = await self._history.result_of(job, self._engine.durable_seq)
        return _json(view or expired)

    def _wait_for_end(self, job: str, timeout_ms: int, respond: Respond) -> None:
        row = self._engine.state.jobs.get(job)
        if row is None or queries.result(self._engine.state, job, None) is not None:
            # It ended between the question and its answer.
            self.wait([job, timeout_ms], respond)
            return
        timer: list[asyncio.TimerHandle] = []

        def ended(view: ResultView) -> None:
            for handle in timer:
                handle.cancel()
            respond(_json(view))

        forget = self._results.wait(job, ended)

        def too_late() -> None:
            forget()
            waited_s = timeout_ms / 1000
            respond(WaitTimeout(f"job {job} has not ended after {waited_s:g} s; it goes on"))

        if timeout_ms >= 0:
            timer.append(asyncio.get_running_loop().call_later(timeout_ms / 1000, too_late))

    # -- changes by operators --------------------------------------------------------------------

    def _change(self, command: AnyCommand, told: Callable[[State], Any], respond: Respond) -> None:
        """Submits a command and answers with what the state says right after it."""
        answers: list[Any] = []
        replies: list[Reply] = []

        def finish() -> None:
            reply = replies[0]
            if isinstance(reply, Rejection):
                respond(error_of(reply))
            elif isinstance(reply, BeaverError):
                respond(reply)
            else:
                respond(answers[0])

        def done(reply: Reply) -> None:
            replies.append(reply)
            if answers:
                finish()

        self._engine.submit(command, done)
        answers.append(told(self._engine.state))
        if replies:
            finish()

    def cancel(self, body: Any, respond: Respond) -> None:
        (job,) = _arguments(body, _JobBody)
        self._change(Cancel(job), lambda state: _word_of(state, job), respond)

    def requeue(self, body: Any, respond: Respond) -> None:
        job, payload = _arguments(body, _RequeueBody)
        if payload is not None:
            payload = jsontext.check(payload, self._payload_bytes_max, "payload")
        self._change(Requeue(job, payload), lambda state: _word_of(state, job), respond)

    def discard(self, body: Any, respond: Respond) -> None:
        (job,) = _arguments(body, _JobBody)
        self._change(Discard(job), lambda _: "discarded", respond)

    def set_queue(self, body: Any, respond: Respond) -> None:
        queue, paused, weight, bytes_max = _arguments(body, _QueueBody)
        check_name(queue, "queue")

        def told(state: State) -> bytes:
            index = state.queues.get(queue)
            now_ms = self._engine.now_ms()
            return _json(queries.queue_view(index, now_ms) if index is not None else QueueView())

        self._change(SetQueue(queue, paused, weight, bytes_max), told, respond)

    def hello(self, store: str) -> list[Any]:
        """Returns what the server says of itself behind the protocol version."""
        return [store, self._engine.state.epoch, os.getpid()]


def _word_of(state: State, job: str) -> str:
    row = state.jobs.get(job)
    if row is None:
        return ""
    return "cancel_requested" if row.cancel_requested else queries.state_word(row.state)


def _enqueued_answer(reply: Reply, accepted: list[Enqueued]) -> Answer:
    if isinstance(reply, Applied):
        return accepted
    return error_of(reply) if isinstance(reply, Rejection) else reply


_EnqueueBody = tuple[list[Request]]
_JobBody = tuple[str]
_ListBody = tuple[str, str, str, int, int]
_WaitBody = tuple[str, int]
_RequeueBody = tuple[str, bytes | None]
_QueueBody = tuple[str, bool | None, int | None, int | None]


_decode_enqueue: Final = msgspec.msgpack.Decoder(_EnqueueBody).decode


def _arguments(body: Any, shape: Any, decode: Callable[[Any], Any] | None = None) -> Any:
    """Returns a body as the shape that an operation expects.

    Args:
        body: As it came, still encoded or not.
        shape: What is expected.
        decode: A decoder of that shape, for operations that come often.
    """
    try:
        if type(body) is not msgspec.Raw:
            return msgspec.convert(body, shape)
        return decode(body) if decode else msgspec.msgpack.decode(body, type=shape)
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the arguments do not fit the operation: {error}") from error


OPERATIONS: Final[dict[str, Callable[[Service, Any, Respond], None]]] = {
    "status": Service.status,
    "list": Service.list_jobs,
    "show": Service.show,
    "explain": Service.explain,
    "history": Service.history,
    "wait": Service.wait,
    "cancel": Service.cancel,
    "requeue": Service.requeue,
    "discard": Service.discard,
    "set_queue": Service.set_queue,
}
