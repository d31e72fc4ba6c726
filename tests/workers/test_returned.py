"""What a job may return: carried unchanged and read back by its annotation, or refused."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, datetime
from typing import Any

import msgspec
import pydantic
import pytest

from beaver import Beaver, JobFailed
from beaver.errors import InvalidInput
from beaver.workers.returned import encode_result
from beaver_model.bounds import RESULT_BYTES_MAX

NAN = float("nan")


@dataclasses.dataclass
class Point:
    x: float
    y: tuple[int, ...] = ()
    by_number: dict[Any, int] = dataclasses.field(default_factory=dict)


class Struct(msgspec.Struct):
    x: float
    points: list[Point] = []


class Model(pydantic.BaseModel):
    x: float
    at: datetime | None = None
    renamed: int = pydantic.Field(default=0, alias="Renamed")


class Colour(enum.Enum):
    RED = "red"


def returned(function: Any) -> Any:
    """Runs a job to its end, as workers do, and returns its result as a producer gets it."""
    app = Beaver("unused")
    with app.testing() as testing:
        handle = app.job(name="f")(function).enqueue()
        testing.drain(scheduled=True)
        return handle.result()


def annotated(value: Any, kind: Any) -> Any:
    def function() -> Any:
        return value

    function.__annotations__["return"] = kind
    return function


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Point(1.5, (1, 2)), Point),
        ([Point(1.0)], list[Point]),
        (Struct(2.5, [Point(0.0)]), Struct),
        ({"a": Struct(1.0)}, dict[str, Struct]),
        (Model(x=1.5, at=datetime(2030, 1, 1, tzinfo=UTC), Renamed=3), Model),
        ([Model(x=1.0)], list[Model]),
        ({"a": Model(x=1.0)}, dict[str, Model]),
        (Model(x=2.0), Model | None),
        (None, Model | None),
        ([Model(x=2.0), Point(1.0)], list[Model | Point]),
        (Colour.RED, Colour),
        (datetime(2030, 1, 1, tzinfo=UTC), datetime),
        ((1, "a"), tuple[int, str]),
        ({"a": [1, None, "x", 2.5, True]}, Any),
        (1 << 80, Any),
    ],
)
def test_what_a_function_returns_comes_back_as_its_annotation_says(
    value: object, kind: Any
) -> None:
    assert returned(annotated(value, kind)) == value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (NAN, "nan is no JSON number"),
        ({"scores": [1.0, NAN]}, r"scores\[1\]: nan"),
        ((float("-inf"),), r"\[0\]: -inf"),
        (Point(NAN), "x: nan"),
        (Struct(1.0, [Point(NAN)]), r"points\[0\]\.x: nan"),
        (Model(x=NAN), "x: nan"),
        ({1: 2}, "the key 1 is no text"),
        ({"a": {2.5: 1}}, "a: the key 2.5"),
        (Point(1.0, (), {7: 1}), "by_number: the key 7"),
        (object(), "type object is no JSON"),
        (Model, "no JSON"),
        ((n for n in [1]), "return a list"),
    ],
)
def test_a_result_that_json_would_change_is_refused_with_its_place(
    value: object, said: str
) -> None:
    with pytest.raises(InvalidInput, match=rf"the result cannot be written as JSON: .*{said}"):
        encode_result(value)


def test_such_a_result_makes_the_job_dead_at_once_since_trying_again_gives_the_same() -> None:
    runs = []

    def mean() -> float:
        runs.append(1)
        return NAN

    with pytest.raises(JobFailed, match="nan is no JSON number") as failed:
        returned(mean)
    assert (failed.value.state, failed.value.cause, len(runs)) == ("dead", "not_retryable", 1)


def test_a_coroutine_that_nobody_awaited_is_told_how_to_declare_it() -> None:
    async def inner() -> int:
        return 1

    coroutine = inner()
    try:
        with pytest.raises(InvalidInput, match="async def"):
            encode_result(coroutine)
    finally:
        coroutine.close()


def test_a_result_at_its_bound_is_kept_and_one_above_it_is_refused_with_what_to_do() -> None:
    assert len(returned(lambda: "x" * (RESULT_BYTES_MAX - 2))) == RESULT_BYTES_MAX - 2
    with pytest.raises(
        JobFailed, match=r"1048577 bytes.*no setting changes that: store it elsewhere"
    ):
        returned(lambda: "x" * (RESULT_BYTES_MAX - 1))
