"""What a function's signature says about the jobs that call it.

Read once, where a job is declared: which parameters a payload fills, which one gets the
context, and whether a worker could call the function at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from beaver.errors import InvalidInput

if TYPE_CHECKING:
    import inspect

_CONTEXT_NAME: Final = "JobContext"
_CONTEXT_PARAMETER: Final = "ctx"
_DOTTED: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_PLAIN: Final = {
    **dict.fromkeys(("str", "int", "float", "bool", "bytes"), frozenset({"plain"})),
    **dict.fromkeys(("list", "tuple", "set", "frozenset"), frozenset({"array"})),
    "dict": frozenset({"object"}),
}
"""Annotations that say what JSON is a value of them, of plain values, arrays and objects."""
_ANY: Final = frozenset({"plain", "array", "object", "null"})


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
    first_takes: frozenset[str] = _ANY
    """Kinds of JSON that the first positional parameter accepts, as far as the annotation tells."""

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

    def take_whole(self, payload: Any) -> bool:
        """True where a payload may be meant as the one argument.

        An object that names a parameter is taken for keyword arguments with a mistake in them; an
        object, an array or null is not taken for a parameter that cannot have such a value.
        """
        if not self.callable_with_one:
            return False
        if isinstance(payload, dict):
            return (
                "object" in self.first_takes
                and self.keywords.isdisjoint(payload)
                and self.context not in payload
            )
        if isinstance(payload, list):
            return "array" in self.first_takes
        return payload is not None or "null" in self.first_takes

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


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Reads a function's signature.

    Raises:
        InvalidInput: The context is asked for in a way that cannot work.
    """
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin without a signature takes what it gets
        return Parameters((), frozenset(), frozenset(), 0, True, True, None)
    given = signature.parameters.values()
    contexts = [p.name for p in given if _is_context(p, function)]
    if len(contexts) > 1:
        raise InvalidInput(f"{_named(function)} has more than one {_CONTEXT_NAME} parameter")
    context = contexts[0] if contexts else None
    positional: list[str] = []
    keywords: set[str] = set()
    required: set[str] = set()
    required_positional_only = 0
    context_index = -1
    any_positional = any_keyword = False
    first: Any = None
    for name, parameter in signature.parameters.items():
        if parameter.kind == parameter.VAR_POSITIONAL:
            any_positional = True
        elif parameter.kind == parameter.VAR_KEYWORD:
            any_keyword = True
        elif name == context:
            if parameter.kind == parameter.POSITIONAL_ONLY:
                raise InvalidInput(
                    f"the {_CONTEXT_NAME} parameter of {_named(function)} needs a name"
                )
            if parameter.kind != parameter.KEYWORD_ONLY:
                context_index = len(positional)
        else:
            needed = parameter.default is parameter.empty
            if needed:
                required.add(name)
            if parameter.kind != parameter.KEYWORD_ONLY:
                first = first if positional else parameter.annotation
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
        _taken(first),
    )


def producer_signature(function: Callable[..., Any], context: str | None) -> inspect.Signature:
    """Returns the parameters that a producer gives: all but the context."""
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.Signature(
            [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        )
    given = [p for p in signature.parameters.values() if p.name != context]
    return signature.replace(parameters=given)


def _taken(annotation: Any) -> frozenset[str]:
    """Returns what JSON an annotation takes: anything, where it does not plainly say."""
    if isinstance(annotation, str):
        name = annotation.strip("'\" ").partition("[")[0]
        return _ANY if "|" in annotation else _PLAIN.get(name, _ANY)
    kind = getattr(annotation, "__origin__", None) or annotation
    return _PLAIN.get(kind.__name__, _ANY) if isinstance(kind, type) else _ANY


# -- the context ----------------------------------------------------------------------------


def _is_context(parameter: inspect.Parameter, function: Callable[..., Any]) -> bool:
    """True for a parameter annotated `JobContext`; one that seems to want it is refused."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    annotation, name = parameter.annotation, parameter.name
    if annotation is parameter.empty:
        if name != _CONTEXT_PARAMETER:
            return False
        raise InvalidInput(
            f"parameter {name!r} of {_named(function)} has no annotation: write "
            f"`{name}: {_CONTEXT_NAME}` to get the context of the job, or give an argument "
            "another name"
        )
    if isinstance(annotation, str):
        annotation = _looked_up(annotation.strip("'\" "), function)
    if _is_context_type(annotation):
        return True
    if _mentions_context(annotation):
        raise InvalidInput(
            f"parameter {name!r} of {_named(function)} is annotated {_text(annotation)}: every "
            f"attempt has a context, so write `{name}: {_CONTEXT_NAME}`"
        )
    return False


def _is_context_type(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return bool(_DOTTED.fullmatch(annotation)) and annotation.endswith(_CONTEXT_NAME)
    name, module = getattr(annotation, "__name__", ""), getattr(annotation, "__module__", "")
    return (name, module) == (_CONTEXT_NAME, "beaver.task.context")


def _looked_up(annotation: str, function: Callable[..., Any]) -> Any:
    """Returns what a name stands for in the function's module, else the text as it is."""
    if not _DOTTED.fullmatch(annotation):
        return annotation
    first, *rest = annotation.split(".")
    found = getattr(function, "__globals__", {}).get(first)
    for name in rest:
        found = getattr(found, name, None)
    return annotation if found is None else found


def _mentions_context(annotation: Any) -> bool:
    """True where it stands somewhere in a union, an `Annotated` or another generic."""
    if isinstance(annotation, str):
        return re.search(rf"\b{_CONTEXT_NAME}\b", annotation) is not None
    if forward := getattr(annotation, "__forward_arg__", None):
        return _mentions_context(forward)
    return _is_context_type(annotation) or any(
        map(_mentions_context, getattr(annotation, "__args__", None) or ())
    )


def _text(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else str(annotation).replace("typing.", "")


# -- what no worker could call ----------------------------------------------------------------


def refuse_uncallable(function: Callable[..., Any]) -> None:
    """Refuses a function whose call, in a worker, would not run it.

    Raises:
        InvalidInput: It is a generator function, a class, or a method without its object.
    """
    import inspect

    what = _named(function)
    if isinstance(function, type):
        raise InvalidInput(
            f"@app.job: {what} is a class: a call would only make an object; declare a function"
        )
    call = getattr(function, "__call__", None)  # noqa: B004 -- an object's own
    for each in (function, call):
        if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            raise InvalidInput(
                f"@app.job: {what} is a generator function: a call would run none of it; return a "
                "list, or enqueue a child for each item (`ctx.enqueue`)"
            )
    scope = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not scope or scope.endswith("<locals>") or inspect.ismethod(function):
        return
    try:
        first = next(iter(inspect.signature(function).parameters), "")
    except (TypeError, ValueError):
        return
    if first in ("self", "cls"):
        raise InvalidInput(
            f"@app.job: {what} is a method, and no worker has its {first!r}: declare a function "
            "outside of the class, and let it make or look up the object"
        )


def _named(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))
