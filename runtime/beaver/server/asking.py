"""Questions that clients ask of a running server: of its state, its results and its past.

Each has a method of its name, as in `service`, which adds what changes something.  An answer
leaves when all that it rests on is durable; one that takes a while is found in a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from beaver.engine.engine import Engine
from beaver.errors import BeaverError, WaitTimeout
from beaver.inspect import finding, queries
from beaver.request.operations import (
    Listing,
    Nothing,
    OneJob,
    Wait,
)
from beaver.server.answers import Answer, Asker, PastTeller, Watch, size_of
from beaver.server.results import Results
from beaver.structs.questions import Ending, Known, Search, Told
from beaver.structs.views import (
    ExplainView,
    ResultView,
    StatusView,
)
from beaver_model import State

T = TypeVar("T")

_json: Final = msgspec.json.Encoder().encode
_LOOKS: Final = 3
"""Attempts to read a consistent view of a job that changes while its events are read."""


class Questions:
    """Answers questions.  Every method belongs to the loop's thread."""

    def __init__(
        self,
        engine: Engine,
        results: Results,
        past: PastTeller,
        status: Callable[[State], StatusView],
    ) -> None:
        self._engine, self._results, self._past = engine, results, past
        self._status = status
        self._tasks: set[asyncio.Task[None]] = set()
        self._searching = asyncio.Lock()

    async def close(self) -> None:
        """Ends the questions that still wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._past.close()

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
            size = size_of(answer)
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
        if asked.word in finding.FINISHED:
            finding.check_listing(
                asked.word, asked.limit, asked.since_ms, asked.until_ms, asked.after_seq
            )
            self._later(partial(self._find_finished, asked, watch), watch)
            return watch
        finding.check_listing(asked.word, asked.limit, asked.since_ms, asked.until_ms)
        search: finding.Search | None = None

        def begin(state: State) -> Answer | None:
            nonlocal search
            search = finding.find_jobs(
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

    async def _go_on(self, search: finding.Search, watch: Watch) -> bytes:
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
        limit = asked.limit or finding.LIST_LIMIT_MAX
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
            view.disk_full = self._engine.admission.disk_full and view.waiting in (
                "slot",
                "running",
            )
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

    async def ending(self, token: int, until_seq: int) -> Ending | None:
        """Returns what the log tells of an attempt up to a durable seq.

        Raises:
            BeaverError: The log is damaged, or the helper died.
        """
        return await self._past.ending(token, until_seq)

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


def _moment(state: State, job: str) -> tuple[object, ...] | None:
    """Returns where a job is in its life: another value means that it has gone on."""
    row = state.jobs.get(job)
    return None if row is None else (row.state, row.attempt)
