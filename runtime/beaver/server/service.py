"""What clients may ask of a running server: each operation of `operations`, over the engine.

Each has a method of its name; the local socket uses them now, HTTP will.  A method gets what
was asked, read and checked as the table says, and a `Respond`, which it calls once with the
answer, when all that the answer rests on is durable.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import msgspec

from beaver.engine.engine import Applied, Engine, Reply
from beaver.errors import BeaverError, InvalidInput, WaitTimeout
from beaver.inspect import queries
from beaver.limits import hint
from beaver.request.operations import (
    ENQUEUE,
    OPERATIONS,
    Again,
    Listing,
    Nothing,
    OneJob,
    QueueSettings,
    Wait,
)
from beaver.request.rejections import error_of
from beaver.request.requests import OVERHEAD_BYTES, request_bytes
from beaver.server.results import Results
from beaver.server.strangers import Strangers
from beaver.structs.messages import Request
from beaver.structs.questions import Known, Listed, Search, Told
from beaver.structs.views import (
    AcceptedBriefly,
    ExplainView,
    QueueView,
    ReloadView,
    ResultView,
    StatusView,
)
from beaver.text import jsontext
from beaver.text.foreign import counted
from beaver.text.names import check_name
from beaver_model import Rejection, State
from beaver_model.bounds import BATCH_BYTES_MAX, BATCH_JOBS_MAX
from beaver_model.commands import AnyCommand, Cancel, Discard, NewJob, Requeue, SetQueue
from beaver_model.events import QueueForgotten
from beaver_model.rows import Origin

Respond = Callable[["Answer"], None]
Answer = list[Any] | str | bytes | BeaverError
"""The body of an answer (views are JSON, as bytes), or the error that answers instead."""

OP_CHARS_MAX: Final = 64
"""The name of an operation that does not exist is repeated where it is no longer than this."""

T = TypeVar("T")

_json: Final = msgspec.json.Encoder().encode


class PastTeller(Protocol):
    """What the log tells of jobs, without waiting for its index."""

    async def tell(self, known: Known, until_seq: int) -> Told:
        """Returns the events of a job up to a durable seq."""
        ...

    async def find(self, search: Search, until_seq: int) -> Listed:
        """Takes a step of a search for finished jobs."""
        ...

    async def close(self) -> None: ...


class Asker:
    """Who asked: answers go there, and what an answer takes of memory until then is told.

    A thousand pipelined questions may have answers of a megabyte each, which all wait for one
    commit: whoever takes them has to know when it is enough.
    """

    __slots__ = ("_respond", "charge")

    def __init__(self, respond: Respond, charge: Callable[[int], None] | None = None) -> None:
        """Takes who is told what.

        Args:
            respond: Called once, with the answer.
            charge: Called with the bytes of an answer that is computed and waits for a commit,
                and with as many below zero once it waits no longer.
        """
        self._respond, self.charge = respond, charge or _free

    def __call__(self, answer: Answer) -> None:
        self._respond(answer)


def _free(size: int) -> None:
    """Charges nobody."""


def _size_of(answer: Any) -> int:
    """Returns about how many bytes an answer keeps alive."""
    if isinstance(answer, ResultView):
        return len(answer.result) if isinstance(answer.result, bytes | msgspec.Raw) else 0
    return len(answer) if isinstance(answer, bytes) else 0


class Watch:
    """A client's wait for an answer that does not come at once."""

    __slots__ = ("_respond", "charge", "forget", "holds", "over", "timer")

    def __init__(self, asker: Asker, *, holds: bool = False) -> None:
        self._respond, self.charge = asker, asker.charge
        self.holds = holds
        """The answer may be large: no other request of the client is taken before it."""
        self.over = False
        """It is answered, or nobody wants the answer any more."""
        self.forget: Callable[[], None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, answer: Answer) -> None:
        """Answers, once."""
        if not self.over:
            self.drop()
            self._respond(answer)

    def drop(self) -> None:
        """Ends the wait: nothing of it stays in memory, and nothing more is answered."""
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
        if self.forget is not None:
            self.forget()


