"""Requests: every rule on the content of a job, whichever way it comes in."""

from __future__ import annotations

import dataclasses
import decimal
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beaver.errors import InvalidInput
from beaver.request.requests import make_request, request_from_json, request_to_json
from beaver.request.resolving import Resolver
from beaver.structs.messages import Backoff, Options, Request
from beaver.system.ids import draw_id
from beaver_model import Spec
from beaver_model.bounds import (
    ATTEMPTS_MAX,
    ID_BYTES_MAX,
    PAYLOAD_BYTES_CEILING,
    PAYLOAD_BYTES_MAX,
    PAYLOAD_DEPTH_MAX,
    TAGS_MAX,
    TIME_MS_MAX,
    TIMEOUT_MS_MAX,
)
from beaver_model.rows import BackoffKind, Origin, spec_of

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


def from_json(**job: Any) -> Request:
    return request_from_json(json.dumps({"task": "echo", **job}).encode())


def refusal(raw: object, **options: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        request_from_json(raw if isinstance(raw, bytes) else json.dumps(raw).encode(), **options)
    return str(refused.value)


# -- ids --------------------------------------------------------------------------------


def test_drawn_ids_are_version_7_and_begin_with_the_time() -> None:
    before_ms = time.time_ns() // 1_000_000
    drawn = [uuid.UUID(draw_id()) for _ in range(1_000)]
    after_ms = time.time_ns() // 1_000_000
    assert {(one.version, one.variant) for one in drawn} == {(7, uuid.RFC_4122)}
    assert all(before_ms <= one.int >> 80 <= after_ms for one in drawn)
    assert len(set(drawn)) == 1_000


@pytest.mark.parametrize(
    "job_id", ["a", "x" * ID_BYTES_MAX, "ä" * 127, "a b/../c", "日本", "\u2028"]
)
def test_ids_within_their_bounds_are_taken_as_they_are(job_id: str) -> None:
    assert from_json(id=job_id).id == make_request("echo", id=job_id).id == job_id


@pytest.mark.parametrize(
    "job_id",
    ["", "x" * (ID_BYTES_MAX + 1), "ä" * 128, "a\nb", "\x00", "\x7f", "\x85", 7, None, ["a"]],
)
def test_other_ids_are_refused_naming_the_key(job_id: object) -> None:
    assert refusal({"task": "echo", "id": job_id}, where="line 7").startswith("line 7: id: ")


# -- payloads -----------------------------------------------------------------------------


@given(json_values)
def test_a_payload_is_kept_and_the_digest_is_the_same_from_python_and_from_json(
    value: object,
) -> None:
    from_python = make_request("echo", value, id="a")
    assert json.loads(from_python.payload) == value
    raw = json.dumps({"id": "a", "task": "echo", "payload": value}, indent=1).encode()
    from_text = request_from_json(raw)
    assert json.loads(from_text.payload) == value
    assert from_text.digest == from_python.digest
    assert b"\n" not in from_text.payload


def test_a_payload_keeps_the_very_bytes_that_were_sent_on_one_line() -> None:
    raw = (
        b'{"task": "echo", "payload": {"b" : 1.50,\r\n "a":\t[12345678901234567890123, "\\u00e9"]}}'
    )
    assert request_from_json(raw).payload == (
        b'{"b" : 1.50,   "a":\t[12345678901234567890123, "\\u00e9"]}'
    )


def test_white_space_and_the_order_of_keys_do_not_change_what_was_asked_for() -> None:
    one = request_from_json(b'{"task":"echo","payload":{"a":1,"b":[2]}}')
    other = request_from_json(b'{ "payload" : { "b" : [ 2 ], "a" : 1 } , "task" : "echo" }')
    assert one.digest == other.digest
    assert one.payload != other.payload


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"payload": 1}, {"payload": 1.0}),
        ({"payload": 2**70}, {"payload": 2**70 + 1}),
        ({"payload": [1, 2]}, {"payload": [2, 1]}),
        ({}, {"queue": "default"}),
        ({}, {"priority": 5}),
        ({"delay": 5}, {"delay": 6}),
        ({"run_at": 1}, {"run_at": 2}),
        ({"tags": ["a"]}, {"tags": ["b"]}),
        ({"backoff": 5}, {"backoff": 6}),
        ({"queue": "x"}, {"tags": ["x"]}),
    ],
)
def test_different_content_has_different_digests(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert from_json(id="a", **one).digest != from_json(id="a", **other).digest


def test_a_job_in_json_that_names_no_task_is_for_echo() -> None:
    assert request_from_json(b'{"id": "a", "payload": 7}').digest == from_json(payload=7).digest


def test_an_id_is_no_part_of_the_content_and_null_is_the_default_payload() -> None:
    assert from_json(id="a").digest == from_json(id="b", payload=None).digest


def test_a_resent_delay_is_the_same_request_however_it_is_written() -> None:
    assert from_json(delay=5).digest == from_json(delay="5s").digest
    assert from_json(delay=5).digest == make_request("echo", delay=timedelta(seconds=5)).digest


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"task": "echo", "payload": {"a": [1, NaN]}}', "payload.a[1]: NaN is not JSON"),
        (b'{"task": "echo", "payload": -Infinity}', "payload: -Infinity is not JSON"),
        (b'{"task": "echo", "payload": [1e400]}', "payload[0]: the number 1e400 is out of range"),
        (b'{"task": "echo", "payload": "\xff"}', "payload: not UTF-8"),
        (b'{"task": "echo", "payload": "\\ud800"}', "payload: not UTF-8, or half a surrogate"),
        (b'{"task": "echo", "payload": {"\\ud800": 1}}', "payload: a key is not UTF-8"),
        (b'{"task": "echo", "payload": {"a": 1, "a": 2}}', "'a': repeated key"),
        (b'{"task": "echo", "task": "echo"}', "'task': repeated key"),
        (b'{"task": "echo", "prority": 1}', "'prority': unknown key; did you mean priority?"),
        (b'{"task": "echo", "unique": "x"}', "unique: this option is not available yet"),
        (b'{"task": "echo", "queue": null}', "queue: null is not allowed"),
        (b'{"task": "echo"', "not JSON: "),
        (b'{"task": "echo",}', "not JSON: "),
        (b'{"task": "echo"} x', "not JSON: "),
        (b"", "not JSON: "),
        (b'["echo"]', "an object is expected, found an array"),
        (
            b'{"task": "echo", "payload": ' + b"1" * 5_000 + b"}",
            "payload: an integer of 5000 digits",
        ),
    ],
)
def test_what_is_no_job_is_refused_naming_place_and_key(raw: bytes, said: str) -> None:
    assert refusal(raw, where="index 3").startswith(f"index 3: {said}")


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("task", ["", 7, ["a"], {"a": 1}, "a\n", "x" * 201, True]),
        ("queue", ["", 7, [], {}, "a\tb", "x" * 201]),
        ("priority", [-1, 10, 5.0, "5", True, [5], {}]),
        ("run_at", [-1, "soon", 1.5, [], True, TIME_MS_MAX + 1]),
        ("delay", [-1, "soon", [], True, 10**15]),
        ("timeout_ms", [0, -1, "5s", 5.5, True, TIMEOUT_MS_MAX + 1, []]),
        ("max_attempts", [0, -1, "5", 2.0, True, ATTEMPTS_MAX + 1]),
        ("backoff", [-1, 1.5, True, [], {"kind": "cubic"}, {"base_ms": -1}, {"base": 1}]),
        ("backoff", ["5", "0.5", "soon"]),
        ("backoff", [{"jitter": 2}, {"jitter": "a"}, {"base_ms": 10, "max_ms": 5}, {"kind": 1}]),
        ("tags", ["a", {"a": 1}, [1], [""], ["a"] * (TAGS_MAX + 1)]),
    ],
)
def test_values_out_of_bounds_are_refused_naming_the_key(key: str, wrong: list[object]) -> None:
    for value in wrong:
        said = refusal({"task": "echo", key: value}, where="line 2")
        assert said.startswith(f"line 2: {key}"), (value, said)


