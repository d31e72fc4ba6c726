"""Decorated functions: what `@app.job` makes of a function, typed.

`Job` and its three kin differ in what a plain call looks like to a type checker: with or
without the context, coroutine or not.  What they enqueue is the same for all.

What may not live here: running jobs (`workers`), connections (`client`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    TypeVar,
    Unpack,
    overload,
)

import msgspec

from beaver.api.handle import Handle, tell_unknown
from beaver.client import calls
from beaver.client.calls import Call
from beaver.client.connection import Connection
from beaver.client.reconnecting import HasConnection, awaited, blocking
from beaver.errors import InvalidInput
from beaver.request.job_options import (
    DECLARED,
    DeclaredOptions,
    Duration,
    JobOptions,
    given_of,
    refuse_unknown,
    takes_options,
)
from beaver.structs.messages import Options, Request
from beaver.structs.views import Accepted
from beaver.task.registry import Registry, Task, pack_arguments

if TYPE_CHECKING:
    import inspect

    from beaver.request.templates import Template
    from beaver.task.context import JobContext

P = ParamSpec("P")
R = TypeVar("R")

_decode_options: Final = msgspec.msgpack.Decoder(Options).decode
_encode_options: Final = msgspec.msgpack.Encoder().encode


class Producer(HasConnection, Generic[P, R]):
    """A task that can be enqueued, with options for the next jobs."""

    def __init__(
        self, connection: Connection, task: Task[..., Any], given: Mapping[str, Any]
    ) -> None:
        self.connection = connection
        self.task = task
        self._given = dict(given)
        self._template: Template | None = None
        self._decode: Callable[[bytes], Any] | None = None

    @property
    def name(self) -> str:
        """Name of the task, as it stands in the log."""
        return self.task.name

    def request(self, *args: P.args, **kwargs: P.kwargs) -> Request:
        """Returns the job that stands for this call; nothing is sent.

        For `app.enqueue_many` and `ctx.enqueue`.

        Raises:
            TypeError: The arguments do not fit the function.
            InvalidInput: They are no JSON, or too large.
        """
        try:
            self.task.check_call(args, kwargs)
        except TypeError as error:
            # Found here, where its traceback helps, and not in a worker.
            raise TypeError(f"{self.name}.enqueue(): {error}") from None
        template = self._template or self._make_template()
        return template.fill(pack_arguments(args, kwargs))

    def _enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[Handle[R]]:
        """Enqueues a job for this call; it is durable on return.

        Raises:
            TypeError: The arguments do not fit the function.
            Conflict: A job with the given id exists, with different content.
            StoreUnavailable: The store cannot be used now.
        """
        return calls.enqueue([self.request(*args, **kwargs)], self._handle)

    def _handle(self, made: list[Accepted]) -> Handle[R]:
        (one,) = made
        if one.unknown_task:
            tell_unknown(one)
        return Handle(
            self.connection, one.id, seq=one.seq, created=one.created, decode=self._decode_result
        )

    enqueue = blocking(_enqueue)
    aenqueue = awaited(_enqueue)
    delay = enqueue
    adelay = aenqueue

    @takes_options
    def options(
        self,
        **options: Unpack[JobOptions],
    ) -> Producer[P, R]:
        """Returns the same task with options for its next jobs: `.options(delay=5).enqueue(x)`.

        Args:
            **options: Options of the job: see `JobOptions`.
        """
        given = given_of(options, f"{self.name}.options()")
        return Producer(self.connection, self.task, {**self._given, **given})

    def _make_template(self) -> Template:
        """Returns what all jobs have in common; their options travel with the decorator's.

        The digest of a request stays that of what was sent, so that a changed declaration
        does not make a resent job a conflict.
        """
        from beaver.request.requests import make_template

        template = make_template(self.task.name, **self._given)
        template.travel_with(merge(template.options, self.task.options))
        self._template = template
        return template

    def _decode_result(self, raw: bytes) -> Any:
        if self._decode is None:
            self._decode = decoder_of(self.task.function)
        return self._decode(raw)


def merge(sent: bytes, declared: Options) -> bytes:
    """Returns the options of a request with those of the task's declaration behind them."""
    asked = _decode_options(sent)
    first, second = msgspec.structs.asdict(asked), msgspec.structs.asdict(declared)
    chosen = {name: second[name] if value is None else value for name, value in first.items()}
    return _encode_options(Options(**chosen))


def decoder_of(function: Callable[..., Any]) -> Callable[[bytes], Any]:
    """Returns what turns a result's JSON into the type that the function says it returns.

    Where it says nothing, something that JSON cannot carry, or something untrue, the result
    is plain JSON data.
    """
    import typing

    plain = msgspec.json.Decoder().decode
    try:
        kind = typing.get_type_hints(function).get("return", Any)
        typed = _model_decoder(kind) or msgspec.json.Decoder(kind).decode
    except Exception:  # noqa: BLE001 - annotations are the user's, and may fail in any way
        return plain

    def decode(raw: bytes) -> Any:
        try:
            return typed(raw)
        except ValueError:  # msgspec's and pydantic's
            return plain(raw)

    return decode


def _model_decoder(kind: Any) -> Callable[[bytes], Any] | None:
    """Returns what reads a type in which models of pydantic stand; `None` for any other."""
    if hasattr(kind, "model_validate_json"):
        decode: Callable[[bytes], Any] = kind.model_validate_json
        return decode
    if not any(map(_model_decoder, getattr(kind, "__args__", None) or ())):
        return None
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_json