class Service:
    """Answers requests.  Every method belongs to the loop's thread."""

    KIND = "server"
    """What it says of itself in its hello."""

    def __init__(
        self,
        engine: Engine,
        results: Results,
        past: PastTeller,
        *,
        to_job: Callable[[Request, int, int], NewJob],
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
            to_job: Resolves a request at a time, with its origin.
            status: Builds the status of a state, with what only the running server knows.
            payload_bytes_max: Bound on an edited payload.
            reload: Gives the server new workers.
            leave: Ends the server.
        """
        self._engine, self._results, self._past = engine, results, past
        self._to_job, self._status, self._reload = to_job, status, reload
        self._leave = leave
        self.payload_bytes_max = payload_bytes_max
        self._tasks: set[asyncio.Task[None]] = set()
        self._searching = asyncio.Lock()
        self._strangers = Strangers(engine.state)

    def handle(
        self, op: str, body: Any, respond: Respond, origin: Origin = Origin.LOCAL
    ) -> Watch | None:
        """Carries out one request.  Whatever is wrong with it is its answer.

        Returns:
            The wait for an answer, to be dropped where nobody wants it any more.
        """
        if op == "enqueue":
            self.enqueue(body, respond, origin)
            return None
        try:
            operation = OPERATIONS.get(op)
            if operation is None:
                known = ", ".join(sorted(OPERATIONS))
                said = repr(op) if len(op) <= OP_CHARS_MAX else f"of {len(op):,} characters"
                raise InvalidInput(f"no operation {said}; there are {known}")
            method: Callable[[Any, Asker], Watch | None] = getattr(self, operation.method)
            asker = respond if type(respond) is Asker else Asker(respond)
            return method(operation.arguments(body), asker)
        except BeaverError as error:
            respond(error)
        return None

    def enqueue(self, body: Any, respond: Respond, origin: Origin = Origin.LOCAL) -> None:
        """Carries out the operation that comes most, as `handle` does; `body` is as it came."""
        try:
            self._enqueue(body, respond, origin)
        except BeaverError as error:
            respond(error)

    def once_told(self, callback: Callable[[], None]) -> None:
        """See `Engine.once_told`."""
        self._engine.once_told(callback)

    async def close(self) -> None:
        """Ends the questions that still wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._past.close()

    # -- jobs come in ----------------------------------------------------------------------

    def _enqueue(self, body: Any, respond: Respond, origin: Origin) -> None:
        count = _batch_jobs(body)
        if count > BATCH_JOBS_MAX:
            # Before they are made: of a few bytes each, millions fit into one frame.
            raise InvalidInput(
                f"{counted(count, 'job')} in one commit; at most {BATCH_JOBS_MAX} fit; "
                f"{hint('batch_jobs')}"
            )
        requests = ENQUEUE.arguments(body).jobs
        if len(requests) > 1 and not _surely_fits(body, len(requests)):
            size = sum(map(request_bytes, requests))
            if size > BATCH_BYTES_MAX:
                raise InvalidInput(
                    f"jobs of {size} bytes in one commit; at most {BATCH_BYTES_MAX} fit; "
                    f"{hint('batch_bytes')}"
                )
        engine, to_job = self._engine, self._to_job
        # A lone job mostly has no delay, which is all that wants to know the time.
        now_ms = engine.now_ms() if len(requests) != 1 or requests[0].delay_ms else 0
        jobs = [to_job(request, now_ms, origin) for request in requests]
        engine.enqueue(jobs, self._enqueued, respond)

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

    # -- questions ---------------------------------------------------------------------------

    def _ask(
        self,
        charge: Callable[[int], None],
        question: Callable[[State], T],
        done: Callable[[T], None],
    ) -> None:
        """Asks the state, as `Engine.read`; what the answer takes meanwhile is charged."""
        size = 0

        def ask(state: State) -> T:
            nonlocal size
            answer = question(state)
            size = _size_of(answer)
            charge(size)
            return answer

        def told(answer: T) -> None:
            charge(-size)
            done(answer)

        self._engine.read(ask, told)

    def _read(self, question: Callable[[State], Any], asker: Asker) -> None:
        """Answers with the JSON of a view, or with the error that the question raises."""

        def guarded(state: State) -> Answer:
            try:
                return _json(question(state))
            except BeaverError as error:
                return error

        self._ask(asker.charge, guarded, asker)

    def status(self, asked: Nothing, asker: Asker) -> None:
        self._read(self._status, asker)

    def list_jobs(self, asked: Listing, asker: Asker) -> Watch:
        """Answers at once where a few thousand jobs have to be looked at, else in a while."""
        watch = Watch(asker, holds=True)
        if asked.word in queries.FINISHED:
            queries.check_listing(
                asked.word, asked.limit, asked.since_ms, asked.until_ms, asked.after_seq
            )
            self._later(partial(self._find_finished, asked, watch), watch)
            return watch
        queries.check_listing(asked.word, asked.limit, asked.since_ms, asked.until_ms)
        search: queries.Search | None = None

        def begin(state: State) -> Answer | None:
            nonlocal search
            search = queries.find_jobs(
                state,
                asked.word,
                asked.queue,
                asked.task,
                asked.after_seq,
                asked.limit,
                asked.tag,
            )
            try:
                next(search)
            except StopIteration as end:
                return _json(end.value)
            except BeaverError as error:
                return error
            return None

        def found(answer: Answer | None) -> None:
            if answer is not None:
                watch.answer(answer)
            elif search is not None and not watch.over:
                self._later(partial(self._go_on, search, watch), watch)

        self._ask(watch.charge, begin, found)
        return watch

    async def _go_on(self, search: queries.Search, watch: Watch) -> bytes:
        """Ends a search while others have their turns; one at a time has a table of all jobs."""
        async with self._searching:
            while not watch.over:
                try:
                    next(search)
                except StopIteration as end:
                    return _json(end.value)
                await asyncio.sleep(0)
        return b""  # Nobody wants it any more.

    async def _find_finished(self, asked: Listing, watch: Watch) -> bytes:
        """Searches the log for finished jobs, a step at a time, until some are found."""
        until_seq, after_seq = self._engine.durable_seq, asked.after_seq
        limit = asked.limit or queries.LIST_LIMIT_MAX
        while not watch.over:
            search = Search(
                asked.word,
                asked.queue,
                asked.task,
                asked.tag,
                asked.since_ms,
                asked.until_ms,
                after_seq,
                limit,
            )
            listed = await self._past.find(search, until_seq)
            after_seq = listed.next_seq
            if listed.count or not after_seq:
                return bytes(listed.views)
        return b""  # Nobody wants it any more.

    def show(self, asked: OneJob, asker: Asker) -> Watch | None:
        """Answers at once where the job has a row, else with what the log tells of it."""
        job = asked.job
        if job in self._engine.state.jobs:
            self._read(lambda state: queries.show(state, job), asker)
            return None
        watch = Watch(asker)

        async def answer() -> bytes:
            told = await self._tell(job)
            state = self._engine.state
            return _json(queries.show_finished(state, job, told.events, told.as_of_seq))

        self._later(answer, watch)
        return watch

    def explain(self, asked: OneJob, asker: Asker) -> Watch:
        return self._tell_past(asked.job, asker, lambda view: view)

    def history(self, asked: OneJob, asker: Asker) -> Watch:
        return self._tell_past(asked.job, asker, lambda view: view.events)

    def _tell_past(self, job: str, asker: Asker, part: Callable[[ExplainView], Any]) -> Watch:
        """Answers with what the log and the state say of a job; one at a time a client."""
        watch = Watch(asker, holds=True)

        async def answer() -> bytes:
            for _ in range(_LOOKS):
                before = _moment(self._engine.state, job)
                await self._synced()  # Now what the state says of the job is in the log.
                durable_seq = self._engine.durable_seq
                told = await self._tell(job)
                if _moment(self._engine.state, job) == before:
                    break  # Else it went on meanwhile, and state and events would not agree.
            view = queries.explain(
                self._engine.state, job, told.events, told.first_seq, told.as_of_seq, durable_seq
            )
            view.disk_full = self._engine.disk_full and view.waiting in ("slot", "running")
            return _json(part(view))

        self._later(answer, watch)
        return watch

    async def _synced(self) -> None:
        """Waits until all that has happened so far is durable."""
        synced = asyncio.get_running_loop().create_future()
        self._engine.read(
            lambda _: None, lambda _: None if synced.done() else synced.set_result(None)
        )
        await synced

    async def _tell(self, job: str) -> Told:
        """Returns the events of a job that are durable."""
        state = self._engine.state
        seq = state.seq_of(job) or 0
        return await self._past.tell(
            Known(job, seq, job in state.tombstones), self._engine.durable_seq
        )

    def _later(self, answer: Callable[[], Any], watch: Watch) -> None:
        """Answers in a task, since it may take a while, and then from durable state."""

        async def run() -> None:
            try:
                body: Answer = await answer()
            except BeaverError as error:
                body = error
            except Exception as error:  # noqa: BLE001 - the asker gets an answer, whatever it was
                body = BeaverError(f"no answer could be found: {type(error).__name__}: {error}")
            self._ask(watch.charge, lambda _: body, watch.answer)

        # Everything durable now must be in the answer, so nothing open may be overtaken.
        self._engine.once_durable(lambda: None if watch.over else self._start(run))

    def _start(self, run: Callable[[], Any]) -> None:
        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wait(self, asked: Wait, asker: Asker) -> Watch:
        """Answers once a job has ended."""
        watch = Watch(asker)
        self._look(watch, asked.job, asked.timeout_ms)
        return watch

    def _look(self, watch: Watch, job: str, timeout_ms: int) -> None:
        """Answers from what is there, or once the job has ended."""

        def look(state: State) -> ResultView | BeaverError | None:
            try:
                return queries.result(state, job, self._results.get(job))
            except BeaverError as error:
                return error

        def found(view: ResultView | BeaverError | None) -> None:
            if watch.over:
                return
            if isinstance(view, BeaverError):
                watch.answer(view)
            elif view is None:
                self._wait_for_end(watch, job, timeout_ms)
            elif view.state == "expired":
                self._later(lambda: self._old_result(job, view), watch)
            else:
                watch.answer(_json(view))

        self._ask(watch.charge, look, found)

    async def _old_result(self, job: str, expired: ResultView) -> bytes:
        told = await self._tell(job)
        return _json(queries.result_told(job, told.events) or expired)

    def _wait_for_end(self, watch: Watch, job: str, timeout_ms: int) -> None:
        row = self._engine.state.jobs.get(job)
        if row is None or queries.result(self._engine.state, job, None) is not None:
            # It ended between the question and its answer.
            self._look(watch, job, timeout_ms)
            return
        watch.forget = self._results.wait(job, lambda view: watch.answer(_json(view)))

        def too_late() -> None:
            waited_s = timeout_ms / 1000
            watch.answer(WaitTimeout(f"job {job} has not ended after {waited_s:g} s; it goes on"))

        if timeout_ms >= 0:
            watch.timer = asyncio.get_running_loop().call_later(timeout_ms / 1000, too_late)

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

    def cancel(self, asked: OneJob, respond: Respond) -> None:
        self._change_job(Cancel(asked.job), respond)

    def requeue(self, asked: Again, respond: Respond) -> None:
        payload = asked.payload
        if payload is not None:
            payload = jsontext.check(payload, self.payload_bytes_max, "payload")
        self._change_job(Requeue(asked.job, payload), respond)

    def discard(self, asked: OneJob, respond: Respond) -> None:
        self._change_job(Discard(asked.job), respond)

    def set_queue(self, asked: QueueSettings, respond: Respond) -> None:
        command, queue = SetQueue(*msgspec.structs.astuple(asked)), asked.queue
        check_name(queue, "queue")

        def told(state: State) -> bytes:
            index = state.queues.get(queue)
            now_ms = self._engine.now_ms()
            return _json(queries.queue_view(index, now_ms) if index is not None else QueueView())

        self._change(command, told, respond)

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
        """Answers, and ends the server gently: another one waits for the store."""
        if self._leave is None:
            raise InvalidInput("this server does not leave")
        respond([])
        self._leave()

    def hello(self, store: str) -> list[Any]:
        """Returns what the server says of itself behind the protocol version."""
        return [store, self._engine.state.epoch, os.getpid(), self.KIND, self.payload_bytes_max]


def _batch_jobs(body: Any) -> int:
    """Returns how many jobs an `enqueue` announces, where that may be too many."""
    if type(body) is not msgspec.Raw:
        return len(body[0]) if body and isinstance(body, list) and isinstance(body[0], list) else 0
    if len(body) <= BATCH_JOBS_MAX:
        return 0  # Each takes a byte at least.
    head = bytes(memoryview(body)[:6])
    width = {b"\x91\xdc": 2, b"\x91\xdd": 4}.get(head[:2], 0)
    return int.from_bytes(head[2 : 2 + width], "big")


def _surely_fits(body: Any, count: int) -> bool:
    """True where what came is too short to hold jobs that are too large together."""
    return type(body) is msgspec.Raw and len(body) + OVERHEAD_BYTES * count <= BATCH_BYTES_MAX


_LOOKS: Final = 3
"""So often a job is looked at that goes on each time while its events are looked up."""


def _moment(state: State, job: str) -> tuple[object, ...] | None:
    """Returns where a job is in its life: another value means that it has gone on."""
    row = state.jobs.get(job)
    return None if row is None else (row.state, row.attempt)