def test_values_at_their_bounds_are_taken() -> None:
    request = from_json(
        priority=9,
        run_at=TIME_MS_MAX,
        timeout_ms=TIMEOUT_MS_MAX,
        max_attempts=ATTEMPTS_MAX,
        backoff={"kind": "linear", "base_ms": 0, "jitter": 1},
        tags=["t"] * TAGS_MAX,
        queue="q" * 200,
    )
    options = msgspec.msgpack.decode(request.options, type=Options)
    assert options.backoff == Backoff(BackoffKind.LINEAR, 0, 3_600_000, 1.0)
    assert (request.run_at_ms, len(request.tags)) == (TIME_MS_MAX, TAGS_MAX)


def test_payload_bounds_hold_at_and_above_the_limit() -> None:
    room = PAYLOAD_BYTES_MAX - 2
    assert len(make_request("echo", "x" * room).payload) == PAYLOAD_BYTES_MAX
    assert len(from_json(payload="x" * room).payload) == PAYLOAD_BYTES_MAX
    ceiling = PAYLOAD_BYTES_CEILING - 2
    assert len(make_request("echo", "x" * ceiling).payload) == PAYLOAD_BYTES_CEILING
    with pytest.raises(InvalidInput, match=r"^payload: at most 4194304 bytes.*no setting changes"):
        make_request("echo", "x" * (ceiling + 1))
    assert "payload: at most" in refusal({"task": "echo", "payload": "x" * (room + 1)})
    assert "payload: at most 10 bytes" in refusal(
        {"task": "echo", "payload": "x" * 10}, payload_bytes_max=10
    )


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_nesting_bounds_hold_at_and_above_the_limit_and_brackets_in_strings_do_not_count() -> None:
    deepest = nested(PAYLOAD_DEPTH_MAX)
    assert request_from_json(b'{"task":"echo","payload":%b}' % deepest).payload == deepest
    for depth in (PAYLOAD_DEPTH_MAX + 1, 200_000):
        raw = b'{"task":"echo","payload":%b}' % nested(depth)
        assert "nested deeper than 64" in refusal(raw)
    wide = [{"a": ["[[[["]}] * 200
    assert json.loads(make_request("echo", wide).payload) == wide
    deep: list[object] = []
    for _ in range(PAYLOAD_DEPTH_MAX):
        deep = [deep]
    with pytest.raises(InvalidInput, match=r"^payload: nested deeper"):
        make_request("echo", deep)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        [float("inf")],
        {1, 2},
        b"bytes",
        datetime(2030, 1, 1, tzinfo=UTC),
        {"a": object()},
    ],
)
def test_python_values_that_are_no_json_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^payload: "):
        make_request("echo", value)


