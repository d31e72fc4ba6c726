"""The operations on a store that no server holds: on its files, or in the memory of a test.

Each operation of the table that is about a store has a method here, which gets what was asked
and returns the answer.  What may not live here: how a change is made durable, or where the past
is found; whoever makes a `LocalStore` says that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol, TypeVar

import msgspec

from beaver.client.calls import Call
from beaver.engine.admission import refusal
from beaver.errors import BeaverError
from beaver.inspect import finding, queries
from beaver.inspect.matching import ACTIONS, check, matching
from beaver.request.operations import (
    Again,
    Jobs,
    Listing,
    Many,
    Nothing,
    OneJob,
    QueueSettings,
    Wait,
)
from beaver.request.resolving import Resolver
from beaver.structs.questions import Search, Told
from beaver.structs.views import (
    Accepted,
    BulkView,
    EventView,
    ExplainView,
    JobView,
    QueueView,
    ResultView,
    StatusView,
)
from beaver.text import jsontext
from beaver.text.names import check_name
from beaver_model import State
from beaver_model.commands import AnyCommand, Cancel, Discard, Enqueue, Requeue, SetQueue

T = TypeVar("T")


class Surroundings(Protocol):
    """What surrounds a local store: its history and settings."""

    @property
    def resolver(self) -> Resolver:
        """Fills in the options that requests leave open."""
        ...

    def tell(self, state: State, job: str) -> Told:
        """Returns the kept events of a job."""
        ...

    def find(self, state: State, search: Search) -> list[JobView]:
        """Returns finished jobs in the order in which they ended."""
        ...

    def first_since(self, state: State, time_ms: int) -> int:
        """Returns the seq of the first job that came in at a time or later; see `matching`."""
        ...

    def no_server(self, job: str) -> BeaverError:
        """Returns the error that answers a wait for a job that has not ended."""
        ...


class LocalStore:
    """A state, and what makes changes of it durable."""

    def __init__(
        self,
        state: State,
        commit: Callable[[AnyCommand], object],
        around: Surroundings,
        now_ms: Callable[[], int],
        status: Callable[[State], StatusView],
        commit_each: Callable[[Sequence[AnyCommand]], int],
        by: str = "",
    ) -> None:
        """Makes a store of its parts.

        Args:
            state: The state.
            commit: Decides and applies a command, durably; raises the error of a rejection.
            around: Where settings and the past are found.
            now_ms: The time.
            status: Tells the whole queue at a glance.
            commit_each: Commits those of many commands that are not rejected; returns how many.
            by: Who asks, for the log.
        """
        self.state, self._by = state, by
        self._commit, self._around, self._now_ms, self._status = commit, around, now_ms, status
        self._commit_each = commit_each

    def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        return call.finish(getattr(self, call.operation.method)(call.body))

    # -- changes ---------------------------------------------------------------------------

    def enqueue(self, asked: Jobs) -> list[Accepted]:
        state, now_ms, resolver = self.state, self._now_ms(), self._around.resolver
        jobs = [resolver.job(request, now_ms) for request in asked.jobs]
        full = refusal(state, jobs)
        if full is not None:
            raise full
        last_seq = state.last_seq
        self._commit(Enqueue(jobs))
        found = ((job.id, state.seq_of(job.id)) for job in jobs)
        return [Accepted(i, seq, seq > last_seq) for i, seq in found if seq is not None]

    def cancel(self, asked: OneJob) -> str:
        return self._change(Cancel(asked.job, self._by))

    def requeue(self, asked: Again) -> str:
        payload = asked.payload
        if payload is not None:
            bytes_max = self._around.resolver.payload_bytes_max
            payload = jsontext.check(payload, bytes_max, "payload")
        return self._change(Requeue(asked.job, payload, self._by))

    def discard(self, asked: OneJob) -> str:
        return self._change(Discard(asked.job, self._by))

    def _change(self, command: Cancel | Requeue | Discard) -> str:
        self._commit(command)
        return queries.changed_word(self.state, command.job)

    def set_queue(self, asked: QueueSettings) -> QueueView:
        check_name(asked.queue, "queue")
        self._commit(SetQueue(**msgspec.structs.asdict(asked), by=self._by))
        index = self.state.queues.get(asked.queue)
        return QueueView() if index is None else queries.queue_view(index, self._now_ms())

    def bulk(self, asked: Many) -> BulkView:
        """Changes all before it returns: there is nobody who could go on with it."""
        action, where, state, by = asked.action, asked.where, self.state, self._by
        check(action, where)
        first_seq, last_seq = 0, state.last_seq
        if where.since_ms is not None:
            first_seq = self._around.first_since(state, where.since_ms)
        if where.until_ms is not None:
            last_seq = self._around.first_since(state, where.until_ms) - 1
        found = list(chain(*matching(state, action, where, first_seq, last_seq)))
        view = BulkView(action, len(found), "counted", created_ms=self._now_ms(), by=by)
        if asked.dry_run:
            return view
        commands = [ACTIONS[action].command(member.job, by) for member in found]
        view.done = self._commit_each(commands)
        view.refused, view.state = view.matched - view.done, "done"
        return view

    # -- questions -------------------------------------------------------------------------

    def status(self, asked: Nothing) -> StatusView:
        return self._status(self.state)

    def list_jobs(self, asked: Listing) -> list[JobView]:
        word, limit, after_seq = asked.word, asked.limit, asked.after_seq
        since_ms, until_ms = asked.since_ms, asked.until_ms
        finding.check_listing(word, limit, since_ms, until_ms, after_seq)
        if word not in finding.FINISHED:
            found = finding.find_jobs(
                self.state, word, asked.queue, asked.task, after_seq, limit, asked.tag
            )
            return finding.at_once(found)
        limit = limit or finding.LIST_LIMIT_MAX
        search = Search(
            word, asked.queue, asked.task, asked.tag, since_ms, until_ms, after_seq, limit
        )
        return self._around.find(self.state, search)

    def show(self, asked: OneJob) -> JobView:
        if asked.job in self.state.jobs:
            return queries.show(self.state, asked.job)
        told = self._around.tell(self.state, asked.job)
        return queries.show_finished(self.state, asked.job, told.events, told.as_of_seq)

    def explain(self, asked: OneJob) -> ExplainView:
        told = self._around.tell(self.state, asked.job)
        return queries.explain(
            self.state,
            asked.job,
            told.events,
            told.first_seq,
            told.as_of_seq,
            self.state.last_seq,
        )

    def history(self, asked: OneJob) -> list[EventView]:
        return self.explain(asked).events

    def wait(self, asked: Wait) -> ResultView:
        kept = None
        if asked.job not in self.state.jobs:
            told = self._around.tell(self.state, asked.job)
            kept = queries.result_told(asked.job, told.events)
        found = queries.result(self.state, asked.job, kept)
        if found is None:
            raise self._around.no_server(asked.job)
        return found
