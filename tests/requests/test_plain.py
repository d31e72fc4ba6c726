"""A job as JSON is the same request whichever way it is read; what is wrong is wrong both ways."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beaver.errors import InvalidInput
from beaver.request.plain import plain_request
from beaver.request.requests import TASK_DEFAULT, _from_json
from beaver.structs.messages import Request
from beaver_model.bounds import PAYLOAD_BYTES_MAX

ODD = [
    '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', '[{"x":"","x":""}]', "5.0", "1e400", "-0", "1E5",
    "123456789012345678901234567890", "null", "true", '""', "nul", '"\\u0022"', '"a\\nb"', '"é"',
    "{\n}", "[1,\r\n2]", '{"a":1,}', "[" * 70 + "]" * 70, '"' + "x" * 70 + '"', "NaN", "1 2", "",
    "0.1", '{"":"","":""}', '"\x01"',
]  # fmt: skip
KEYS = ["id", "task", "payload", "queue", "priority", "timeout_ms", "max_attempts", "tags", "delay"]
VALUES = ['"a"', '"b c"', '""', "1", "9", "10", "5.0", "null", "[]", '["t"]', '"5s"', "true"]

spaces = st.sampled_from(["", " ", "\n", "\t "])
payloads = st.one_of(
    st.sampled_from(ODD),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value, ensure_ascii=False)),
)
members = st.one_of(
    st.tuples(st.just("payload"), payloads),
    st.tuples(st.sampled_from([*KEYS, "tsak", "a b"]), st.sampled_from(VALUES)),
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    given = draw(st.lists(members, max_size=5))
    gap = draw(spaces)
    inside = f",{gap}".join(f'"{key}"{gap}:{value}' for key, value in given)
    return f"{gap}{{{inside}{gap}}}{gap}".encode("utf-8", "surrogatepass")


def comparable(request: Request | None, raw: bytes) -> Any:
    """The request without an id that was drawn."""
    if request is not None and '"id"' not in raw.decode("utf-8", "replace"):
        return msgspec.structs.replace(request, id="drawn")
    return request


@settings(max_examples=600, deadline=None)
@given(texts(), st.booleans(), st.sampled_from([PAYLOAD_BYTES_MAX, 3]))
@example(b'{"task":"a","task":"a"}', False, 100)
@example(b'{"payload":"\\"","payload":1}', False, 100)
@example(b'{"payload":{"a":"\\u0022","b":1,"b":2}}', False, 100)
def test_what_is_plain_is_read_as_all_else(raw: bytes, need_id: bool, bytes_max: int) -> None:
    plain = plain_request(raw, bytes_max, need_id, TASK_DEFAULT)
    if plain is None:
        return  # The other way decides.
    assert comparable(plain, raw) == comparable(_from_json(raw, bytes_max, need_id), raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"id": "a", "task": "echo", "payload": {"n": 1, "note": "text"}, "queue": "mail"}',
        b'{"payload":[1.5,"\xc3\xa9",null],"priority":3,"timeout_ms":5,"max_attempts":2}\n',
    ],
)
def test_a_usual_job_is_plain(raw: bytes) -> None:
    """Else all of them would take the slow way, and nobody would notice."""
    assert plain_request(raw, PAYLOAD_BYTES_MAX, False, TASK_DEFAULT) is not None


@pytest.mark.parametrize("extra", ["task", "payload", "id", "queue"])
def test_a_repeated_key_is_not_plain(extra: str) -> None:
    raw = b'{"id":"a","task":"b","queue":"c","payload":"d","%b":"b"}' % extra.encode()
    assert plain_request(raw, PAYLOAD_BYTES_MAX, False, TASK_DEFAULT) is None
    with pytest.raises(InvalidInput, match=f"'{extra}': repeated key"):
        _from_json(raw, PAYLOAD_BYTES_MAX, False)
