"""Tasks: named functions with the options of their declaration, and how payloads reach them.

A payload is any JSON.  What a Python caller passes is packed so that binding gives it back
exactly; what somebody wrote by hand binds as they would expect:

| payload | becomes |
|---|---|
| `{"args": [...], "kwargs": {...}}`, these two keys alone | the call that they describe |
| an object whose keys fit the parameters | keyword arguments |
| an object that names a parameter and does not fit | refused: a key is wrong, or one is missing |
| `null`, where no argument is needed | a call without arguments |
| anything else | the one positional argument |

The parameter annotated `JobContext` gets the context and takes no part in this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar

from beaver.errors import BindError, InvalidInput
from beaver.structs.messages import Options, Request, TaskInfo
from beaver.task.parameters import Parameters, parameters_of, producer_signature
from beaver.text.near import unknown_name

if TYPE_CHECKING:
    import inspect

P = ParamSpec("P")
R = TypeVar("R")

_SPREAD: Final = {"args", "kwargs"}
_SHAPES_MAX: Final = 1_000


def pack_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns the payload that `Task.bind` turns back into exactly this call."""
    if not args and not kwargs:
        return None
    if not args and kwargs.keys() != _SPREAD:
        return kwargs
    if len(args) == 1 and not kwargs and not isinstance(args[0], dict) and args[0] is not None:
        return args[0]
    return {"args": list(args), "kwargs": kwargs}


class Task(Generic[P, R]):
    """A function under a name.  Calling it just calls the function."""

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        self.function = function
        self.options = options
        self._parameters: Parameters | None = None
        self._signature: inspect.Signature | None = None
        self._shapes: set[tuple[Any, ...]] = set()
        """Calls that fit: how many arguments by position, and the names of the others."""
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", options.task)
        self.__module__ = getattr(function, "__module__", __name__)
        self.__qualname__ = getattr(function, "__qualname__", options.task)
        self.__wrapped__ = function
        self.module_spec = getattr(sys.modules.get(self.__module__), "__spec__", None)
        """The import during which it was declared; a reload is another one."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    @property
    def name(self) -> str:
        return self.options.task

    @property
    def is_async(self) -> bool:
        """True where a call gives a coroutine."""
        import inspect

        call = getattr(self.function, "__call__", None)  # noqa: B004 -- an object's own
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call)

    @property
    def parameters(self) -> Parameters:
        if self._parameters is None:
            self._parameters = parameters_of(self.function)
        return self._parameters

    @property
    def signature(self) -> inspect.Signature:
        """The parameters that a producer gives."""
        if self._signature is None:
            self._signature = producer_signature(self.function, self.parameters.context)
        return self._signature

    def check_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Checks that a call fits.

        Whether it does depends on its shape alone, so a shape that fits is remembered.

        Raises:
            TypeError: It does not.
        """
        shape = (len(args), *kwargs)
        if shape not in self._shapes:
            self.signature.bind(*args, **kwargs)
            if len(self._shapes) >= _SHAPES_MAX:
                self._shapes.clear()
            self._shapes.add(shape)

    def info(self) -> TaskInfo:
        return TaskInfo(self.options, self.is_async)

    def request(self, *args: P.args, **kwargs: P.kwargs) -> Request:
        """Returns the job that stands for this call; nothing is sent."""
        from beaver.request.requests import make_request

        return make_request(self.name, pack_arguments(args, kwargs))

    def bind(self, payload: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the positional and keyword arguments that a payload stands for.

        Raises:
            BindError: It fits no way of calling the function.
        """
        parameters = self.parameters
        if isinstance(payload, dict):
            if (
                payload.keys() == _SPREAD
                and isinstance(payload["args"], list)
                and isinstance(payload["kwargs"], dict)
            ):
                return self._spread(tuple(payload["args"]), payload["kwargs"])
            if parameters.fit(payload):
                return (), payload
        elif payload is None and not parameters.required:
            return (), {}
        if parameters.take_whole(payload):
            return (payload,), {}
        raise BindError(self._misfit(payload))

    def _spread(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            self.check_call(args, kwargs)
        except TypeError as error:
            raise BindError(f"the payload does not fit task {self.name!r}: {error}") from None
        return args, kwargs

    def _misfit(self, payload: Any) -> str:
        return (
            f"the payload ({_describe(payload)}) does not fit the parameters of task "
            f"{self.name!r}: {self.parameters}{_hint(payload, self.parameters)}"
        )


def _describe(payload: Any) -> str:
    if isinstance(payload, dict):
        keys = ", ".join(sorted(payload)[:10])
        return f"an object with the keys {keys}" if keys else "an empty object"
    kinds = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(payload), "a number")


def _hint(payload: Any, parameters: Parameters) -> str:
    """Says which keys of an object are wrong or missing, and how a call is written out."""
    parts = []
    if isinstance(payload, dict):
        known = tuple(sorted(parameters.keywords))
        for key in sorted(payload.keys() - parameters.keywords):
            if key == parameters.context:
                parts.append(f"{key!r} is the context, which no producer gives")
            elif not parameters.any_keyword:
                parts.append(f"no parameter {key!r:.60}{unknown_name(key, known)}")
        if missing := sorted(parameters.required - payload.keys()):
            parts.append(f"missing: {', '.join(missing)}")
    call = 'a call is written out as {"args": [...], "kwargs": {...}}'
    return f"\n{'; '.join([*parts[:5], call])}"


class Registry:
    """The tasks of an application, by name."""

    def __init__(self, store: str = "") -> None:
        self._tasks: dict[str, Task[..., Any]] = {}
        self.store = store
        """Where the application says that its store is; empty where it does not."""

    def add(self, task: Task[..., Any]) -> None:
        """Adds a task.

        One that is declared again as its module is reloaded, or typed again at a prompt,
        replaces the older one.

        Raises:
            InvalidInput: Another function has this name.
        """
        known = self._tasks.get(task.name)
        if known is not None and not _again(known, task):
            raise InvalidInput(
                f"two tasks are named {task.name!r}: {_place(known)} and {_place(task)}; "
                'give one of them a name of its own (`@app.job(name="...")`)'
            )
        self._tasks[task.name] = task

    def get(self, name: str) -> Task[..., Any] | None:
        return self._tasks.get(name)

    def __iter__(self) -> Iterator[Task[..., Any]]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks


def _again(known: Task[..., Any], task: Task[..., Any]) -> bool:
    """True where `task` is `known`, declared once more on purpose."""
    if known.function is task.function:
        return known.options == task.options
    if (known.__module__, known.__qualname__) != (task.__module__, task.__qualname__):
        return False
    return known.module_spec is not task.module_spec or _is_typed(task)


def _is_typed(task: Task[..., Any]) -> bool:
    """True for what was entered at a prompt or in a notebook."""
    return task.__module__ == "__main__" and (
        hasattr(sys, "ps1") or not hasattr(sys.modules["__main__"], "__file__")
    )


def _place(task: Task[..., Any]) -> str:
    """Returns where a task's function stands, for people."""
    import inspect

    code = getattr(inspect.unwrap(task.function), "__code__", None)
    name = f"{task.__module__}.{task.__qualname__}"
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"
