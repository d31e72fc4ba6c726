"""Tasks: named functions with the options of their declaration, and how payloads reach them.

A payload is any JSON.  What a Python caller passes is packed so that binding gives it back
exactly; what somebody wrote by hand binds as they would expect:

| payload | becomes |
|---|---|
| `{"args": [...], "kwargs": {...}}`, these two keys alone | the call that they describe |
| an object whose keys fit the parameters | keyword arguments |
| `null`, where no argument is needed | a call without arguments |
| anything else | the one positional argument |

The parameter annotated `JobContext` gets the context and takes no part in this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, NamedTuple, ParamSpec, TypeVar

from beaver.errors import InvalidInput
from beaver.messages import Options, Request, TaskInfo

P = ParamSpec("P")
R = TypeVar("R")

_SPREAD: Final = {"args", "kwargs"}
_CONTEXT_NAME: Final = "JobContext"


class BindError(InvalidInput):
    """A payload does not fit the parameters of its task."""


def pack_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns the payload that `Task.bind` turns back into exactly this call."""
    if not args and not kwargs:
        return None
    if not args and kwargs.keys() != _SPREAD:
        return kwargs
    if len(args) == 1 and not kwargs and not isinstance(args[0], dict) and args[0] is not None:
        return args[0]
    return {"args": list(args), "kwargs": kwargs}


class Parameters(NamedTuple):
    """What of a function's signature decides about binding, the context left out."""

    positional: tuple[str, ...]
    """Parameters that may be given by position, in order."""
    keywords: frozenset[str]
    """Parameters that may be given by name."""
    required: frozenset[str]
    required_positional_only: int
    any_positional: bool
    any_keyword: bool
    context: str | None
    """Name of the parameter that gets the context."""
    context_index: int = -1
    """Parameters before that one, where it may be given by position."""

    @property
    def callable_with_one(self) -> bool:
        """True where a call with one positional argument, and nothing else, is complete."""
        if self.positional:
            return not self.required - {self.positional[0]}
        return self.any_positional and not self.required

    def fit(self, names: dict[str, Any]) -> bool:
        """True where a call with exactly these keyword arguments is complete."""
        keys = names.keys()
        return (
            not self.required_positional_only
            and self.required <= keys
            and (self.any_keyword or keys <= self.keywords)
            and self.context not in keys
        )

    def with_context(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns a bound call with the context in its place among the arguments."""
        if self.context is None:
            return args, kwargs
        index = self.context_index
        if 0 <= index <= len(args):
            # By name it would meet the argument that stands in its place.
            return (*args[:index], context, *args[index:]), kwargs
        return args, {**kwargs, self.context: context}

    def __str__(self) -> str:
        names = [*self.positional, *sorted(self.keywords - set(self.positional))]
        if self.any_positional:
            names.append("*args")
        if self.any_keyword:
            names.append("**kwargs")
        return ", ".join(names) or "no parameters"


class Task(Generic[P, R]):
    """A function under a name.  Calling it just calls the function."""

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        self.function = function
        self.options = options
        self._parameters: Parameters | None = None
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", options.task)
        self.__module__ = getattr(function, "__module__", __name__)
        self.__qualname__ = getattr(function, "__qualname__", options.task)
        self.__wrapped__ = function

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

    def info(self) -> TaskInfo:
        return TaskInfo(self.options, self.is_async)

    def request(self, *args: P.args, **kwargs: P.kwargs) -> Request:
        """Returns the job that stands for this call; nothing is sent."""
        from beaver.requests import make_request

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
                return tuple(payload["args"]), payload["kwargs"]
            if parameters.fit(payload):
                return (), payload
        elif payload is None and not parameters.required:
            return (), {}
        if parameters.callable_with_one:
            return (payload,), {}
        raise BindError(
            f"the payload ({_describe(payload)}) does not fit the parameters of task "
            f"{self.name!r}: {parameters}"
        )


def _describe(payload: Any) -> str:
    if isinstance(payload, dict):
        keys = ", ".join(sorted(payload)[:10])
        return f"an object with the keys {keys}" if keys else "an empty object"
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(payload), "a number")


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Reads a function's signature.

    Raises:
        InvalidInput: It has more than one parameter for the context.
    """
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin without a signature takes what it gets
        return Parameters((), frozenset(), frozenset(), 0, True, True, None)
    contexts = [p.name for p in signature.parameters.values() if _is_context(p.annotation)]
    if len(contexts) > 1:
        raise InvalidInput(f"{function!r} has more than one {_CONTEXT_NAME} parameter")
    context = contexts[0] if contexts else None
    positional: list[str] = []
    keywords: set[str] = set()
    required: set[str] = set()
    required_positional_only = 0
    context_index = -1
    any_positional = any_keyword = False
    for name, parameter in signature.parameters.items():
        if parameter.kind == parameter.VAR_POSITIONAL:
            any_positional = True
        elif parameter.kind == parameter.VAR_KEYWORD:
            any_keyword = True
        elif name == context:
            if parameter.kind == parameter.POSITIONAL_ONLY:
                raise InvalidInput(f"the {_CONTEXT_NAME} parameter of {function!r} needs a name")
            if parameter.kind != parameter.KEYWORD_ONLY:
                context_index = len(positional)
        else:
            needed = parameter.default is parameter.empty
            if needed:
                required.add(name)
            if parameter.kind != parameter.KEYWORD_ONLY:
                positional.append(name)
            if parameter.kind != parameter.POSITIONAL_ONLY:
                keywords.add(name)
            elif needed:
                required_positional_only += 1
    return Parameters(
        tuple(positional),
        frozenset(keywords),
        frozenset(required),
        required_positional_only,
        any_positional,
        any_keyword,
        context,
        context_index,
    )


def _is_context(annotation: Any) -> bool:
    """True for `JobContext`, written as a name, a string, or one side of a union with None."""
    if isinstance(annotation, str):
        names = [part.strip().rsplit(".", 1)[-1] for part in annotation.strip("'\"").split("|")]
        return _CONTEXT_NAME in names
    options = getattr(annotation, "__args__", None) or (annotation,)
    return any(
        getattr(option, "__name__", "") == _CONTEXT_NAME
        and getattr(option, "__module__", "") == "beaver.context"
        for option in options
    )


class Registry:
    """The tasks of an application, by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}

    def add(self, task: Task[..., Any]) -> None:
        """Adds a task.

        A function that was defined again under the same qualified name replaces the older
        one (a module that was reloaded).

        Raises:
            InvalidInput: Another function has this name.
        """
        known = self._tasks.get(task.name)
        if known is not None and _place(known) != _place(task):
            raise InvalidInput(
                f"two tasks are named {task.name!r}: {'.'.join(_place(known))} and "
                f"{'.'.join(_place(task))}; give one of them a name of its own"
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


def _place(task: Task[..., Any]) -> tuple[str, str]:
    return task.__module__, task.__qualname__
