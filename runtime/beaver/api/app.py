"""The application: `app = Beaver("data/")`, `@app.job`, and what is enqueued by name.

An application is a store's address with a registry of tasks.  Making one touches no file and
opens no connection; importing it is cheap enough for a web process.  Without a server its
calls append alone or have a keeper do it (`embedded`); only `run_worker` holds the store.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack

from beaver.api.handle import Handle, tell_unknown
from beaver.api.job import Declaration, Producer, merge
from beaver.client import calls
from beaver.client.calls import BulkFilters, Call
from beaver.client.choosing import connection_to
from beaver.client.connection import AsyncConnection
from beaver.client.reconnecting import HasConnection, awaited, blocking
from beaver.errors import InvalidInput
from beaver.request.job_options import Duration, JobOptions, given_of, takes_options
from beaver.structs.messages import Request
from beaver.structs.views import Accepted, BulkView, StatusView
from beaver.task.registry import Registry
from beaver.text.names import check_id
from beaver.text.near import unknown_name

if TYPE_CHECKING:
    from beaver.api.testing import Testing
    from beaver.config.settings import WorkerSettings

DATA_DEFAULT: Final = "data"


def default_store() -> str:
    """Returns where the environment says that the store is."""
    found = os.environ.get("BEAVER_URL") or os.environ.get("BEAVER_DATA")
    return found or DATA_DEFAULT


class Beaver(HasConnection):
    """A queue: where its store is, and the tasks of this application.

    Args:
        store: Path of the data directory; or the URL of a server, `http://host:9090`, `https://…`,
            or `unix:` with the path of its socket.  By default `$BEAVER_URL`, `$BEAVER_DATA`, or
            `data`.
        token: For a server by `http`: the token; by default `$BEAVER_TOKEN`, or that of this
            machine's own server.
        ca_file: For `https`: certificates to trust, as PEM; by default `$BEAVER_CA_FILE`, or the
            machine's.
        timeout: For a server by `http`: time that a call may take in all, by default 30 s, of
            which 10 s for a server that is not there; a wait for a result has its own.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        *,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: Duration | None = None,
    ) -> None:
        path = default_store() if store is None else os.fspath(store)
        if not path or "\0" in path:
            raise InvalidInput(f"{path!r} is no data directory")
        network = {"token": token, "ca_file": ca_file, "timeout": timeout}
        self.connection = connection_to(path, network)
        self.registry = Registry(self.connection.store)
        """The tasks by name: what workers look for."""
        self.job: Final = Declaration(self.connection, self.registry, {})
        """Decorator that declares a job, with or without options."""
        self.client: Final = self.connection
        """Every call on the store (`status`, `list_jobs`, `set_queue`, ...), blocking."""
        self.aclient: Final = AsyncConnection(self.connection)
        """The same, awaited."""

    def __repr__(self) -> str:
        return f"Beaver({self.store!r})"

    @property
    def store(self) -> str:
        """Path of the data directory, or the URL."""
        return self.connection.store

    # -- jobs by name -----------------------------------------------------------------------

    @takes_options
    def request(
        self,
        task: str,
        payload: Any = None,
        **options: Unpack[JobOptions],
    ) -> Request:
        """Returns a job for a task by its name; nothing is sent.

        The task need not be known here; where it is, the payload must fit its parameters.

        Args:
            task: Name of the task.
            payload: Any JSON value: an object becomes keyword arguments.
            **options: Options of the job: see `JobOptions`.

        Raises:
            InvalidInput: The payload is no JSON or does not fit the task, or a value is out of
                its bounds.
            TypeError: There is no such option.
        """
        from beaver.request.requests import make_request

        given = given_of(options, "Beaver.enqueue()")
        if isinstance(task, Producer):
            raise InvalidInput(
                f"app.enqueue: the name of a task is expected, found {task!r}; "
                f"it is {task.name}.enqueue(...) with the job itself"
            )
        declared = self.registry.get(task)
        if declared is not None:
            declared.bind(payload)  # Wrong keys are refused here, instead of by a dead job.
        made = make_request(task, payload, **given)
        if declared is not None:
            made.options = merge(made.options, declared.options)
        return made

    @takes_options
    def _enqueue(
        self,
        /,
        task: str,
        payload: Any = None,
        **options: Unpack[JobOptions],
    ) -> Call[Handle[Any]]:
        """Enqueues a job for a task by its name; it is durable on return.

        Args:
            task: Name of the task.
            payload: Any JSON value: an object becomes keyword arguments.
            **options: Options of the job: see `JobOptions`.

        Raises:
            InvalidInput: As for `request`.
            Conflict: A job with the given id exists, with different content.
            StoreUnavailable: The store cannot be used now.
        """
        return calls.enqueue([self.request(task, payload, **options)], self._handle)

    def _enqueue_many(self, requests: Iterable[Request]) -> Call[list[Handle[Any]]]:
        """Enqueues jobs with one commit, all or none; durable on return.

        Args:
            requests: At most 10,000, from `job.request(...)` or `app.request(...)`.

        Raises:
            Conflict: One exists with different content; nothing was enqueued.
        """
        wanted = list(requests)
        for item in wanted:
            if not isinstance(item, Request):
                raise InvalidInput(
                    f"enqueue_many: a request is expected, found {type(item).__name__}; "
                    "make it with job.request(...) or app.request(...)"
                )
        return calls.enqueue(wanted, self._handles)

    def _handle(self, made: list[Accepted]) -> Handle[Any]:
        (handle,) = self._handles(made)
        return handle

    def _handles(self, made: list[Accepted]) -> list[Handle[Any]]:
        connection = self.connection
        for one in made:
            if one.unknown_task:
                tell_unknown(one)
        return [Handle(connection, one.id, seq=one.seq, created=one.created) for one in made]

    def _status(self) -> Call[StatusView]:
        """Returns the whole queue at a glance."""
        return calls.status()

    def _bulk(
        self,
        action: Literal["cancel", "retry", "discard"],
        **how: Unpack[BulkFilters],
    ) -> Call[BulkView]:
        """Cancels, retries or discards all jobs that fit every filter; at least one is needed.

        Which jobs are meant is settled, and on disk, on return; a server then changes them in the
        background, also after a restart: `bulk_status` tells how far it is.

        Args:
            action: What is to be done; jobs whose state forbids it are not meant.
            **how: Filters, and `dry_run`: see `BulkFilters`.

        Raises:
            InvalidInput: No such action, no filter, or a wrong one; or too many jobs fit.
            StoreUnavailable: There are too many such actions now.
            TypeError: There is no such filter.
        """
        return calls.bulk(action, **how)

    def _bulk_status(self, bulk: str) -> Call[BulkView]:
        """Returns how far an action on many jobs is.

        Args:
            bulk: Its id.

        Raises:
            NotFound: There is none; the last hundred that are done are kept.
            NoServer: No server runs.
        """
        return calls.bulk_status(bulk)

    enqueue = blocking(_enqueue)
    aenqueue = awaited(_enqueue)
    enqueue_many = blocking(_enqueue_many)
    aenqueue_many = awaited(_enqueue_many)
    status = blocking(_status)
    astatus = awaited(_status)
    bulk = blocking(_bulk)
    abulk = awaited(_bulk)
    bulk_status = blocking(_bulk_status)
    abulk_status = awaited(_bulk_status)

    def handle(self, job_id: str) -> Handle[Any]:
        """Returns a handle for a job by its id; whether it exists shows when it is used.

        Args:
            job_id: Its id.

        Raises:
            InvalidInput: It is no id.
        """
        return Handle(self.connection, check_id(job_id))

    def close(self) -> None:
        """Ends the connections of the blocking calls; a later call opens new ones."""
        self.connection.close()

    async def aclose(self) -> None:
        """Ends the connections of this event loop, and those of the blocking calls."""
        await self.connection.aclose()

    # -- running jobs --------------------------------------------------------------------------

    def run_worker(self, **settings: Unpack[WorkerSettings]) -> int:
        """Serves the store in this process until it is told to stop, as `beaver run` does.

        Workers are processes of their own and import this application by its name, so it
        must be a global of a module; in a script, call this under
        `if __name__ == "__main__":`.

        Args:
            **settings: As the keys of `beaver.yaml`: `workers`, `executor`, `timeout`, ...

        Returns:
            The exit code: 0 after a clean end.

        Raises:
            InvalidInput: The application cannot be imported by name, or a setting is wrong.
            StoreUnavailable: Another process holds the store.
        """
        from beaver.client.blocking import socket_of_url
        from beaver.config.layers import load_config
        from beaver.config.settings import WorkerSettings
        from beaver.server.serve import run

        if "BEAVER_GENERATION" in os.environ:
            raise InvalidInput(
                "run_worker() was called while a worker imported the application; put the call "
                'under `if __name__ == "__main__":`'
            )
        if "://" in self.store or socket_of_url(self.store) is not None:
            raise InvalidInput(f"run_worker() needs a data directory, and {self.store} is a URL")
        known = tuple(WorkerSettings.__annotations__)
        for name in settings:
            if name not in known:
                hint = unknown_name(name, known) or f"; known are {', '.join(known)}"
                raise InvalidInput(f"run_worker(): no setting {name!r}{hint}")
        flags = {"data": self.store, "app": self._import_name(), **settings}
        return run(load_config(flags), lambda: load_config(flags))

    def _import_name(self) -> str:
        """Returns `module:name` by which another process can import this application."""
        for module_name, module in list(sys.modules.items()):
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if value is self and not name.startswith("__"):
                    found = _module_name(module_name)
                    if found is not None:
                        return f"{found}:{name}"
        raise InvalidInput(
            "run_worker(): the application is no global of an importable module, so workers "
            "cannot import it"
        )

    # -- testing ---------------------------------------------------------------------------------

    def testing(self, *, raise_errors: bool = False) -> Testing:
        """Returns a context in which jobs go to memory and run when `drain` is called.

        Args:
            raise_errors: `drain` raises what a job raises, instead of trying it again.
        """
        from beaver.api.testing import Testing

        return Testing(self.connection, self.registry, raise_errors=raise_errors)


def _module_name(name: str) -> str | None:
    """Returns the name under which a worker imports a loaded module."""
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if file is None:
        return None
    path = Path(file).absolute()
    if not path.stem.isidentifier():
        return None
    # The directory of a script is on this process's path only.
    parts = [str(path.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(parts)
    return path.stem