@dataclasses.dataclass
class _Point:
    x: int = 1


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("-inf"),
        {1, 2},
        b"bytes",
        datetime(2030, 1, 1, tzinfo=UTC),
        timedelta(seconds=1),
        uuid.UUID(int=1),
        decimal.Decimal("1.5"),
        _Point(),
        Options("echo"),
        pathlib.PurePath("a"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("place", [lambda v: v, lambda v: {"a": [1, {"b": v}]}, lambda v: [v]])
def test_what_the_fast_encoder_would_turn_into_json_is_refused_wherever_it_stands(
    value: object, place: Callable[[object], object]
) -> None:
    """`msgspec` writes null for NaN and strings for dates: a payload arrives as it was, or not."""
    with pytest.raises(InvalidInput, match=r"^payload: "):
        make_request("echo", place(value))


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**63) - 1, 10**400, {"a": [{"b": 2**70, "c": 1.5}]}, [1, (2, {"z": 1, "a": 2})]],
)
def test_long_integers_and_tuples_survive_at_any_depth(value: object) -> None:
    """The standard library takes over where msgspec has no such number, or gives a list back."""
    made = make_request("echo", value, id="a")
    assert json.loads(made.payload) == json.loads(json.dumps(value))
    raw = json.dumps({"id": "a", "task": "echo", "payload": value}).encode()
    assert request_from_json(raw).digest == made.digest


def test_a_payload_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(InvalidInput, match=r"^payload: "):
        make_request("echo", loop)


# -- options ----------------------------------------------------------------------------------


def test_run_at_and_delay_exclude_each_other() -> None:
    assert "only one of them" in refusal({"task": "echo", "run_at": 1, "delay": 1})


def test_numbers_of_a_bool_are_not_found_in_the_memo_of_an_integer() -> None:
    make_request("echo", priority=1, max_attempts=1)
    with pytest.raises(InvalidInput, match=r"priority"):
        make_request("echo", priority=True, max_attempts=1)


def test_a_backoff_with_its_unit_means_the_same_in_a_file_and_from_python() -> None:
    in_file = from_json(backoff=2_000)
    assert in_file.digest == from_json(backoff="2s").digest == from_json(backoff="2000ms").digest
    assert in_file.digest == make_request("echo", backoff="2s").digest
    spec = spec_of(Resolver().spec(in_file.options))
    assert [spec.backoff_ms(attempt, 0.9) for attempt in (1, 2, 9)] == [2_000] * 3


