"""Beaver as its users have it: tasks of an application, enqueued through the documented API.

The other rows of Beaver (`served`) ask a client for what is below the API: a connection for
each client, requests made by hand, batches that do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from beaver import Beaver
from beaver.bench import served, subject
from beaver.bench.records import payload
from beaver.bench.rows import API
from beaver.bench.served import More, Served
from beaver.bench.subject import LoopBudget, Sent, Sizes


def application(data: str, queue: str) -> tuple[Beaver, Any]:
    """Returns an application on a store, and its task with the options of its jobs."""
    app = Beaver(data)

    @app.job(name="bench.record")
    def record(n: int, note: str) -> None: ...

    return app, record.options(queue=queue)


class _Blocking:
    """`task.enqueue`, and `app.enqueue_many` for batches."""

    def __init__(self, app: Beaver, record: Any) -> None:
        self._app, self._record = app, record

    def send(self, numbers: Sequence[int]) -> None:
        if len(numbers) == 1:
            self._record.enqueue(**payload(numbers[0]))
        else:
            self._app.enqueue_many([self._record.request(**payload(n)) for n in numbers])

    def close(self) -> None:
        """The application is shared: it closes with the process."""


class _Awaited:
    """`task.aenqueue`."""

    def __init__(self, record: Any) -> None:
        self._record = record

    async def send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            await self._record.aenqueue(**payload(number))

    async def close(self) -> None:
        """See `_Blocking.close`."""


def send_alone(data: str, queue: str, batch: int, budget: LoopBudget) -> Sent:
    """Lets one client send through the API until the budget is spent."""
    app, record = application(data, queue)
    numbers = subject.draw_numbers(budget.jobs)
    try:
        app.status()  # The connection is there.
        return subject.send_one_by_one(_Blocking(app, record), numbers, batch, budget.seconds)
    finally:
        app.close()


class Documented:
    """The same server as that of `served`, by another way."""

    name = API
    batches = True

    def __init__(self, served: Served) -> None:
        self._served, self.records = served, served.records

    def send_loop(self, queue: str, clients: int, batch: int, budget: LoopBudget) -> Sent:
        """See `subject.Subject`.  Several clients are tasks that share an application."""
        self._served.pause(queue)
        if clients == 1:
            return send_alone(self._served.data, queue, batch, budget)
        _, record = application(self._served.data, queue)

        async def open_one() -> _Awaited:
            return _Awaited(record)

        return subject.run_on_loop(subject.send_with_tasks(open_one, clients, batch, budget))

    def send_threads(self, queue: str, clients: int, budget: LoopBudget) -> Sent:
        """Lets threads that share an application send."""
        self._served.pause(queue)
        app, record = application(self._served.data, queue)
        connect: Callable[[], _Blocking] = lambda: _Blocking(app, record)  # noqa: E731
        try:
            return subject.send_with_threads(connect, clients, 1, budget)
        finally:
            app.close()

    def send_processes(self, queue: str, clients: int, budget: LoopBudget) -> Sent:
        """See `subject.Subject`."""
        return self._served.send_processes(queue, clients, budget)

    def send_paced(self, queue: str, budget: LoopBudget, rate: int) -> Sent:
        """See `subject.Subject`."""
        app, record = application(self._served.data, queue)
        try:
            return subject.send_paced(_Blocking(app, record), budget, rate)
        finally:
            app.close()

    def workers(self, queue: str) -> AbstractContextManager[None]:
        """See `subject.Subject`."""
        return self._served.workers(queue)

    def finished(self, queue: str, count: int, seconds: float) -> bool:
        """See `subject.Subject`."""
        return self._served.finished(queue, count, seconds)


def _threads(beaver: Served, one: Served, queue: str, sizes: Sizes) -> dict[str, float]:
    return {"threads_64": Documented(beaver).send_threads(queue, 64, sizes.many).rate}


MORE: Final[dict[str, More]] = {**served.MORE, "threads": More(("threads_64",), _threads)}
"""Measurements of Beaver alone, by the prefix of the queue's name."""