# -- the four kinds, which differ in a plain call -----------------------------------------------


def _shown(signature: inspect.Signature) -> str:
    """Returns what a function says it returns, as it would be written."""
    returned = signature.return_annotation
    if returned is signature.empty:
        return "Any"
    return returned if isinstance(returned, str) else getattr(returned, "__name__", str(returned))


class _Declared(Producer[P, R]):
    def __init__(self, connection: Connection, task: Task[..., Any]) -> None:
        super().__init__(connection, task, {})
        self.__name__, self.__qualname__ = task.__name__, task.__qualname__
        self.__module__, self.__doc__ = task.__module__, task.__doc__
        self.__wrapped__ = task.function
        for name in ("request", "enqueue", "aenqueue", "delay", "adelay"):
            self.__dict__[name] = self._with_signature(name)

    def _with_signature(self, name: str) -> Callable[..., Any]:
        """Returns a method that shows the function's parameters to `inspect` and to editors."""
        method = getattr(type(self), name)
        own = partial(method, self)
        own.__name__, own.__doc__ = name, method.__doc__  # type: ignore[attr-defined]
        signature = self.task.signature
        returned = "Request" if name == "request" else f"Handle[{_shown(signature)}]"
        own.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
        return own

    def __repr__(self) -> str:
        return f"<job {self.name}>"


class Job(_Declared[P, R]):
    """A function that can be enqueued.  Calling it just calls it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        value: R = self.task.function(*args, **kwargs)
        return value


class AsyncJob(_Declared[P, R]):
    """A coroutine function that can be enqueued."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        value: Coroutine[Any, Any, R] = self.task.function(*args, **kwargs)
        return value


class ContextJob(_Declared[P, R]):
    """A function whose first parameter is the context, which no producer gives."""

    def __call__(self, ctx: JobContext, /, *args: P.args, **kwargs: P.kwargs) -> R:
        value: R = self.task.function(ctx, *args, **kwargs)
        return value


class AsyncContextJob(_Declared[P, R]):
    """The same for a coroutine function."""

    def __call__(
        self, ctx: JobContext, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        value: Coroutine[Any, Any, R] = self.task.function(ctx, *args, **kwargs)
        return value


class Declaration:
    """`@app.job`, with or without options."""

    def __init__(
        self, connection: Connection, registry: Registry, given: Mapping[str, Any]
    ) -> None:
        self._connection, self._registry, self._given = connection, registry, given

    # The more special form comes first, so that mypy and pyright take it; both see overlaps.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[JobContext, P], Coroutine[Any, Any, R]], /
    ) -> AsyncContextJob[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[JobContext, P], R], /
    ) -> ContextJob[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncJob[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Job[P, R]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = None,
        **options: Unpack[DeclaredOptions],
    ) -> Declaration: ...
    @takes_options
    def __call__(
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        **options: Unpack[DeclaredOptions],
    ) -> Any:
        """Declares a job.  What `options` of a call says wins over the declaration.

        Args:
            function: The function; its name is the task's unless `name` gives another.
            name: Name of the task in the log and on the command line.
            **options: Options of its jobs: see `DeclaredOptions`.

        Raises:
            InvalidInput: A value is wrong, an option belongs to a later release, another
                function has this name, or no worker could run this one (a generator, a method).
            TypeError: There is no such option.
        """
        refuse_unknown(options, "@app.job", DECLARED)
        said = {"name": name, **options}
        given = {**self._given, **{k: v for k, v in said.items() if v is not None}}
        if function is None:
            return Declaration(self._connection, self._registry, given)
        if not callable(function):
            raise InvalidInput(f"@app.job: a function is expected, found {function!r:.80}")
        return self._declare(function, given)

    def _declare(self, function: Callable[..., Any], given: dict[str, Any]) -> Any:
        from beaver.request.options import backoff_from_python, check_options
        from beaver.task.parameters import refuse_uncallable
        from beaver.text.names import check_name

        refuse_uncallable(function)
        name = given.get("name", getattr(function, "__name__", None))
        if name is None:
            raise InvalidInput(
                f"@app.job: {function!r:.80} has no name of its own: give one (`name=...`)"
            )
        check_name(name, "@app.job: name")
        if given.get("queue") is not None:
            check_name(given["queue"], "@app.job: queue")
        backoff, timeout = given.get("backoff"), given.get("timeout")
        declared = Options(
            name,
            given.get("queue"),
            given.get("priority"),
            None if timeout is None else _duration_ms(timeout),
            given.get("max_attempts"),
            None if backoff is None else backoff_from_python(backoff),
        )
        check_options(declared)
        task: Task[..., Any] = Task(function, declared)
        kind = _kind_of(task)
        self._registry.add(task)
        return kind(self._connection, task)


def _duration_ms(value: Duration) -> int:
    from beaver.text.durations import parse_duration_ms

    return parse_duration_ms(value, "@app.job: timeout")


def _kind_of(task: Task[..., Any]) -> type[_Declared[Any, Any]]:
    with_context = task.parameters.context is not None
    if task.is_async:
        return AsyncContextJob if with_context else AsyncJob
    return ContextJob if with_context else Job