@given(
    st.builds(
        make_request,
        st.sampled_from(["echo", "send mail"]),
        json_values,
        id=st.none()
        | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=9),
        queue=st.none() | st.just("q"),
        priority=st.none() | st.integers(0, 9),
        delay=st.none() | st.integers(0, 10**6),
        timeout=st.none() | st.floats(0.01, 1000),
        max_attempts=st.none() | st.integers(1, 100),
        backoff=st.none()
        | st.just({"kind": "linear", "jitter": 0.25})
        | st.integers(0, 99).map("{}ms".format),
        tags=st.lists(st.sampled_from(["a", "ü"]), max_size=3),
    )
)
def test_a_request_written_as_a_line_is_read_as_the_same_request(request_: Request) -> None:
    line = request_to_json(request_)
    assert b"\n" not in line
    assert request_from_json(line) == request_


# -- resolving ----------------------------------------------------------------------------------


def test_a_request_comes_before_the_task_the_task_before_the_server_and_that_before_defaults() -> (
    None
):
    fixed = Backoff(BackoffKind.FIXED, 7, 7, 0.0)
    resolver = Resolver(
        timeout_ms=1_000,
        max_attempts=2,
        tasks={"mail": Options("mail", queue="mails", timeout_ms=2_000, backoff=fixed)},
    )

    def spec(task: str = "mail", **options: Any) -> Spec:
        return spec_of(resolver.spec(make_request(task, **options).options))

    assert (spec().queue, spec().timeout_ms, spec().max_attempts) == ("mails", 2_000, 2)
    assert spec().backoff_base_ms == 7
    assert (spec(timeout=3).timeout_ms, spec(queue="x").queue) == (3_000, "x")
    other = spec(task="other")
    assert (other.queue, other.timeout_ms, other.max_attempts) == ("default", 1_000, 2)
    assert (other.priority, other.backoff_kind) == (5, BackoffKind.EXPONENTIAL)


def test_the_origin_is_recorded_and_is_not_mixed_up_by_the_memo() -> None:
    resolver, request = Resolver(), make_request("exec")
    for origin in (Origin.HTTP, Origin.LOCAL, Origin.JOB, Origin.HTTP):
        assert spec_of(resolver.job(request, 0, origin).spec).origin == origin


def test_each_asker_has_jobs_of_their_own() -> None:
    """The same options of two tokens tell them apart, also where more came than are remembered."""
    resolver, request = Resolver(), make_request("t")
    askers = [f"token:{number:08x}" for number in range(100)]
    for by in (*askers, "", *askers):
        spec = spec_of(resolver.job(request, 0, Origin.HTTP, by).spec)
        assert (spec.by, spec.origin, spec.task) == (by, Origin.HTTP, "t")


def test_a_delay_counts_from_when_the_job_came_in() -> None:
    resolver = Resolver()
    assert resolver.job(make_request("echo", delay=5), 1_000).run_at_ms == 6_000
    assert resolver.job(make_request("echo", run_at=77), 1_000).run_at_ms == 77
    assert resolver.job(make_request("echo"), 1_000).run_at_ms == 0


GOOD = make_request("echo", [1], id="a")


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "a\n"},
        {"digest": b"short"},
        {"payload": b""},
        {"payload": b"[1,\n2]"},
        {"payload": b"{"},
        {"payload": b'"\xff"'},
        {"payload": b"1e400"},
        {"payload": nested(65)},
        {"payload": b'"' + b"x" * PAYLOAD_BYTES_MAX + b'"'},
        {"run_at_ms": -1},
        {"run_at_ms": TIME_MS_MAX + 1},
        {"delay_ms": -1},
        {"delay_ms": TIME_MS_MAX},
        {"tags": ("",)},
        {"tags": ("t",) * 17},
        {"options": b"\xc1"},
        {"options": msgspec.msgpack.encode(["echo", "", None, None, None, None])},
        {"options": msgspec.msgpack.encode(["echo", None, 11])},
        {"options": msgspec.msgpack.encode(["echo", None, None, 0])},
        {"options": msgspec.msgpack.encode(["echo", None, None, None, 0])},
        {"options": msgspec.msgpack.encode(["echo", None, None, None, None, [9, 1, 1, 0.0]])},
        {"options": msgspec.msgpack.encode(["echo", None, None, None, None, [0, 1, 1, 2.0]])},
    ],
)
def test_the_server_trusts_no_client(changes: dict[str, Any]) -> None:
    fields = {**msgspec.structs.asdict(GOOD), **changes}
    with pytest.raises(InvalidInput):
        Resolver().job(Request(**fields), 1_000)


def test_a_forked_child_does_not_draw_the_ids_of_its_parent() -> None:
    draw_id()  # from here on some are drawn ahead
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "\n".join(draw_id()[14:] for _ in range(200)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading) as pipe:
        theirs = set(pipe.read().split("\n"))
    assert len(theirs) == 200
    assert theirs.isdisjoint(draw_id()[14:] for _ in range(200))
