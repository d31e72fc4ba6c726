"""Binding payloads to parameters, and packing calls into payloads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beaver.errors import BindError, InvalidInput
from beaver.structs.messages import Attempt, Options
from beaver.task import context
from beaver.task.context import JobContext, current
from beaver.task.registry import Registry, Task, pack_arguments
from beaver_model.bounds import CHILDREN_MAX


def task(function: Any) -> Task[..., Any]:
    return Task(function, Options(function.__name__))


def call(function: Any, payload: Any) -> Any:
    args, kwargs = task(function).bind(payload)
    return function(*args, **kwargs)


def none() -> str:
    return "none"


def one(value: Any) -> Any:
    return ("one", value)


def optional(value: Any = "default") -> Any:
    return ("optional", value)


def two(to: Any, text: Any = "hi") -> Any:
    return ("two", to, text)


def texts(to: str) -> Any:
    return ("texts", to)


def numbers(of: list[int], more: int = 0) -> Any:
    return ("numbers", of, more)


def whole(payload: dict[str, Any] | None) -> Any:
    return ("whole", payload)


def keyword_only(*, to: Any) -> Any:
    return ("keyword", to)


def positional_only(to: Any, /, text: Any = "hi") -> Any:
    return ("positional", to, text)


def anything(*args: Any, **kwargs: Any) -> Any:
    return (args, kwargs)


def with_context(to: Any, ctx: JobContext) -> Any:
    return ("context", to, ctx)


@pytest.mark.parametrize(
    ("function", "payload", "result"),
    [
        (none, None, "none"),
        (none, {}, "none"),
        (one, None, ("one", None)),
        (one, 5, ("one", 5)),
        (one, [1, 2], ("one", [1, 2])),
        (one, {"to": "x"}, ("one", {"to": "x"})),
        (one, {"value": "x"}, ("one", "x")),
        (one, {"args": [{"value": 1}], "kwargs": {}}, ("one", {"value": 1})),
        (one, {"args": 1, "kwargs": 2}, ("one", {"args": 1, "kwargs": 2})),
        (optional, None, ("optional", "default")),
        (optional, {}, ("optional", "default")),
        (optional, {"args": [None], "kwargs": {}}, ("optional", None)),
        (two, {"to": "x"}, ("two", "x", "hi")),
        (two, {"to": "x", "text": "y"}, ("two", "x", "y")),
        (two, "x", ("two", "x", "hi")),
        (two, {"other": "y"}, ("two", {"other": "y"}, "hi")),
        (texts, "x", ("texts", "x")),
        (texts, {"to": "x"}, ("texts", "x")),
        (numbers, [1, 2], ("numbers", [1, 2], 0)),
        (whole, {"other": 1}, ("whole", {"other": 1})),
        (whole, None, ("whole", None)),
        (keyword_only, {"to": 1}, ("keyword", 1)),
        (positional_only, {"to": 1}, ("positional", {"to": 1}, "hi")),
        (positional_only, 1, ("positional", 1, "hi")),
        (anything, {"a": 1}, ((), {"a": 1})),
        (anything, [1], (([1],), {})),
        (anything, None, ((), {})),
    ],
)
def test_a_payload_binds_as_its_writer_expects(function: Any, payload: Any, result: Any) -> None:
    assert call(function, payload) == result


@pytest.mark.parametrize(
    ("function", "payload"),
    [
        (none, 1),
        (none, {"a": 1}),
        (keyword_only, 1),
        (keyword_only, {"from": 1}),
        (two, {"text": "y"}),
        (two, {"to": "x", "txet": "y"}),
        (two, {"args": [1, 2, 3], "kwargs": {}}),
        (two, {"args": [], "kwargs": {"text": 1}}),
        (texts, {"other": 1}),
        (texts, [1]),
        (texts, None),
        (numbers, {"other": 1}),
        (numbers, None),
    ],
)
def test_a_payload_that_fits_no_call_is_refused_by_name(function: Any, payload: Any) -> None:
    with pytest.raises(BindError, match=function.__name__):
        task(function).bind(payload)


def test_the_context_parameter_takes_no_part_in_binding() -> None:
    assert task(with_context).parameters.context == "ctx"
    assert task(with_context).bind({"to": 1}) == ((), {"to": 1})
    assert task(with_context).bind(1) == ((1,), {})
    with pytest.raises(BindError, match="'ctx' is the context, which no producer gives"):
        task(with_context).bind({"to": 1, "ctx": 2})


def context_first(ctx: JobContext, to: Any, text: Any = "hi") -> Any:
    return ("first", ctx, to, text)


@pytest.mark.parametrize(
    ("function", "payload", "result"),
    [
        (context_first, "x", ("first", "CTX", "x", "hi")),
        (context_first, {"to": "x"}, ("first", "CTX", "x", "hi")),
        (context_first, {"args": ["x", "y"], "kwargs": {}}, ("first", "CTX", "x", "y")),
        (context_first, {"args": ["x"], "kwargs": {"text": "y"}}, ("first", "CTX", "x", "y")),
        (with_context, "x", ("context", "x", "CTX")),
        (with_context, {"to": "x"}, ("context", "x", "CTX")),
    ],
)
def test_the_context_comes_where_the_function_wants_it(
    function: Any, payload: Any, result: Any
) -> None:
    bound = task(function)
    args, kwargs = bound.parameters.with_context(*bound.bind(payload), "CTX")
    assert function(*args, **kwargs) == result


def test_a_misfit_says_which_keys_are_wrong_and_which_are_missing() -> None:
    with pytest.raises(BindError) as refused:
        task(two).bind({"text": "y", "tto": 1})
    assert "no parameter 'tto'; did you mean to?" in str(refused.value)
    assert "missing: to" in str(refused.value)


def test_two_contexts_are_refused() -> None:
    def confused(one: JobContext, other: JobContext) -> None: ...

    with pytest.raises(InvalidInput, match="more than one"):
        task(confused).bind(None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["args", "kwargs", "value", "a", "b"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.lists(json_values, max_size=3),
    st.dictionaries(st.sampled_from(["args", "kwargs", "a", "b"]), json_values, max_size=3),
)
def test_a_packed_call_is_made_exactly_as_it_was_written(
    args: list[Any], kwargs: dict[str, Any]
) -> None:
    sent = msgspec.json.decode(msgspec.json.encode(pack_arguments(tuple(args), kwargs)))
    assert call(anything, sent) == (tuple(args), kwargs)


@given(json_values)
def test_a_packed_single_argument_arrives_whatever_it_is(value: Any) -> None:
    sent = msgspec.json.decode(msgspec.json.encode(pack_arguments((value,), {})))
    for function, name in ((one, "one"), (optional, "optional")):
        assert call(function, sent) == (name, value)


def test_two_functions_of_one_name_are_refused_and_a_reload_is_not() -> None:
    registry = Registry()
    registry.add(Task(one, Options("mail")))
    registry.add(Task(one, Options("mail")))
    with pytest.raises(InvalidInput, match="two tasks are named 'mail'"):
        registry.add(Task(two, Options("mail")))
    with pytest.raises(InvalidInput, match="two tasks are named 'mail'"):
        registry.add(Task(one, Options("mail", queue="other")))
    assert len(registry) == 1
    assert "mail" in registry


def test_a_plain_call_of_a_task_just_calls() -> None:
    assert task(two)("x", text="y") == ("two", "x", "y")


def attempt(**fields: Any) -> Attempt:
    return Attempt(1, "j", "t", b"null", 1, 5, "default", 0, "k", 0, **fields)


def test_the_number_of_children_is_bounded() -> None:
    ctx = JobContext(attempt())
    for number in range(CHILDREN_MAX):
        ctx.enqueue(task(one), number)
    with pytest.raises(InvalidInput, match="at most"):
        ctx.enqueue(task(one), 1)


def test_the_bytes_of_all_children_together_are_bounded() -> None:
    ctx = JobContext(attempt())
    for _ in range(6):
        ctx.enqueue(task(one), "x" * 1_000_000)
    with pytest.raises(InvalidInput, match="bytes together"):
        ctx.enqueue(task(one), "x" * 1_000_000)


def test_outside_of_a_job_there_is_no_context() -> None:
    with pytest.raises(InvalidInput, match="no job runs here"):
        current()
    ctx = JobContext(attempt())
    context.enter_alone(ctx)
    try:
        assert current() is ctx
    finally:
        context.enter_alone(None)
